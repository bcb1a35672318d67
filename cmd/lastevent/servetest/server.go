//go:build unix

// Package servetest has the program from outside, for tests of it: the built
// binary, its process, requests to it, and clients that check what it promises.
// Only tests import it.
package servetest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// stopsWithin is how long the server may take to stop.
const stopsWithin = 10 * time.Second

// patience is how long a test waits for all that must happen in it.
var patience = time.Duration(Rounds(1, 60)) * time.Minute

// binary is the program under test. It has the race detector if the tests have.
var binary string

// Main builds the program, runs the tests and exits: it is what TestMain does.
func Main(m *testing.M) { os.Exit(buildAndRun(m)) }

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
	build := exec.Command("go", append(args, "lastevent/cmd/lastevent")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// lookAtSources looks at the files of the module, once, in a test. The go command keeps
// the result of tests for as long as all that they looked at is the same, and it does
// not know that they build the program.
var lookAtSources = sync.OnceValue(func() error {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "lastevent").Output()
	if err != nil {
		return fmt.Errorf("go list -m lastevent: %w", err)
	}
	return filepath.WalkDir(strings.TrimSpace(string(dir)), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules") {
			return fs.SkipDir
		}
		if err == nil {
			_, err = os.Stat(path)
		}
		return err
	})
})

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

// Program returns the path of the program under test.
func Program(t *testing.T) string {
	t.Helper()
	if err := lookAtSources(); err != nil {
		t.Fatal(err)
	}
	return binary
}

// Run runs the program in dir until it exits, and returns its status and what it
// wrote to standard error. It kills one that does not exit.
func Run(t *testing.T, dir string, env []string, args ...string) (status int, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, Program(t), args...)
	cmd.Env = environment(env...)
	return runIn(t, dir, cmd)
}

func runIn(t *testing.T, dir string, cmd *exec.Cmd) (status int, stderr string) {
	t.Helper()
	cmd.Dir = dir
	var out strings.Builder
	cmd.Stderr = &out
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// Output runs the program, which must succeed, and returns what it wrote.
func Output(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = environment()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return string(out)
}

// A Server is a process of the program, and those that follow it on the same file
// and the same port. Methods that return an error can be called by many goroutines,
// also while the process is down; the others fail the test, and are for its own.
type Server struct {
	Ctx  context.Context // ends with the test's patience
	HTTP *http.Client
	DB   string // the file; with --store there is none
	Addr string
	URL  string // without a slash at the end

	t      *testing.T
	once   *http.Client // has a connection for each request
	args   []string
	env    []string   // more variables
	passed []*os.File // sockets, as systemd passes them
	serves string     // the url in the first line of the log
	cmd    *exec.Cmd
	exited chan struct{}

	mu  sync.Mutex // guards log
	log strings.Builder
}

// Start starts a server, without the time producer unless the flags turn it on.
// It is killed at the end of the test.
func Start(t *testing.T, flags ...string) *Server {
	t.Helper()
	return StartAt(t, FreeAddr(t), flags...)
}

// StartAt is Start at an address that nobody else uses, also while the server is down.
func StartAt(t *testing.T, addr string, flags ...string) *Server {
	t.Helper()
	s := prepare(t, addr, flags...)
	s.Restart()
	return s
}

// StartWith is Start with more variables in the environment.
func StartWith(t *testing.T, env []string, flags ...string) *Server {
	t.Helper()
	s := prepare(t, FreeAddr(t), flags...)
	s.env = env
	s.Restart()
	return s
}

func prepare(t *testing.T, addr string, flags ...string) *Server {
	t.Helper()
	if err := lookAtSources(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	s := &Server{t: t, Ctx: ctx, HTTP: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}}
	s.DB, s.Addr = filepath.Join(t.TempDir(), "x.db"), addr
	s.URL = "http://" + s.Addr
	if slices.Contains(flags, "--tls-cert") || slices.Contains(flags, "--acme-host") {
		s.URL = "https://" + s.Addr
	}
	s.serves = s.URL
	if strings.HasPrefix(addr, unixPrefix) {
		s.serves, s.URL = addr, "http://localhost"
		s.HTTP.Transport.(*http.Transport).DialContext = s.dial
	}
	s.once = once(s.HTTP)
	s.args = []string{"serve", "--listen", s.Addr, "--time-every", "0"}
	if !slices.Contains(flags, "--store") {
		s.args = append(s.args, "--db", s.DB)
	}
	s.args = append(s.args, flags...)
	t.Cleanup(func() {
		cancel()
		s.Kill()
		log := s.logged()
		if strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic") {
			t.Error("the server has a data race, or panicked")
		}
		if t.Failed() {
			t.Log("the server's log:\n" + log)
		}
	})
	return s
}

// FreeAddr is an address of the test's own, also while its server is down: outgoing
// connections use the ports from 32768 on, and other tests find its UDP port taken.
func FreeAddr(t *testing.T) string {
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000))
		reserved, err := net.ListenPacket("udp", addr)
		if err != nil {
			continue
		}
		t.Cleanup(func() { reserved.Close() })
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}

// Restart starts the server's process again after it was stopped or killed.
func (s *Server) Restart() {
	s.t.Helper()
	s.cmd, s.exited = exec.Command(binary, s.args...), make(chan struct{})
	if s.passed != nil {
		s.cmd = commandWith(s.passed, s.args...)
	}
	s.cmd.Env = environment(append(s.cmd.Env, s.env...)...)
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
		for n := 0; lines.Scan(); {
			s.mu.Lock()
			s.log.WriteString(lines.Text() + "\n")
			s.mu.Unlock()
			if strings.Contains(lines.Text(), `"waiting for JetStream"`) {
				continue
			}
			if n++; n == 1 {
				first <- lines.Text()
			}
		}
		_ = s.cmd.Wait() // the status is in ProcessState
	}()
	var line struct{ URL string }
	select {
	case text := <-first:
		if err := json.Unmarshal([]byte(text), &line); err != nil || line.URL != s.serves {
			s.t.Fatalf("the first line of the log does not tell the url %s: %q", s.serves, text)
		}
	case <-s.exited:
		s.t.Fatal("the server exited at once")
	case <-s.Ctx.Done():
		s.t.Fatal("the server does not say that it serves")
	}
}

func (s *Server) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// Log is what the server's processes wrote to standard error.
func (s *Server) Log() string { return s.logged() }

// Terminate sends SIGTERM.
func (s *Server) Terminate() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
}

// Wait waits for the end of a terminated server, and checks its exit status.
func (s *Server) Wait() {
	s.t.Helper()
	s.WaitFailed(0)
}

// WaitFailed waits for a server that ends by itself with the exit status, and returns
// the last line of its log.
func (s *Server) WaitFailed(status int) (last string) {
	s.t.Helper()
	select {
	case <-s.exited:
	case <-time.After(stopsWithin):
		s.t.Fatalf("the server runs on after %v", stopsWithin)
	}
	if got := s.cmd.ProcessState.ExitCode(); got != status {
		s.t.Fatalf("exit status %d (%v); want %d", got, s.cmd.ProcessState, status)
	}
	s.HTTP.CloseIdleConnections()
	lines := strings.Split(strings.TrimSpace(s.logged()), "\n")
	return lines[len(lines)-1]
}

// Stop is Terminate and Wait.
func (s *Server) Stop() {
	s.t.Helper()
	s.Terminate()
	s.Wait()
}

// Kill ends the server as kill -9 does.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill() // an error says that it is gone already
	<-s.exited
	s.HTTP.CloseIdleConnections()
}

// Curl prepares a real client; its output comes as it arrives.
func Curl(ctx context.Context, t *testing.T, args ...string) *exec.Cmd {
	path, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("needs curl")
	}
	return exec.CommandContext(ctx, path, append([]string{"-sN", "--noproxy", "*"}, args...)...)
}
