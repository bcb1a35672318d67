package web_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"lastevent/stream"
	"lastevent/web"
)

// from has a request answered that came in at an address of the server's.
func from(h http.Handler, local, method, target string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.Host = "localhost:8080"
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		if name == "Host" {
			r.Host = value
		}
		r.Header.Set(name, value)
	}
	addr := &net.TCPAddr{IP: net.ParseIP(local), Port: 8080}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, addr)))
	return w
}

// overHTTP10 is from, as by a proxy that says nothing of itself, like nginx unless told to.
func overHTTP10(h http.Handler, path string) *httptest.ResponseRecorder {
	return from(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Proto, r.ProtoMinor = "HTTP/1.0", 0
		h.ServeHTTP(w, r)
	}), "127.0.0.1", "GET", path)
}

// Where clients need tokens, those who run the server have an address of their own.
func TestNoAdminWithoutATokenWhereOthersNeedOne(t *testing.T) {
	s := newHost(t, setup{config: func(c *web.Config) { c.Access.Verifier = some }})
	isProblem(t, from(s, "127.0.0.1", "GET", "/metrics"), 403)
}

// On the address of the streams, only callers on the machine read metrics and profiles.
func TestMetricsAreForCallersOnTheMachine(t *testing.T) {
	s := newHost(t, setup{config: func(c *web.Config) {
		c.AllowHosts = []string{"events.example.com"}
		c.Inside.Pprof = true
	}})
	for _, path := range []string{"/metrics", "/debug/pprof/", "/debug/pprof/cmdline"} {
		for _, local := range []string{"127.0.0.1", "::1"} {
			if w := from(s, local, "GET", path); w.Code != 200 {
				t.Errorf("%s at %s: %d", path, local, w.Code)
			}
		}
		for name, w := range map[string]*httptest.ResponseRecorder{
			"a public address":     from(s, "192.0.2.1", "GET", path),
			"no address":           s.do(t, "GET", path, ""),
			"a proxy's site":       from(s, "127.0.0.1", "GET", path, "Host: events.example.com"),
			"a name that resolves": from(s, "127.0.0.1", "GET", path, "Host: evil.example"),
			"X-Forwarded-For":      from(s, "127.0.0.1", "GET", path, "X-Forwarded-For: 192.0.2.2"),
			"Forwarded":            from(s, "127.0.0.1", "GET", path, "Forwarded: for=192.0.2.2"),
			"HTTP/1.0":             overHTTP10(s, path),
			"Via":                  from(s, "127.0.0.1", "GET", path, "Via: 1.1 proxy"),
		} {
			if detail := isProblem(t, w, 403); strings.Contains(w.Body.String(), "go_") {
				t.Errorf("%s by %s: %s", path, name, detail)
			}
		}
	}
}

// With an address of their own, they are at no other.
func TestAdminApart(t *testing.T) {
	s := newHost(t, setup{config: func(c *web.Config) { c.Inside.Apart, c.Inside.Pprof = true, true }})
	s.publish(t, "x", "1")
	for _, path := range []string{"/metrics", "/debug/pprof/"} {
		isProblem(t, from(s, "127.0.0.1", "GET", path), 404)
	}
	admin := s.Admin()
	for path, content := range map[string]string{
		"/metrics":      "lastevent_appended_events_total 1\n",
		"/healthz":      "ok\n",
		"/readyz":       "ready\n",
		"/debug/pprof/": "goroutine",
		"/sse":          `"name":"x"`,
	} {
		if w := from(admin, "192.0.2.1", "GET", path); w.Code != 200 || !strings.Contains(w.Body.String(), content) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	for _, path := range []string{"/", "/sse/x", "/demo", "/metrics/x"} {
		isProblem(t, from(admin, "192.0.2.1", "GET", path), 404)
	}
	for _, path := range []string{"/metrics", "/sse", "/healthz", "/readyz"} {
		isProblem(t, from(admin, "192.0.2.1", "POST", path), 405)
	}
	isProblem(t, from(admin, "127.0.0.1", "GET", "/metrics", "Host: evil.example"), 403)
	var list []struct{ Name string }
	if err := json.Unmarshal(from(admin, "192.0.2.1", "GET", "/sse").Body.Bytes(), &list); err != nil || len(list) != 1 {
		t.Errorf("the list: %v, %v", list, err)
	}
	if err := s.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	isProblem(t, from(admin, "192.0.2.1", "GET", "/readyz"), 503)
	for _, path := range []string{"/metrics", "/healthz", "/sse"} {
		if w := from(admin, "192.0.2.1", "GET", path); w.Code != 200 {
			t.Errorf("%s while draining: %d", path, w.Code)
		}
	}
}

func TestNoPprofUnlessAsked(t *testing.T) {
	s := newHost(t, setup{})
	isProblem(t, from(s, "127.0.0.1", "GET", "/debug/pprof/"), 404)
	isProblem(t, from(s.Admin(), "127.0.0.1", "GET", "/debug/pprof/"), 404)
}

// Requests count when they get a status, those that last as well.
func TestMetricsOfRequests(t *testing.T) {
	s := overTCP(t, setup{config: withDemo, log: func(l stream.Log) stream.Log { return failingLog{l} }})
	s.publish(t, "broken", "1")
	s.readUntilCut(t, "/sse/broken?follow=false")
	s.subscribe(t, "/sse/x").position(t)
	s.subscribe(t, "/demo/sse?client=0123456789abcdef").position(t)
	s.do(t, "POST", "/demo/cut?client=0123456789abcdef&for=3s", "")
	s.refused(t, "/demo/sse?client=0123456789abcdef")
	s.do(t, "HEAD", "/sse/x", "")
	s.do(t, "GET", "/nothing", "")
	s.do(t, "BREW", "/sse/x", "")
	until(t, "all are counted", func() bool { return s.scrape(t)[`http_requests_total{method="GET",status="none"}`] == 1 })
	s.wantMetrics(t, []string{"http_requests_total"}, map[string]float64{
		`http_requests_total{method="GET",status="2xx"}`:   3,
		`http_requests_total{method="GET",status="none"}`:  1,
		`http_requests_total{method="GET",status="4xx"}`:   1,
		`http_requests_total{method="POST",status="2xx"}`:  2,
		`http_requests_total{method="HEAD",status="2xx"}`:  1,
		`http_requests_total{method="other",status="4xx"}`: 1,
	})
}

// Counting does not keep net/http from giving up a connection whose body is too large.
func TestConnectionAfterTooLargeABody(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, s *host) {
		w := s.send(t, "POST /sse/x", "Content-Length: 2000")
		if _, err := io.WriteString(w, strings.Repeat("x", 2000)); err != nil {
			t.Fatal(err)
		}
		if r := w.response(t); r.StatusCode != 413 || !r.Close {
			t.Errorf("%s, and the connection's end is announced: %t", r.Status, r.Close)
		}
		time.Sleep(time.Second) // for net/http to be done with it
	})
}
