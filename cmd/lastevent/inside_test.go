//go:build unix

package main_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"lastevent/cmd/lastevent/servetest"
)

// get asks at the address; status 0: there was no answer.
func get(t *testing.T, addr, path string) (status int, body string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Get("http://" + addr + path)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Error(err)
	}
	return res.StatusCode, string(text)
}

// While a publish keeps the server from stopping, the admin address still tells of it.
func TestAdminWhileStopping(t *testing.T) {
	t.Parallel()
	admin := servetest.FreeAddr(t)
	s := servetest.Start(t, "--admin-listen", admin, "--pprof")
	s.MustPublish("x", 1, "1")
	for path, content := range map[string]string{
		"/metrics":            "\nlastevent_appended_events_total 1\n",
		"/readyz":             "ready\n",
		"/sse":                `"name":"x"`,
		"/debug/pprof/symbol": "num_symbols",
	} {
		if status, body := get(t, admin, path); status != 200 || !strings.Contains(body, content) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	for _, path := range []string{"/metrics", "/debug/pprof/"} {
		s.CheckProblem(s.Do("GET", path, ""), http.StatusNotFound)
	}

	conn := s.Dial()
	s.Send(conn, "POST /sse/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n")
	s.MustPublish("x", 2, "2") // by now, the other publish has begun as well
	s.Terminate()
	for {
		status, body := get(t, admin, "/readyz")
		if status == 503 {
			break
		}
		if status != 200 || s.Ctx.Err() != nil {
			t.Fatalf("readyz: %d %s", status, body)
		}
		time.Sleep(time.Millisecond)
	}
	if status, body := get(t, admin, "/metrics"); status != 200 || !strings.Contains(body, "\nlastevent_ready 0\n") {
		t.Errorf("metrics: %d, and the server is not told to be unready", status)
	}
	if status, _ := get(t, admin, "/healthz"); status != 200 {
		t.Errorf("healthz: %d", status)
	}
	s.Send(conn, "3")
	if answer, err := io.ReadAll(conn); err != nil || !strings.Contains(string(answer), "201 Created") {
		t.Errorf("the publish is answered with %q, %v", answer, err)
	}
	s.Wait()
	if c, err := net.Dial("tcp", admin); err == nil {
		c.Close()
		t.Error("the admin address outlives the server")
	}
}

// An address that is taken is an error before anything is created.
func TestAdminAddressTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	status, stderr := servetest.Run(t, dir, nil, "--listen", "127.0.0.1:0", "--admin-listen", l.Addr().String())
	if status != 1 || !strings.Contains(stderr, "--admin-listen "+l.Addr().String()) {
		t.Errorf("status %d: %s", status, stderr)
	}
}

// What a scrape says is what was done, also after a kill.
func TestScrape(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t, "--retain-events", "2", "--metrics-stream", "x")
	batch := servetest.Lines(servetest.Event{Data: "1"}, servetest.Event{Data: "2"}, servetest.Event{Data: "3"})
	s.MustPost("/sse/x", batch, "Content-Type", "application/x-ndjson")
	a := s.Do("GET", "/sse/x?limit=2", "", "Last-Event-ID", "0")
	if a.Status != 200 {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	want := func(lines ...string) {
		t.Helper()
		a := s.Do("GET", "/metrics", "")
		for _, line := range lines {
			if !strings.Contains(a.Body, "\nlastevent_"+line+"\n") {
				t.Errorf("%s is missing", line)
			}
		}
	}
	// Whether the server still has the client makes no difference.
	want("appended_events_total 3", "appends_total{outcome=\"appended\"} 1", "commit_events_count 1",
		"evicted_events_total{reason=\"number\"} 1", "delivered_events_total 2", "replayed_events_total 2",
		"gaps_total{reason=\"evicted\"} 1", "missed_events_total{reason=\"evicted\"} 1", "subscriptions_total{resumed=\"yes\"} 1",
		"stream_first{stream=\"x\"} 2", "stream_last{stream=\"x\"} 3", "streams 1", "ready 1")
	s.Kill()
	s.Restart()
	want("appended_events_total 0", "delivered_events_total 0", "stream_first{stream=\"x\"} 2", "stream_last{stream=\"x\"} 3", "streams 1", "ready 1")
}
