//go:build unix

// The program from outside, as its users have it: the built binary, its command
// line, its file, and clients over TCP.
package lastevent_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"lastevent/stream/sse"
)

func TestCurlResumesWithoutHoleOrRepeat(t *testing.T) {
	t.Parallel()
	s := start(t, "--time-every", "15ms")
	const rounds, each = 5, 15
	var (
		f    follower
		last time.Time
	)
	for range rounds {
		args := []string{s.url + "/sse/time"}
		if f.began {
			args = append(args, "-H", fmt.Sprint("Last-Event-ID: ", f.after))
		}
		cmd := curl(s.ctx, t, args...)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		messages := sse.NewReader(out, 1<<16)
		for n := 0; ; n++ {
			m, err := messages.Next()
			if err != nil {
				break // killed
			}
			if n == each {
				_ = cmd.Process.Kill() // an error shows as one of too few events
			}
			if err := f.take(m); err != nil {
				t.Fatal(err)
			}
			if m.Type == "position" {
				continue
			}
			at, err := time.Parse(time.RFC3339Nano, m.Data)
			if m.Type != "time" || err != nil || at.Before(last) {
				t.Fatalf("event %s is a %s of %q, after one of %v", m.ID, m.Type, m.Data, last)
			}
			last = at
		}
		_ = cmd.Wait() // it was killed
	}
	if f.events < rounds*each || f.gaps > 0 {
		t.Fatalf("%d events and %d gaps in %d rounds", f.events, f.gaps, rounds)
	}
}

func TestDroppingClientsGetTheWholeSequence(t *testing.T) {
	t.Parallel()
	const producers, each, clients = 4, 500, 50
	const total = producers * each
	s := start(t)
	seen := newLedger()
	// All are cut off before the first event, with nothing but the position.
	followers := make([]*follower, clients)
	for i := range followers {
		f := &follower{client: s.http, url: s.url + "/sse/busy", seen: seen}
		if err := f.follow(s.ctx, func() bool { return !f.began }); err != nil {
			t.Fatal(err)
		}
		followers[i] = f
	}
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			for i := range each {
				e := event{"message", fmt.Sprintf("producer %d\nevent %d", p, i)}
				if i%3 == 0 {
					e.typ = "third"
				}
				id, err := s.publish("busy", e)
				if err := cmp.Or(err, seen.acknowledge(id, e)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var drops atomic.Int64
	for i, f := range followers {
		rnd := rand.New(rand.NewPCG(2, uint64(i)))
		wg.Go(func() {
			for f.after < total {
				messages := 1 + rnd.IntN(150)
				err := f.follow(s.ctx, func() bool {
					messages--
					return messages >= 0 && f.after < total
				})
				if err != nil {
					t.Error(err)
					return
				}
				drops.Add(1)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	if len(seen.acked) != total || len(seen.events) != total {
		t.Errorf("%d events were acknowledged and %d seen, of %d", len(seen.acked), len(seen.events), total)
	}
	for i, f := range followers {
		if f.events != total || f.gaps > 0 {
			t.Errorf("client %d has %d events and %d gaps", i, f.events, f.gaps)
		}
	}
	t.Logf("%d clients dropped %d times", clients, drops.Load())
}

func TestKillLosesNothingAndReusesNoID(t *testing.T) {
	t.Parallel()
	s := start(t)
	seen := newLedger()
	rnd := rand.New(rand.NewPCG(3, 0))
	followers := make([]*follower, 4)
	for i := range followers {
		followers[i] = &follower{client: s.http, url: s.url + "/sse/kept", seen: seen}
	}
	for round := range 5 {
		killWhileBusy(s, round, 50+rnd.Int64N(200), seen, followers)
		s.start()
		first, last := s.bounds("kept")
		if known := uint64(len(seen.events)); first != 1 || last < known {
			t.Fatalf("first %d, last %d, and %d events were seen", first, last, known)
		}
		all := follower{client: s.http, url: s.url + "/sse/kept", seen: seen, began: true}
		if err := all.follow(s.ctx, all.upTo(last)); err != nil || all.gaps > 0 {
			t.Fatal(err, all.gaps)
		}
	}
	_, last := s.bounds("kept")
	for i, f := range followers {
		if err := f.follow(s.ctx, f.upTo(last)); err != nil || f.gaps > 0 {
			t.Errorf("client %d: %v, %d gaps", i, err, f.gaps)
		}
	}
}

// killWhileBusy kills the server under producers and subscribers after so many
// acknowledgements.
func killWhileBusy(s *server, round int, after int64, seen *ledger, followers []*follower) {
	var (
		wg    sync.WaitGroup
		acked atomic.Int64
		now   = make(chan struct{})
	)
	for p := range 3 {
		wg.Go(func() {
			for i := 0; ; i++ {
				e := event{"message", fmt.Sprintf("round %d producer %d event %d", round, p, i)}
				id, err := s.publish("kept", e)
				if err != nil {
					return // killed
				}
				if err := seen.acknowledge(id, e); err != nil {
					s.t.Error(err)
				}
				if acked.Add(1) == after {
					close(now)
				}
			}
		})
	}
	for _, f := range followers {
		wg.Go(func() {
			if err := f.follow(s.ctx, func() bool { return true }); errors.Is(err, errBroken) {
				s.t.Error(err)
			}
		})
	}
	select {
	case <-now:
	case <-s.ctx.Done():
		s.t.Errorf("only %d events were acknowledged", acked.Load())
	}
	s.kill()
	wg.Wait()
}

func TestGapSaysExactlyWhatIsMissed(t *testing.T) {
	t.Parallel()
	s := start(t, "--retain-events", "100")
	s.mustPublish("ring", 250, numbered(250)...)
	log := s.logID()
	var events strings.Builder
	for id := 151; id <= 250; id++ {
		fmt.Fprintf(&events, "id: %d\ndata: event %d\n\n", id, id)
	}
	position := fmt.Sprintf("event: position\nid: 150\ndata: {\"log\":%q,\"first\":151,\"last\":250}\n\n", log)
	lost := func(reason, id string) string {
		echo, _ := json.Marshal(id) // a string has no error
		return fmt.Sprintf(`{"reason":%q,"lastEventId":%s,"first":151,"last":250,"missed":null}`, reason, echo)
	}
	for _, test := range []struct{ header, query, gap string }{
		{"20", "", `{"reason":"evicted","lastEventId":"20","first":151,"last":250,"missed":130}`},
		{"", "lastEventId=20", `{"reason":"evicted","lastEventId":"20","first":151,"last":250,"missed":130}`},
		{"149", "lastEventId=200", `{"reason":"evicted","lastEventId":"149","first":151,"last":250,"missed":1}`},
		{"0", "", `{"reason":"evicted","lastEventId":"0","first":151,"last":250,"missed":150}`},
		{"20", "log=" + log, `{"reason":"evicted","lastEventId":"20","first":151,"last":250,"missed":130}`},
		{"251", "", lost("ahead", "251")},
		{"18446744073709551615", "", lost("ahead", "18446744073709551615")},
		{"18446744073709551616", "", lost("unknown", "18446744073709551616")},
		{"000000000000000000200", "", lost("unknown", "000000000000000000200")},
		{"-1", "", lost("unknown", "-1")},
		{`{"id":"7"}`, "", lost("unknown", `{"id":"7"}`)},
		{strings.Repeat("x", 1000), "", lost("unknown", strings.Repeat("x", 128))},
		{"200", "log=other", lost("reset", "200")},
		{"", "log=other&lastEventId=250", lost("reset", "250")},
		{"150", "", ""},
		{"", "from=earliest", ""},
		{"", "from=-1000", ""},
		{"", "from=-100&log=other", ""},
	} {
		a := s.do("GET", "/sse/ring?limit=100&"+test.query, "", "Last-Event-ID", test.header)
		begin := regexp.MustCompile(`^retry: \d+\n`).FindString(a.body)
		want := position + events.String()
		if test.gap != "" {
			want = "event: gap\ndata: " + test.gap + "\n\n" + want
		}
		if got := a.body[len(begin):]; a.status != http.StatusOK || begin == "" || got != want {
			t.Errorf("Last-Event-ID %q, ?%s: %d\n%.500s\nwant\n%.500s", test.header, test.query, a.status, a.body, want)
		}
	}
	// A client at last misses nothing, nor does one without an ID.
	for _, id := range []string{"250", ""} {
		sub, err := subscribe(s.ctx, s.http, s.url+"/sse/ring", id)
		if err != nil {
			t.Fatal(err)
		}
		defer sub.drop()
		if m, err := sub.Next(); err != nil || m.Type != "position" || m.ID != "250" {
			t.Errorf("after ID %q: %+v, %v", id, m, err)
		}
	}
}

func TestNobodyWaitsForAStalledClient(t *testing.T) {
	t.Parallel()
	s := start(t, "--retain-events", "100")
	seen := newLedger()
	begin := func(client *http.Client) (*follower, *subscription) {
		f := &follower{client: client, url: s.url + "/sse/wide", seen: seen}
		sub, err := f.subscribe(s.ctx)
		if err == nil {
			err = f.read(sub, func() bool { return !f.began })
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(sub.drop)
		return f, sub
	}
	stalled, stalledSub := begin(smallWindow())
	leaving, leavingSub := begin(smallWindow())
	live, liveSub := begin(s.http)
	last := uint64(0)
	publish := func(n int) {
		for range n {
			last++
			e := event{"message", fmt.Sprint(last, strings.Repeat(" wide", 4000))}
			id, err := s.publish("wide", e)
			if err := cmp.Or(err, seen.acknowledge(id, e), live.read(liveSub, live.upTo(id))); err != nil {
				t.Fatal(err)
			}
		}
	}
	publish(90)
	if err := stalled.read(stalledSub, stalled.upTo(last)); err != nil || stalled.gaps > 0 {
		t.Fatalf("all is retained, and the stalled client has %d gaps, %v", stalled.gaps, err)
	}
	publish(300)
	if err := stalled.read(stalledSub, stalled.upTo(last)); err != nil || stalled.gaps == 0 {
		t.Errorf("the stalled client reads on: %d gaps, %v", stalled.gaps, err)
	}
	leavingSub.drop()
	if err := leaving.follow(s.ctx, leaving.upTo(last)); err != nil || leaving.gaps == 0 {
		t.Errorf("the stalled client comes back: %d gaps, %v", leaving.gaps, err)
	}
	if uint64(live.events) != last || live.gaps > 0 {
		t.Errorf("the live client has %d events and %d gaps, of %d", live.events, live.gaps, last)
	}
}

// smallWindow is a client for whom the kernel takes only a few KB that it does not read.
func smallWindow() *http.Client {
	dialer := net.Dialer{Control: func(_, _ string, conn syscall.RawConn) error {
		var set error
		err := conn.Control(func(fd uintptr) {
			set = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096)
		})
		return cmp.Or(err, set)
	}}
	return &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}
}

func TestStopCutsSubscribersAndLosesNothing(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.mustPublish("x", 1, "before")
	if a := s.do("GET", "/readyz", ""); a.status != http.StatusOK {
		t.Errorf("readyz: %d", a.status)
	}
	// Accepted before the others, and complete only after SIGTERM.
	ready, late, post := s.dial(), s.dial(), s.dial()
	s.send(ready, "GET /readyz HTTP/1.1\r\n")
	s.send(late, "GET /sse/x HTTP/1.1\r\n")
	s.send(post, "POST /sse/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\naf")
	http10, http11 := s.dial(), s.dial()
	s.send(http10, "GET /sse/x HTTP/1.0\r\n\r\n")
	s.send(http11, "GET /sse/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
	f := &follower{client: s.http, url: s.url + "/sse/x"}
	sub, err := f.subscribe(s.ctx)
	if err == nil {
		err = f.read(sub, func() bool { return !f.began })
	}
	if err != nil {
		t.Fatal(err)
	}
	defer sub.drop()
	s.readBlock(http10)
	s.readBlock(http11)

	s.terminate()
	if err := f.read(sub, func() bool { return true }); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("HTTP/1.1 ends with %v, want a cut", err)
	}
	if rest, _ := io.ReadAll(http11); string(rest) != "\r\n" { // which ends the first chunk
		t.Errorf("HTTP/1.1 has %q before its cut", rest)
	}
	if rest, err := io.ReadAll(http10); len(rest) > 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("HTTP/1.0 ends with %q and %v, want a reset", rest, err)
	}
	s.send(post, "ter")
	if answer, _ := io.ReadAll(post); !strings.HasPrefix(string(answer), "HTTP/1.1 201 ") {
		t.Errorf("a publish under way: %q", answer)
	}
	// A request that comes too late may find its connection closed.
	_, _ = io.WriteString(ready, "Host: localhost\r\n\r\n")
	if answer, _ := io.ReadAll(ready); len(answer) > 0 && !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") {
		t.Errorf("readyz while stopping: %q", answer)
	}
	_, _ = io.WriteString(late, "Host: localhost\r\n\r\n")
	if answer, _ := io.ReadAll(late); len(answer) > 0 &&
		(!strings.HasPrefix(string(answer), "HTTP/1.1 200 ") || strings.HasSuffix(string(answer), "0\r\n\r\n")) {
		t.Errorf("subscribing while stopping: %q", answer)
	}
	s.wait()
	s.start()
	s.mustPublish("x", 3, "again")
	if err := f.follow(s.ctx, f.upTo(3)); err != nil || f.gaps > 0 || f.events != 2 {
		t.Errorf("resuming: %d events, %d gaps, %v", f.events, f.gaps, err)
	}
}

func TestCurlTellsAnEndFromACut(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.mustPublish("x", 2, "one", "two")
	if out, err := curl(s.ctx, t, s.url+"/sse/x?from=earliest&limit=2").Output(); err != nil || !strings.HasSuffix(string(out), "\ndata: two\n\n") {
		t.Errorf("limit: %q, %v", out, err)
	}
	cut := curl(s.ctx, t, s.url+"/sse/x")
	out, err := cut.StdoutPipe()
	if err == nil {
		err = cut.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	s.readBlock(out)
	s.stop()
	_, _ = io.ReadAll(out) // until curl ends
	var exit *exec.ExitError
	if err := cut.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 18 { // "only a part was transferred"
		t.Errorf("stop: curl ends with %v", err)
	}
}

func TestLimitIsACleanEnd(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.mustPublish("x", 3, "one", "two", "three")
	const events = "id: 2\ndata: two\n\nid: 3\ndata: three\n\n"
	for _, test := range []struct{ version, end string }{
		{"HTTP/1.0", events},
		{"HTTP/1.1", events + "\r\n0\r\n\r\n"},
	} {
		conn := s.dial()
		s.send(conn, "GET /sse/x?limit=2 "+test.version+"\r\nHost: localhost\r\nLast-Event-ID: 1\r\n\r\n")
		got, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(got), test.version+" 200 ") || !strings.HasSuffix(string(got), test.end) {
			t.Errorf("%s: %v after %q", test.version, err, got)
		}
	}
}

func TestWrongFlagsCreateNothing(t *testing.T) {
	t.Parallel()
	const listen = "--listen=127.0.0.1:0"
	for _, test := range []struct {
		named string // in the message
		env   string
		args  []string
	}{
		{"--listen", "", []string{"--listen", "nonsense"}},
		{"--listen", "", []string{"--listen", "127.0.0.1:99999"}},
		{"--db", "", []string{listen, "--db", ""}},
		{"--time-every", "", []string{listen, "--time-every", "soon"}},
		{"--time-every", "", []string{listen, "--time-every", "-15ms"}},
		{"--time-every", "", []string{listen, "--time-every", "1us"}},
		{"--retain-events", "", []string{listen, "--retain-events", "-1"}},
		{"--retain-bytes", "", []string{listen, "--retain-bytes", "much"}},
		{"--retain-bytes", "", []string{listen, "--retain-bytes", "-1"}},
		{"--retain-age", "", []string{listen, "--retain-age", "-1s"}},
		{"--heartbeat", "", []string{listen, "--heartbeat", "0"}},
		{"--retry", "", []string{"serve", listen, "--retry", "-1s"}},
		{"--no-such", "", []string{listen, "--no-such"}},
		{"extra", "", []string{"serve", listen, "extra"}},
		{"LASTEVENT_LISTEN", "LASTEVENT_LISTEN=nonsense", nil},
		{"LASTEVENT_RETAIN_AGE", "LASTEVENT_RETAIN_AGE=old", []string{listen}},
		{"LASTEVENT_RETAIN_AGE", "LASTEVENT_RETAIN_AGE=-1s", []string{listen}},
		{"LASTEVENT_RETAIN_BYTES", "LASTEVENT_RETAIN_BYTES=64XB", []string{"serve", listen}},
	} {
		dir := t.TempDir()
		status, stderr := run(t, dir, []string{test.env}, test.args...)
		flag := "--" + strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(test.named, "LASTEVENT_"), "_", "-"))
		named := strings.Contains(stderr, test.named) || test.env != "" && strings.Contains(stderr, flag)
		if status != 2 || !named || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s %q: status %d, %q; want 2 and a line that names %s", test.env, test.args, status, stderr, test.named)
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
			t.Errorf("%s %q: created %v, %v", test.env, test.args, files, err)
		}
	}
}

func TestLockedFileIsRefused(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.mustPublish("x", 1, "one")
	before := time.Now()
	status, stderr := run(t, t.TempDir(), nil, "--listen", "127.0.0.1:0", "--db", s.db)
	// The promise is 2 s; the rest is for a machine that is busy.
	if took := time.Since(before); status != 1 || !strings.Contains(stderr, s.db) || took > 4*time.Second {
		t.Errorf("status %d after %v: %q", status, took, stderr)
	}
	s.mustPublish("x", 2, "two")
}

func TestFilesThatAreNotOursStayAsTheyAre(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.mustPublish("x", 100, numbered(100)...)
	s.stop()
	whole := fileBytes(t, s.db)
	for name, content := range map[string]string{
		"empty":           "",
		"text":            strings.Repeat("This is not a database.\n", 1000),
		"other bbolt":     otherBolt(t),
		"cut in a meta":   whole[:100],
		"cut to a meta":   whole[:4096],
		"cut to metas":    whole[:2*4096],
		"cut in a page":   whole[:3*4096+1000],
		"cut and padded":  whole[:2*4096] + strings.Repeat("\x00", len(whole)-2*4096),
		"text in a page":  whole[:2*4096] + strings.Repeat("text", (len(whole)-2*4096)/4),
		"metas are zeros": strings.Repeat("\x00", 2*4096) + whole[2*4096:],
	} {
		path := filepath.Join(t.TempDir(), "file.db")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		checkRefused(t, name, path)
		if fileBytes(t, path) != content {
			t.Errorf("%s: the file was changed", name)
		}
		if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
			t.Errorf("%s: beside the file are %v, %v", name, files, err)
		}
	}
	checkRefused(t, "a folder", t.TempDir())
	checkRefused(t, "no folder", filepath.Join(t.TempDir(), "missing", "x.db"))
}

func checkRefused(t *testing.T, name, path string) {
	t.Helper()
	status, stderr := run(t, t.TempDir(), nil, "--listen", "127.0.0.1:0", "--time-every", "0", "--db", path)
	if status != 1 || !strings.Contains(stderr, path) || strings.Count(stderr, "\n") != 1 {
		t.Errorf("%s: status %d, %.2000q; want 1 and a line that names %s", name, status, stderr, path)
	}
}

// otherBolt is the content of another program's bbolt file.
func otherBolt(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "other.db")
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("recipes"))
		if err != nil {
			return err
		}
		return b.Put([]byte("soup"), []byte("water"))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return fileBytes(t, path)
}

func TestExpiredEventsAreNotServed(t *testing.T) {
	t.Parallel()
	const age = time.Second
	s := start(t, "--retain-age", age.String())
	before := time.Now()
	s.mustPublish("brief", 3, "one", "two", "three")
	expired := time.Now().Add(age)
	a := s.do("GET", "/sse/brief?from=earliest&limit=3", "")
	if young := time.Since(before) < age; young && !strings.HasSuffix(a.body, "id: 3\ndata: three\n\n") {
		t.Errorf("while they are young: %q", a.body)
	}
	time.Sleep(time.Until(expired))
	f := &follower{client: s.http, url: s.url + "/sse/brief", began: true, after: 1}
	sub, err := f.subscribe(s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.drop()
	for _, want := range []struct{ typ, data string }{
		{"gap", `{"reason":"evicted","lastEventId":"1","first":4,"last":3,"missed":2}`},
		{"position", fmt.Sprintf(`{"log":%q,"first":4,"last":3}`, s.logID())},
	} {
		m, err := sub.Next()
		if err := cmp.Or(err, f.take(m)); err != nil || m.Type != want.typ || m.Data != want.data {
			t.Fatalf("after they expired: %+v, %v; want %s", m, err, want)
		}
	}
	if first, last := s.bounds("brief"); first != 4 || last != 3 {
		t.Errorf("first %d, last %d; want 4 and 3", first, last)
	}
	s.mustPublish("brief", 4, "four")
	expired = time.Now().Add(age)
	if err := f.read(sub, f.upTo(4)); err != nil {
		t.Errorf("the next event: %v", err)
	}
	time.Sleep(time.Until(expired))
	s.kill()
	s.start()
	if first, last := s.bounds("brief"); first != 5 || last != 4 {
		t.Errorf("after a restart first is %d, last %d; want 5 and 4", first, last)
	}
	s.mustPublish("brief", 5, "five")
	if err := f.follow(s.ctx, f.upTo(5)); err != nil || f.gaps != 1 {
		t.Errorf("after a restart: %d gaps, %v", f.gaps, err)
	}
}

func TestSubscribingWritesNothing(t *testing.T) {
	t.Parallel()
	s := start(t)
	before := fileBytes(t, s.db)
	position := fmt.Sprintf(`{"log":%q,"first":1,"last":0}`, s.logID())
	var subs []*subscription
	for _, test := range []struct{ id, gap string }{
		{"", ""},
		{"0", ""},
		{"7", `{"reason":"ahead","lastEventId":"7","first":1,"last":0,"missed":null}`},
	} {
		sub, err := subscribe(s.ctx, s.http, s.url+"/sse/never/written", test.id)
		if err != nil {
			t.Fatal(err)
		}
		defer sub.drop()
		subs = append(subs, sub)
		m, err := sub.Next()
		if test.gap != "" {
			if err != nil || m.Type != "gap" || m.Data != test.gap {
				t.Errorf("Last-Event-ID %q begins with %+v, %v", test.id, m, err)
			}
			m, err = sub.Next()
		}
		if err != nil || m.Type != "position" || m.ID != "0" || m.Data != position {
			t.Errorf("Last-Event-ID %q: position %+v, %v", test.id, m, err)
		}
	}
	if first, last := s.bounds("never/written"); first != 1 || last != 0 {
		t.Errorf("first %d, last %d", first, last)
	}
	if fileBytes(t, s.db) != before {
		t.Error("subscribing changed the file")
	}
	s.mustPublish("never/written", 1, "now")
	for _, sub := range subs {
		if m, err := sub.Next(); err != nil || m.Type != "message" || m.ID != "1" || m.Data != "now" {
			t.Errorf("the first event: %+v, %v", m, err)
		}
	}
}

func TestForeignPagesCannotPublishOrRead(t *testing.T) {
	t.Parallel()
	s := start(t)
	const evil = "evil.example"
	allowing := start(t, "--allow-host", evil)
	for _, header := range [][]string{
		{"Origin", "https://" + evil},
		{"Origin", "null"},
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
		{"Sec-Fetch-Site", "cross-site", "Origin", s.url},
		{"Host", evil},
		{"Host", evil + ":8080"},
		{"Host", evil, "Origin", "http://" + evil, "Sec-Fetch-Site", "same-origin"},
	} {
		s.checkProblem(s.do("POST", "/sse/x", "stolen", header...), http.StatusForbidden)
		if header[0] == "Host" {
			s.checkProblem(s.do("GET", "/sse/x?limit=1", "", header...), http.StatusForbidden)
			if a := s.do("GET", "/", "", header...); a.status != http.StatusForbidden {
				t.Errorf("GET / with %q: %d", header, a.status)
			}
		}
	}
	if _, last := s.bounds("x"); last != 0 {
		t.Errorf("last is %d: something was stored", last)
	}
	for i, header := range [][]string{
		{"Origin", s.url, "Sec-Fetch-Site", "same-origin"},
		{"Sec-Fetch-Site", "none"},
		{"Host", "localhost:1"},
	} {
		if a := s.do("POST", "/sse/x", "own", header...); a.status != http.StatusCreated {
			t.Errorf("POST %d with %q: %d %q", i, header, a.status, a.body)
		}
	}
	a := s.do("GET", "/sse/x?from=earliest&limit=1", "", "Origin", "https://"+evil)
	if allow := a.header.Get("Access-Control-Allow-Origin"); allow != "" {
		t.Errorf("another origin may read: %q", allow)
	}
	if a := allowing.do("POST", "/sse/x", "allowed", "Host", evil); a.status != http.StatusCreated {
		t.Errorf("POST with the allowed host: %d", a.status)
	}
	if a := allowing.do("GET", "/sse/x?from=earliest&limit=1", "", "Host", evil+":8080"); a.status != http.StatusOK {
		t.Errorf("GET with the allowed host: %d", a.status)
	}
	allowing.checkProblem(allowing.do("GET", "/sse/x", "", "Host", "worse.example"), http.StatusForbidden)
}

func TestBadInputIsRefusedAndNothingStored(t *testing.T) {
	t.Parallel()
	s := start(t, "--time-every", "1h")
	s.mustPublish("x", 1, "good")
	type input struct {
		status         int
		method, target string
		body           string
		header         []string
	}
	inputs := []input{
		{403, "POST", "time", "mine", nil},
		{413, "POST", "x", strings.Repeat("x", 1<<20+1), nil},
		{415, "POST", "x", "--b--", []string{"Content-Type", "multipart/form-data; boundary=b"}},
		{415, "POST", "x", "zipped", []string{"Content-Encoding", "gzip"}},
		{400, "POST", "x", "\xff", nil},
		{400, "POST", "x", "half a \xe2\x82", nil},
		{405, "PUT", "x", "put", nil},
		{405, "PATCH", "x", "patch", nil},
	}
	for _, typ := range []string{"position", "gap", "end", "a%0Ab", "a%0Db", "a%00b", "%FF", strings.Repeat("t", 256)} {
		inputs = append(inputs, input{400, "POST", "x?event=" + typ, "data", nil})
	}
	for _, name := range []string{"", "/", "/x", "x/", "x//y", ".", "..", "x/.", "x/../y", "x/./y", "%2e%2e", "a%62", "a%2Fb", "a%20b", "a%00", "ä", "a:b", "a@b", "a*b", strings.Repeat("n", 256)} {
		inputs = append(inputs, input{400, "GET", name, "", nil}, input{400, "POST", name, "data", nil})
	}
	for _, query := range []string{
		"lastEventId=x", "lastEventId=-1", "lastEventId=18446744073709551616", "lastEventId=000000000000000000001",
		"from=yesterday", "from=-0", "from=-x", "from=10", "from=2026-13-01T00:00:00Z",
		"limit=0", "limit=-1", "limit=x", "limit=1.5", "limit=18446744073709551616", "from=%zz",
	} {
		inputs = append(inputs, input{400, "GET", "x?" + query, "", nil})
	}
	for _, in := range inputs {
		a := s.do(in.method, "/sse/"+in.target, in.body, in.header...)
		s.checkProblem(a, in.status)
		allow := strings.Split(a.header.Get("Allow"), ", ")
		if in.status == 405 && !(slices.Contains(allow, "GET") && slices.Contains(allow, "HEAD") && slices.Contains(allow, "POST")) {
			t.Errorf("%s: Allow is %q", in.method, allow)
		}
		if _, last := s.bounds("x"); last != 1 {
			t.Errorf("last is %d: something was stored", last)
		}
		if t.Failed() {
			t.Fatalf("%s /sse/%.100s %.20q %q", in.method, in.target, in.body, in.header)
		}
	}
	for _, path := range []string{"/", "/healthz", "/readyz"} {
		if a := s.do("PUT", path, ""); a.status != 405 || !strings.Contains(a.header.Get("Allow"), "GET") {
			t.Errorf("PUT %s: %d, Allow %q", path, a.status, a.header.Get("Allow"))
		}
	}
	if _, last := s.bounds("time"); last != 0 {
		t.Error("something was stored in the stream time")
	}
	s.mustPublish("x", 2, "good again")
}

func TestEventLargerThanWhatIsRetainedIsRefused(t *testing.T) {
	t.Parallel()
	s := start(t, "--retain-bytes", "1KiB")
	s.mustPublish("x", 1, strings.Repeat("x", 1024-len("message")))
	s.checkProblem(s.do("POST", "/sse/x", strings.Repeat("x", 1025-len("message"))), http.StatusRequestEntityTooLarge)
	if first, last := s.bounds("x"); first != 1 || last != 1 {
		t.Errorf("first %d, last %d", first, last)
	}
}

func TestHalfSentRequestsHoldNobodyUp(t *testing.T) {
	t.Parallel()
	s := start(t)
	for range 20 {
		s.send(s.dial(), "GET /sse/x HTTP/1.1\r\nHost: loc")
		s.send(s.dial(), "POST /sse/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
		s.send(s.dial(), "POST /sse/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
		s.dial() // sends nothing at all
	}
	// Half a body that is known to stay half is no event.
	halved := s.dial()
	s.send(halved, "POST /sse/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
	if err := halved.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(halved); err != nil || strings.HasPrefix(string(answer), "HTTP/1.1 2") {
		t.Errorf("half an event: %v, %q", err, answer)
	}
	f := &follower{client: s.http, url: s.url + "/sse/x"}
	sub, err := f.subscribe(s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.drop()
	for id := range uint64(10) {
		s.mustPublish("x", id+1, "whole")
		if err := f.read(sub, f.upTo(id+1)); err != nil {
			t.Fatal(err)
		}
	}
	s.stop()
	s.start()
	if _, last := s.bounds("x"); last != 10 {
		t.Errorf("last is %d, want 10: half an event was stored", last)
	}
}
