//go:build unix

package main_test

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lastevent/cmd/lastevent/servetest"
)

// At sockets that outlive it, a server that is stopped and started again refuses
// nobody: who connects meanwhile is answered by the next one, and all resume.
//
// 50 times: go test -tags long -run RefusesNobody ./cmd/lastevent
func TestRestartRefusesNobody(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			s := servetest.StartPassed(t, network)
			s.Patience(time.Duration(servetest.Rounds(2, 10)) * time.Minute)
			tr := startTraffic(t, s, "kept", 3, 10, 0, 50)
			k := startKnocking(t, s, 6)
			for round := range servetest.Rounds(5, 50) {
				before := k.answers.Load()
				await(t, s, "the clients to resume, and others to come", func() bool {
					return tr.reconnected(round+1) && k.answers.Load() > before+50
				})
				s.Stop()
				waiting := k.knocks.Load()
				await(t, s, "some to come while nobody serves", func() bool { return k.knocks.Load() > waiting || k.waiting() })
				s.Restart()
			}
			k.finish()
			tr.finish(t)
			t.Logf("%d others came", k.answers.Load())
		})
	}
}

// knocking are clients that come without a connection, again and again.
type knocking struct {
	stop            chan struct{}
	wg              sync.WaitGroup
	clients         int64
	knocks, answers atomic.Int64
}

func startKnocking(t *testing.T, s *servetest.Server, clients int) *knocking {
	k := &knocking{stop: make(chan struct{}), clients: int64(clients)}
	transport := s.HTTP.Transport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	others := s.Via(s.Addr, &http.Client{Transport: transport})
	others.URL = s.URL
	for i := range clients {
		k.wg.Go(func() {
			for {
				select {
				case <-k.stop:
					return
				default:
				}
				k.knocks.Add(1)
				if err := knock(others, i); err != nil {
					t.Error("who came was not served: ", err)
					return
				}
				k.answers.Add(1)
			}
		})
	}
	return k
}

// knock publishes or subscribes.
func knock(s *servetest.Server, number int) error {
	if number%2 == 0 {
		_, err := s.Publish("others", servetest.Event{Type: "message", Data: "from a client that came"})
		return err
	}
	f := &servetest.Follower{Client: s.HTTP, URL: s.URL + "/sse/kept"}
	return f.Follow(s.Ctx, func() bool { return !f.Began })
}

// waiting reports whether all wait for an answer.
func (k *knocking) waiting() bool { return k.knocks.Load() == k.answers.Load()+k.clients }

func (k *knocking) finish() {
	close(k.stop)
	k.wg.Wait()
}

// All sockets that are passed are served, and stay when the server ends.
func TestSeveralSockets(t *testing.T) {
	t.Parallel()
	s := servetest.StartPassed(t, "tcp", "unix")
	path := strings.TrimPrefix(s.Served()[1], "unix:")
	s.MustPublish("x", 1, "one")
	out, err := servetest.Curl(s.Ctx, t, "--unix-socket", path, "http://localhost/sse/x?from=earliest&limit=1").CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "id: 1\ndata: one\n\n") {
		t.Errorf("%v: %q", err, out)
	}
	s.Stop()
	if _, err := os.Stat(path); err != nil {
		t.Error("the socket is not there any more: ", err)
	}
}

// systemd is told when the server serves, and when it no longer does.
func TestNotify(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "") // a short one, as sockets need
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	s := servetest.StartWith(t, []string{"NOTIFY_SOCKET=" + path})
	told := func() string {
		t.Helper()
		if err := systemd.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		n, err := systemd.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	got := []string{told()}
	s.MustPublish("x", 1, "one")
	s.Terminate()
	got = append(got, told())
	s.Wait()
	if want := []string{"READY=1", "STOPPING=1"}; !slices.Equal(got, want) {
		t.Errorf("it was told %q, want %q", got, want)
	}
}

// What is passed and is no socket that listens is refused in words.
func TestPassedFile(t *testing.T) {
	t.Parallel()
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	status, stderr := servetest.RunPassed(t, t.TempDir(), file)
	if status != 1 || !strings.Contains(stderr, "which systemd has passed") {
		t.Errorf("status %d, %q", status, stderr)
	}
}
