//go:build unix

package main_test

import (
	"bufio"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"lastevent/cmd/lastevent/servetest"
)

// startNATS starts a NATS server with JetStream at a port of this machine.
func startNATS(t *testing.T, dir string, port int) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { stopNATS(s) })
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the NATS server is not ready")
	}
	return s
}

func stopNATS(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// newJetStream returns the URL of a JetStream stream that is not there yet.
func newJetStream(t *testing.T) string {
	return startNATS(t, t.TempDir(), server.RANDOM_PORT).ClientURL() + "/events?replicas=1"
}

// A frontsClient follows stream x at one server after the other.
type frontsClient struct {
	t *testing.T
	servetest.Follower
}

func newFrontsClient(t *testing.T) *frontsClient {
	c := &frontsClient{t: t, Follower: servetest.Follower{Seen: servetest.NewLedger(), Began: true}}
	for i, data := range servetest.Numbered(100) {
		if err := c.Seen.See(uint64(i+1), servetest.Event{Type: "message", Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// resume goes on at the server until it has the event last.
func (c *frontsClient) resume(s *servetest.Server, last uint64) {
	c.t.Helper()
	c.Client, c.URL = s.HTTP, s.URL+"/sse/x"
	if err := c.Resume(s.Ctx, last, func() bool { return false }); err != nil || c.Gaps > 0 {
		c.t.Fatalf("after %d, with %d gaps: %v; want %d", c.After, c.Gaps, err, last)
	}
}

// Two servers before one JetStream serve one numbering, and who leaves one of them
// resumes at the other, also after both were down.
func TestServeFromJetStream(t *testing.T) {
	t.Parallel()
	url := newJetStream(t)
	event := servetest.Numbered(10)
	a := servetest.Start(t, "--store", url, "--retain-events", "5")
	b := servetest.StartWith(t, []string{"LASTEVENT_DB=/nowhere/x.db"}, "--store", url, "--retain-events", "5")
	if log := a.LogID(); log == "" || log != b.LogID() {
		t.Errorf("the logs are %q and %q", log, b.LogID())
	}
	client := newFrontsClient(t)
	a.MustPublish("x", 2, event[0:2]...)
	b.MustPublish("x", 4, event[2:4]...)
	if r := b.MustPost("/sse/x", event[4], "Idempotency-Key", "k"); r.ID != 5 || r.Replayed {
		t.Errorf("published: %+v", r)
	}
	client.resume(a, 3)
	client.resume(b, 5)
	a.Kill()
	b.MustPublish("x", 6, event[5])
	b.Stop()

	a.Restart()
	b.Restart()
	if r := a.MustPost("/sse/x", event[4], "Idempotency-Key", "k"); r.ID != 5 || !r.Replayed {
		t.Errorf("published again: %+v", r)
	}
	a.MustPublish("x", 7, event[6])
	client.resume(a, 6)
	client.resume(b, 7)
	for _, s := range []*servetest.Server{a, b} {
		if first, last := s.Bounds("x"); first != 3 || last != 7 {
			t.Errorf("the stream has %d to %d; want 3 to 7", first, last)
		}
	}
}

// What a file alone has is missed in words, and the rest is as with one.
func TestInsideWithJetStream(t *testing.T) {
	t.Parallel()
	url := strings.Replace(newJetStream(t), "nats://", "nats://user:secret@", 1)
	s := servetest.Start(t, "--store", url, "--metrics-stream", "x", "--max-streams", "2")
	s.MustPublish("x", 2, "1", "2")
	s.MustPublish("y", 1, "1")
	s.CheckProblem(s.Do("POST", "/sse/z", "1"), 507)
	a := s.Do("GET", "/backup", "")
	s.CheckProblem(a, 404)
	if !strings.Contains(a.Body, "`nats stream backup events FOLDER`") {
		t.Errorf("a backup: %s", a.Body)
	}
	if a := s.Do("GET", "/readyz", ""); a.Status != 200 {
		t.Errorf("readyz: %d %s", a.Status, a.Body)
	}
	metrics := s.Do("GET", "/metrics", "").Body
	for _, line := range []string{"streams 2", "ready 1", `stream_last{stream="x"} 2`, "appended_events_total 3"} {
		if !strings.Contains(metrics, "\nlastevent_"+line+"\n") {
			t.Errorf("%s is missing in the metrics", line)
		}
	}
	if strings.Contains(metrics, "file_bytes") {
		t.Error("the metrics tell of a file")
	}
	if log := s.Log(); strings.Contains(log, "secret") || !strings.Contains(log, `"name":"events"`) || strings.Contains(log, `"db"`) {
		t.Errorf("the log: %s", log)
	}
}

// A server goes on when JetStream was away.
func TestJetStreamAway(t *testing.T) {
	t.Parallel()
	addr, port := natsAddr(t)
	dir := t.TempDir()
	nats := startNATS(t, dir, port)
	s := servetest.Start(t, "--store", "nats://"+addr+"?replicas=1")
	client := newFrontsClient(t)
	s.MustPublish("x", 1, "event 1")
	client.resume(s, 1)
	stopNATS(nats)
	ready := func(want int) {
		t.Helper()
		await(t, s, fmt.Sprint("/readyz to be ", want), func() bool { return s.Do("GET", "/readyz", "").Status == want })
	}
	ready(503)
	if a := s.Do("GET", "/healthz", ""); a.Status != 200 {
		t.Errorf("healthz: %d", a.Status)
	}
	startNATS(t, dir, port)
	ready(200)
	s.MustPublish("x", 2, "event 2")
	client.resume(s, 2)
	s.Stop()
}

// natsAddr is an address for a NATS server, also while it is down.
func natsAddr(t *testing.T) (addr string, port int) {
	addr = servetest.FreeAddr(t)
	if _, err := fmt.Sscanf(addr, "127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	return addr, port
}

// A server that starts waits for JetStream, or for a signal.
func TestJetStreamIsAwaited(t *testing.T) {
	t.Parallel()
	addr, port := natsAddr(t)
	for _, comes := range []bool{false, true} {
		cmd := exec.CommandContext(t.Context(), servetest.Program(t), "serve",
			"--listen", "127.0.0.1:0", "--time-every", "0", "--store", "nats://user:secret@"+addr+"?replicas=1")
		cmd.Env = []string{"GORACE=atexit_sleep_ms=0"}
		stderr, err := cmd.StderrPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines, log := bufio.NewScanner(stderr), ""
		until := func(text string) {
			for !strings.Contains(log, text) {
				if !lines.Scan() {
					t.Fatalf("there is no %q in %s", text, log)
				}
				log += lines.Text() + "\n"
			}
		}
		until(`"waiting for JetStream"`)
		if comes {
			startNATS(t, t.TempDir(), port)
			until(`"serving"`)
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		until(`"stopping"`)
		if err := cmd.Wait(); err != nil || strings.Contains(log, "secret") || strings.Contains(log, `"serving"`) != comes {
			t.Errorf("%v: %s", err, log)
		}
	}
}
