package web_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lastevent/stream"
	"lastevent/web"
)

func TestConfig(t *testing.T) {
	streams := stream.NewSet(func(string) stream.Log { return nil }, nil)
	for name, change := range map[string]func(*web.Config){
		"Streams":       func(c *web.Config) { c.Streams = nil },
		"Heartbeat":     func(c *web.Config) { c.Heartbeat = time.Millisecond - 1 },
		"Retry":         func(c *web.Config) { c.Retry = time.Millisecond - 1 },
		"MaxEventBytes": func(c *web.Config) { c.MaxEventBytes = -1 },
		"MaxBatchBytes": func(c *web.Config) { c.MaxBatchBytes = c.MaxEventBytes - 1 },
	} {
		c := usual(streams)
		change(&c)
		s, err := web.New(c)
		if err == nil || s != nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := web.New(web.Config{Heartbeat: -1, Retry: -1, MaxEventBytes: -1, MaxBatchBytes: -2}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("all wrong: %s is not in %v", name, err)
		}
	}
	c := usual(streams)
	c.Heartbeat, c.Retry, c.MaxEventBytes, c.MaxBatchBytes = time.Millisecond, time.Millisecond, 1, 1
	s, err := web.New(c)
	if err == nil {
		err = s.Drain(t.Context())
	}
	if err != nil {
		t.Errorf("the least of each: %v", err)
	}
	s, err = web.New(web.Config{Streams: streams, MaxEventBytes: 32 << 20})
	if err == nil {
		err = s.Drain(t.Context())
	}
	if err != nil {
		t.Errorf("with what is left out: %v", err)
	}
}

func TestDrainedServerLeavesNothing(t *testing.T) {
	before := goleak.IgnoreCurrent()
	s, err := web.New(usual(stream.NewSet(func(string) stream.Log { return nil }, nil)))
	if err == nil {
		err = s.Drain(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, before)
}

func TestMethods(t *testing.T) {
	s := newHost(t, setup{})
	for path, allowed := range map[string][]string{
		"/sse/x":   {"DELETE", "GET", "HEAD", "POST"},
		"/sse/a/b": {"DELETE", "GET", "HEAD", "POST"},
		"/sse":     {"GET", "HEAD"},
		"/healthz": {"GET", "HEAD"},
		"/readyz":  {"GET", "HEAD"},
		"/":        {"GET", "HEAD"},
	} {
		for _, method := range []string{"PUT", "PATCH", "TRACE", "get", "SUBSCRIBE"} {
			w := s.do(t, method, path, "x")
			if w.Code != 405 {
				t.Errorf("%s %s: %d", method, path, w.Code)
			}
			got := strings.Split(w.Header().Get("Allow"), ", ")
			if slices.Sort(got); !slices.Equal(got, allowed) {
				t.Errorf("%s %s: allowed are %v, want %v", method, path, got, allowed)
			}
			if path != "/" { // the page is of another package
				isProblem(t, w, 405)
			}
		}
	}
	if last := s.last(t, "x"); last != 0 {
		t.Errorf("last is %d", last)
	}
}

func TestNotFound(t *testing.T) {
	s := newHost(t, setup{})
	for _, path := range []string{"/nothing", "/sses/x", "/healthz/x", "/index.html", "/favicon.ico"} {
		isProblem(t, s.do(t, "GET", path, ""), 404)
	}
}

func TestHealth(t *testing.T) {
	var err error
	s := newHost(t, setup{config: func(c *web.Config) { c.Ready = func() error { return err } }})
	for _, method := range []string{"GET", "HEAD"} {
		for _, path := range []string{"/healthz", "/readyz"} {
			if w := s.do(t, method, path, ""); w.Code != 200 {
				t.Errorf("%s %s: %d", method, path, w.Code)
			}
		}
	}
	err = errors.New("no space left")
	if detail := isProblem(t, s.do(t, "GET", "/readyz", ""), 503); !strings.Contains(detail, "no space left") {
		t.Errorf("the detail does not say why: %s", detail)
	}
	if w := s.do(t, "GET", "/healthz", ""); w.Code != 200 {
		t.Errorf("healthz: %d", w.Code)
	}
	err = nil
	if w := s.do(t, "GET", "/readyz", ""); w.Code != 200 {
		t.Errorf("readyz, when all is well again: %d", w.Code)
	}
}

// On a loopback address, a name that is not the machine's may be an attacker's.
func TestHosts(t *testing.T) {
	s := newHost(t, setup{config: func(c *web.Config) { c.AllowHosts = []string{"Sse.Example", "10.1.2.3"} }})
	status := func(method, path, local, host string) int {
		r := httptest.NewRequest(method, path, nil)
		r.Host = host
		addr := &net.TCPAddr{IP: net.ParseIP(local), Port: 8080}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, addr)))
		if w.Code == 403 && method != "HEAD" {
			isProblem(t, w, 403)
		}
		return w.Code
	}
	for _, host := range []string{
		"localhost", "LOCALHOST", "localhost:8080", "localhost.", "localhost.:8080",
		"x.localhost", "X.LocalHost:80", "x.localhost.",
		"127.0.0.1", "127.0.0.1:8080", "127.1.2.3",
		"[::1]", "[::1]:8080", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]:80",
		"sse.example", "SSE.EXAMPLE:443", "sse.example.", "10.1.2.3", "10.1.2.3:80",
		"", // not a browser
	} {
		for _, local := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1", "127.8.8.8"} {
			if got := status("HEAD", "/sse/x", local, host); got != 200 {
				t.Errorf("%q on %s: %d", host, local, got)
			}
		}
	}
	for _, host := range []string{
		"evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "evil-localhost", "xlocalhost", "localhost.x",
		"sub.sse.example", "sse.example.evil", "10.1.2.4", "192.168.1.1", "0.0.0.0", "0.0.0.0:8080", "128.0.0.1",
		"[::]", "[::2]", "[fe80::1]:8080", "[::ffff:192.168.1.1]", "2130706433", "127.1", "0x7f.0.0.1",
	} {
		for _, local := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1"} {
			for _, request := range [][2]string{{"HEAD", "/sse/x"}, {"POST", "/sse/x"}, {"GET", "/"}, {"GET", "/healthz"}, {"GET", "/nothing"}} {
				if got := status(request[0], request[1], local, host); got != 403 {
					t.Errorf("%v as %q on %s: %d", request, host, local, got)
				}
			}
		}
		for _, local := range []string{"192.168.1.5", "2001:db8::1"} {
			if got := status("HEAD", "/sse/x", local, host); got != 200 {
				t.Errorf("%q on %s: %d", host, local, got)
			}
		}
	}
	if last := s.last(t, "x"); last != 0 {
		t.Errorf("last is %d", last)
	}
}

// The address is that of the connection.
func TestHostOverTCP(t *testing.T) {
	s := overTCP(t, setup{})
	for host, want := range map[string]int{"localhost": 200, "evil.example": 403} {
		conn := s.dial()
		r, err := http.NewRequest("HEAD", "http://"+host+"/sse/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		client := http.Client{Transport: &http.Transport{
			DialContext:       func(context.Context, string, string) (net.Conn, error) { return conn, nil },
			DisableKeepAlives: true,
		}}
		got, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		got.Body.Close()
		if got.StatusCode != want {
			t.Errorf("%s: %s", host, got.Status)
		}
	}
}

// Answers to other sites' pages are not for these to read.
func TestHeaders(t *testing.T) {
	s := newHost(t, setup{})
	for _, request := range [][2]string{{"HEAD", "/sse/x"}, {"POST", "/sse/x"}, {"GET", "/healthz"}, {"GET", "/nothing"}, {"PUT", "/sse/x"}, {"GET", "/sse/%41"}} {
		h := s.do(t, request[0], request[1], "x").Header()
		for name, want := range map[string]string{
			"X-Content-Type-Options":       "nosniff",
			"Cross-Origin-Resource-Policy": "same-origin",
			"Access-Control-Allow-Origin":  "",
		} {
			if got := h.Get(name); got != want {
				t.Errorf("%v: %s is %q, want %q", request, name, got, want)
			}
		}
	}
}
