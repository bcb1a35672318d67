//go:build unix

package lastevent_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lastevent/stream/sse"
)

const (
	// patience is how long a test waits for all that must happen in it.
	patience = 30 * time.Second
	// stopsWithin is how long the server may take to stop.
	stopsWithin = 10 * time.Second
)

// binary is the program under test. It has the race detector if the tests have.
var binary string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "lastevent-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "lastevent")
	args := []string{"build", "-buildvcs=false", "-o", binary}
	if raceEnabled() {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "./cmd/lastevent")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

func raceEnabled() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// environment is that of the tests, without the program's own variables. The race
// detector would sleep for a second at each exit.
func environment(more ...string) []string {
	env := append([]string{"GORACE=atexit_sleep_ms=0"}, os.Environ()...)
	env = slices.DeleteFunc(env, func(v string) bool { return strings.HasPrefix(v, "LASTEVENT_") })
	return append(env, more...)
}

// run runs the program in dir until it exits, and returns its status and what it
// wrote to standard error. It kills one that does not exit.
func run(t *testing.T, dir string, env []string, args ...string) (status int, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir, cmd.Env = dir, environment(env...)
	var out strings.Builder
	cmd.Stderr = &out
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// A server is a process of the program, and those that follow it on the same file
// and the same port.
type server struct {
	t    *testing.T
	ctx  context.Context // ends with the test's patience
	http *http.Client
	args []string
	db   string
	addr string
	url  string

	cmd    *exec.Cmd
	exited chan struct{}

	mu  sync.Mutex // guards log
	log strings.Builder
}

// start starts a server, without the time producer unless the flags turn it on.
// It is killed at the end of the test.
func start(t *testing.T, flags ...string) *server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	s := &server{t: t, ctx: ctx, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}}
	s.db, s.addr = filepath.Join(t.TempDir(), "x.db"), freeAddr(t)
	s.args = append([]string{"serve", "--listen", s.addr, "--db", s.db, "--time-every", "0"}, flags...)
	t.Cleanup(func() {
		cancel()
		s.kill()
		log := s.logged()
		if strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic") {
			t.Error("the server has a data race, or panicked")
		}
		if t.Failed() {
			t.Log("the server's log:\n" + log)
		}
	})
	s.start()
	return s
}

// freeAddr is an address whose port no outgoing connection takes while the
// server is down: those use the ports from 32768 on.
func freeAddr(t *testing.T) string {
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

// start starts the server's process, again if it was stopped or killed.
func (s *server) start() {
	s.t.Helper()
	s.cmd, s.exited = exec.Command(binary, s.args...), make(chan struct{})
	s.cmd.Env = environment()
	stderr, err := s.cmd.StderrPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		close(s.exited)
		s.t.Fatal(err)
	}
	first := make(chan string, 1)
	go func() {
		defer close(s.exited)
		lines := bufio.NewScanner(stderr)
		for n := 0; lines.Scan(); n++ {
			s.mu.Lock()
			s.log.WriteString(lines.Text() + "\n")
			s.mu.Unlock()
			if n == 0 {
				first <- lines.Text()
			}
		}
		_ = s.cmd.Wait() // the status is in ProcessState
	}()
	var line struct{ URL string }
	select {
	case text := <-first:
		if err := json.Unmarshal([]byte(text), &line); err != nil || line.URL == "" {
			s.t.Fatalf("the first line of the log has no url: %q", text)
		}
	case <-s.exited:
		s.t.Fatal("the server exited at once")
	case <-s.ctx.Done():
		s.t.Fatal("the server does not say that it serves")
	}
	s.url = line.URL
}

func (s *server) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// terminate sends SIGTERM.
func (s *server) terminate() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
}

// wait waits for the end of a terminated server, and checks its exit status.
func (s *server) wait() {
	s.t.Helper()
	select {
	case <-s.exited:
	case <-time.After(stopsWithin):
		s.t.Fatalf("the server runs on after %v", stopsWithin)
	}
	if status := s.cmd.ProcessState.ExitCode(); status != 0 {
		s.t.Fatalf("exit status %d (%v)", status, s.cmd.ProcessState)
	}
	s.http.CloseIdleConnections()
}

func (s *server) stop() {
	s.t.Helper()
	s.terminate()
	s.wait()
}

// kill ends the server as kill -9 does.
func (s *server) kill() {
	_ = s.cmd.Process.Kill() // an error says that it is gone already
	<-s.exited
	s.http.CloseIdleConnections()
}

// An answer is a whole response.
type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a request, and returns the answer once it is complete. The header is
// names and values in turn.
func (s *server) do(method, path, body string, header ...string) answer {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.ctx, method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	req.Host = cmp.Or(req.Header.Get("Host"), req.Host)
	res, err := s.http.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatalf("%s %s: %v after %q", method, path, err, got)
	}
	return answer{res.StatusCode, res.Header, string(got)}
}

// checkProblem checks that a request was refused with the status, and in words.
func (s *server) checkProblem(a answer, status int) {
	s.t.Helper()
	var problem struct{ Detail string }
	err := json.Unmarshal([]byte(a.body), &problem)
	if typ := a.header.Get("Content-Type"); a.status != status || typ != "application/problem+json" || err != nil || problem.Detail == "" {
		s.t.Errorf("status %d, type %q, %q; want %d with a problem's detail", a.status, typ, a.body, status)
	}
}

// bounds asks for a stream's first and last.
func (s *server) bounds(stream string) (first, last uint64) {
	s.t.Helper()
	a := s.do("HEAD", "/sse/"+stream, "")
	first, err := strconv.ParseUint(a.header.Get("Stream-First-Id"), 10, 64)
	last, err2 := strconv.ParseUint(a.header.Get("Stream-Last-Id"), 10, 64)
	if a.status != http.StatusOK || err != nil || err2 != nil {
		s.t.Fatalf("HEAD /sse/%s: %d %v", stream, a.status, a.header)
	}
	return first, last
}

// logID is the name of the file's numbering.
func (s *server) logID() string { return s.do("HEAD", "/sse/any", "").header.Get("Stream-Log") }

// An event is what is published and comes back.
type event struct{ typ, data string }

// publish publishes one event. Without an error it is acknowledged.
func (s *server) publish(stream string, e event) (id uint64, err error) {
	req, err := http.NewRequestWithContext(s.ctx, "POST", s.url+"/sse/"+stream+"?event="+url.QueryEscape(e.typ), strings.NewReader(e.data))
	if err != nil {
		return 0, err
	}
	res, err := s.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	var receipt struct{ ID, Count uint64 }
	if err := json.Unmarshal(body, &receipt); err != nil || res.StatusCode != http.StatusCreated || receipt.Count != 1 {
		return 0, fmt.Errorf("publishing: %s %q", res.Status, body)
	}
	return receipt.ID, nil
}

// mustPublish publishes events of type message, which must get consecutive IDs up
// to last.
func (s *server) mustPublish(stream string, last uint64, data ...string) {
	s.t.Helper()
	for i, d := range data {
		id, err := s.publish(stream, event{"message", d})
		if want := last - uint64(len(data)-1-i); err != nil || id != want {
			s.t.Fatalf("publishing: ID %d, %v; want ID %d", id, err, want)
		}
	}
}

// numbered is n different data, from "event 1" on.
func numbered(n int) []string {
	data := make([]string, n)
	for i := range data {
		data[i] = fmt.Sprint("event ", i+1)
	}
	return data
}

// A subscription is the response to one GET of a stream, read as it comes.
type subscription struct {
	*sse.Reader
	body io.Closer
}

// subscribe subscribes with a Last-Event-ID, unless it is empty.
func subscribe(ctx context.Context, client *http.Client, url, lastEventID string) (*subscription, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return nil, err
	}
	if lastEventID != "" {
		req.Header.Set("Last-Event-ID", lastEventID)
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if typ := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || typ != "text/event-stream" {
		res.Body.Close()
		return nil, fmt.Errorf("%w: subscribing: %s, type %q", errBroken, res.Status, typ)
	}
	return &subscription{sse.NewReader(res.Body, 1<<20), res.Body}, nil
}

// drop closes the connection abruptly.
func (s *subscription) drop() { _ = s.body.Close() }

// errBroken: a promise of the server is broken.
var errBroken = errors.New("broken promise")

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errBroken}, args...)...)
}

// A ledger is what anybody saw of a stream, and what was acknowledged.
type ledger struct {
	mu     sync.Mutex
	events map[uint64]event
	acked  map[uint64]bool
}

func newLedger() *ledger { return &ledger{events: map[uint64]event{}, acked: map[uint64]bool{}} }

// see enters an event. It is an error if its ID had another content before.
func (l *ledger) see(id uint64, e event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if before, ok := l.events[id]; ok && before != e {
		return broken("ID %d was %q and is %q", id, before, e)
	}
	l.events[id] = e
	return nil
}

// acknowledge enters an event that was published.
func (l *ledger) acknowledge(id uint64, e event) error {
	l.mu.Lock()
	again := l.acked[id]
	l.acked[id] = true
	l.mu.Unlock()
	if again {
		return broken("ID %d was acknowledged twice", id)
	}
	return l.see(id, e)
}

// A gap is the data of a gap event.
type gap struct {
	Reason, LastEventID string
	First, Last         uint64
	Missed              *uint64
}

// A follower is a client that resumes where it was, and checks that it misses
// nothing but what a gap tells, exactly.
type follower struct {
	client *http.Client
	url    string
	seen   *ledger // may be nil

	began  bool // has an ID
	after  uint64
	events int
	gaps   int
	gap    *gap // not yet followed by its position
}

// follow subscribes, goes on while more says so, and then drops the connection.
// An error that is errBroken is the server's fault, any other the connection's.
func (f *follower) follow(ctx context.Context, more func() bool) error {
	sub, err := f.subscribe(ctx)
	if err != nil {
		return err
	}
	defer sub.drop()
	return f.read(sub, more)
}

func (f *follower) subscribe(ctx context.Context) (*subscription, error) {
	id := ""
	if f.began {
		id = strconv.FormatUint(f.after, 10)
	}
	return subscribe(ctx, f.client, f.url, id)
}

// read goes on reading a subscription while more says so.
func (f *follower) read(sub *subscription, more func() bool) error {
	for more() {
		m, err := sub.Next()
		if err == io.EOF {
			return broken("a clean end after ID %d", f.after)
		}
		if err == nil {
			err = f.take(m)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// upTo is for follow: until the event with this ID.
func (f *follower) upTo(last uint64) func() bool {
	return func() bool { return !f.began || f.after < last }
}

// take checks and enters one message.
func (f *follower) take(m sse.Message) error {
	if m.Type == "gap" {
		return f.takeGap(m)
	}
	id, err := strconv.ParseUint(m.ID, 10, 64)
	if err != nil {
		return broken("%q has the ID %q", m.Data, m.ID)
	}
	want := f.after + 1
	switch {
	case m.Type != "position" && (!f.began || f.gap != nil):
		return broken("ID %d where the position must be", id)
	case m.Type == "position" && f.gap != nil:
		want = f.gap.First - 1
	case m.Type == "position" && f.began:
		want = f.after
	case m.Type == "position":
		want = id
	}
	if id != want {
		return broken("%s %d where %d must be", m.Type, id, want)
	}
	f.began, f.after, f.gap = true, id, nil
	if m.Type == "position" {
		return nil
	}
	f.events++
	if f.seen == nil {
		return nil
	}
	return f.seen.see(id, event{m.Type, m.Data})
}

func (f *follower) takeGap(m sse.Message) error {
	g := new(gap)
	if err := json.Unmarshal([]byte(m.Data), g); err != nil {
		return broken("gap %q", m.Data)
	}
	if g.Reason != "evicted" || g.LastEventID != strconv.FormatUint(f.after, 10) ||
		g.Missed == nil || *g.Missed == 0 || g.First != f.after+*g.Missed+1 {
		return broken("gap %q after ID %d", m.Data, f.after)
	}
	f.gap = g
	f.gaps++
	return nil
}

// dial opens a connection for a request written by hand.
func (s *server) dial() net.Conn {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	deadline, _ := s.ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		s.t.Fatal(err)
	}
	return conn
}

// send writes a request, or a part of one.
func (s *server) send(conn net.Conn, text string) {
	s.t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		s.t.Fatal(err)
	}
}

// readBlock reads up to the end of the first event.
func (s *server) readBlock(r io.Reader) string {
	s.t.Helper()
	var got strings.Builder
	for b := make([]byte, 1); !strings.HasSuffix(got.String(), "\n\n"); {
		if _, err := r.Read(b); err != nil {
			s.t.Fatalf("%v after %q", err, got.String())
		}
		got.Write(b)
	}
	return got.String()
}

func fileBytes(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// curl prepares a real client; its output comes as it arrives.
func curl(ctx context.Context, t *testing.T, args ...string) *exec.Cmd {
	path, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("needs curl")
	}
	return exec.CommandContext(ctx, path, append([]string{"-sN", "--noproxy", "*"}, args...)...)
}
