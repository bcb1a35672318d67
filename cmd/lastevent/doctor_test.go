//go:build unix

package main_test

import (
	"compress/gzip"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lastevent/cmd/lastevent/servetest"
)

// TestDoctorFinds puts something harmful between a server and doctor, which has to find
// that, and nothing else.
func TestDoctorFinds(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		harm func(*httputil.ReverseProxy) http.Handler
		want string // the checks that find a problem
	}{
		"nothing":             {none, ""},
		"a buffer":            {body(buffered), "events"},
		"a slow buffer":       {body(slowed), "events"},
		"a compressor":        {compressed(true), ""},
		"a compressor's wait": {compressed(false), "compression"},
		"no Last-Event-ID":    {withoutHeader("Last-Event-ID"), "resume"},
		"a clean end":         {body(endingClean), "cut"},
		"an idle cut":         {body(idleUntil(func() { panic(http.ErrAbortHandler) })), "idle"},
		"an idle end":         {body(idleUntil(func() {})), "idle"},
		"a short life":        {body(shortLived), "events"},
		"no publishes":        {withoutPosts, "publish"},
		"another server":      {func(*httputil.ReverseProxy) http.Handler { return http.NotFoundHandler() }, "server"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := servetest.Start(t, "--time-every", "15ms", "--heartbeat", "1m")
			target, err := url.Parse(s.URL)
			if err != nil {
				t.Fatal(err)
			}
			reverse := httputil.NewSingleHostReverseProxy(target)
			reverse.FlushInterval = -1
			reverse.ErrorLog = log.New(io.Discard, "", 0)
			proxy := httptest.NewUnstartedServer(test.harm(reverse))
			proxy.Config.ErrorLog = reverse.ErrorLog
			proxy.Start()
			t.Cleanup(proxy.Close)
			t.Cleanup(proxy.CloseClientConnections)
			idle := "0s"
			if test.want == "idle" {
				idle = "4s"
			}
			cmd := exec.CommandContext(s.Ctx, servetest.Program(t), "doctor", "--idle", idle, proxy.URL)
			out, err := cmd.Output()
			found := problems(string(out))
			if healthy := err == nil; found != test.want || healthy != (test.want == "") {
				t.Errorf("found %q, want %q; %v\n%s", found, test.want, err, out)
			}
		})
	}
}

// problems returns the checks that found one.
func problems(out string) string {
	found := map[string]bool{}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); f[0] == "problem" {
			found[f[1]] = true
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(found)), " ")
}

// A harm is what a proxy does to the body of an event stream.
type harm func(io.ReadCloser) io.Reader

func none(p *httputil.ReverseProxy) http.Handler { return p }

func body(h harm) func(*httputil.ReverseProxy) http.Handler {
	return func(p *httputil.ReverseProxy) http.Handler {
		p.ModifyResponse = func(res *http.Response) error {
			if res.Header.Get("Content-Type") == "text/event-stream" {
				res.Body = struct {
					io.Reader
					io.Closer
				}{h(res.Body), res.Body}
			}
			return nil
		}
		return p
	}
}

func compressed(flushes bool) func(*httputil.ReverseProxy) http.Handler {
	return func(p *httputil.ReverseProxy) http.Handler {
		p.ModifyResponse = func(res *http.Response) error {
			if res.Header.Get("Content-Type") == "text/event-stream" && res.Request.Header.Get("Accept-Encoding") == "gzip" {
				res.Header.Set("Content-Encoding", "gzip")
				res.Body = gzipped(res.Body, flushes)
			}
			return nil
		}
		return p
	}
}

func gzipped(body io.ReadCloser, flushes bool) io.ReadCloser {
	out, in := io.Pipe()
	go func() {
		z := gzip.NewWriter(in)
		for b := make([]byte, 4096); ; {
			n, err := body.Read(b)
			if err != nil {
				in.CloseWithError(err)
				return
			}
			_, _ = z.Write(b[:n]) // an error is the client's leaving
			if flushes {
				_ = z.Flush()
			}
		}
	}()
	return struct {
		io.Reader
		io.Closer
	}{out, body}
}

// buffered gives all at the end.
func buffered(body io.ReadCloser) io.Reader {
	var all io.Reader
	return readFunc(func(p []byte) (int, error) {
		if all == nil {
			b, err := io.ReadAll(body)
			if err != nil {
				return 0, err
			}
			all = strings.NewReader(string(b))
		}
		return all.Read(p)
	})
}

// slowed gives all late.
func slowed(body io.ReadCloser) io.Reader {
	return readFunc(func(p []byte) (int, error) {
		n, err := body.Read(p)
		time.Sleep(600 * time.Millisecond)
		return n, err
	})
}

// endingClean makes ends of cuts.
func endingClean(body io.ReadCloser) io.Reader {
	return readFunc(func(p []byte) (int, error) {
		n, err := body.Read(p)
		if err != nil {
			err = io.EOF
		}
		return n, err
	})
}

// idleUntil ends a body that brought nothing for 2 s.
func idleUntil(end func()) harm {
	return func(body io.ReadCloser) io.Reader {
		var idle atomic.Bool
		timer := time.AfterFunc(2*time.Second, func() {
			idle.Store(true)
			body.Close()
		})
		return readFunc(func(p []byte) (int, error) {
			n, err := body.Read(p)
			timer.Reset(2 * time.Second)
			if idle.Load() {
				end()
				return 0, io.EOF
			}
			return n, err
		})
	}
}

// shortLived cuts a body after a second, whatever it brings.
func shortLived(body io.ReadCloser) io.Reader {
	time.AfterFunc(time.Second, func() { body.Close() })
	return body
}

func withoutHeader(name string) func(*httputil.ReverseProxy) http.Handler {
	return func(p *httputil.ReverseProxy) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del(name)
			p.ServeHTTP(w, r)
		})
	}
}

func withoutPosts(p *httputil.ReverseProxy) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		p.ServeHTTP(w, r)
	})
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }
