package web_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"lastevent/web"
	"lastevent/web/access"
)

// tokenLives is for how long the token short is valid.
const tokenLives = time.Minute

// withShortToken runs a test with a host that has the events 1 to 3 in the streams x
// and y, and takes the tokens short and long. All may subscribe to the stream open.
func withShortToken(t *testing.T, test func(*testing.T, *host)) {
	config := func(c *web.Config) {
		short := access.Grants{Subscribe: access.All.Subscribe, Until: time.Now().Add(tokenLives)}
		c.Access.Verifier = bearers{"short": short, "long": access.All}
		c.Access.Anonymous = access.Grants{Publish: access.All.Publish, Subscribe: access.Patterns{"open"}}
	}
	inBubble(t, setup{config: config}, func(t *testing.T, s *host) {
		for _, name := range []string{"x", "y", "open"} {
			s.publish(t, name, "1", "2", "3")
		}
		test(t, s)
	})
}

// A subscription lasts no longer than its token, wherever it is in its stream. It is cut,
// so that the client comes back and learns why.
func TestTokenEndCuts(t *testing.T) {
	for name, request := range map[string]string{
		"live":                "GET /sse/x",
		"live, by HTTP/1.0":   "GET /sse/x HTTP/1.0",
		"several streams":     "GET /sse?stream=open&stream=x",
		"waiting for a limit": "GET /sse/x?limit=5",
		"of no event":         "GET /sse/never",
	} {
		t.Run(name, func(t *testing.T) {
			withShortToken(t, func(t *testing.T, s *host) {
				start := time.Now()
				w := s.send(t, request, bearer("short"))
				if r := w.response(t); r.StatusCode != 200 {
					t.Fatal(r.Status)
				}
				go func() { _, _ = io.Copy(io.Discard, w.r) }()
				if at := (<-s.closed).Sub(start); at != tokenLives {
					t.Errorf("cut after %v", at)
				}
				if r := s.send(t, request, bearer("short")).response(t); r.StatusCode != 401 {
					t.Errorf("the next time: %s", r.Status)
				}
			})
		})
	}
}

func TestTokenEndIsACut(t *testing.T) {
	withShortToken(t, func(t *testing.T, s *host) {
		sub := s.subscribe(t, "/sse/x", bearer("short"))
		for sub.position(t); ; {
			if _, err := sub.Next(); err != nil {
				if !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("%v; want a cut", err)
				}
				return
			}
		}
	})
}

// A client that does not take its events is cut as well.
func TestTokenEndCutsAReplay(t *testing.T) {
	withShortToken(t, func(t *testing.T, s *host) {
		start := time.Now()
		time.Sleep(tokenLives - 10*time.Second) // or it would be cut for what it does not take
		s.send(t, "GET /sse/x?from=earliest", bearer("short")).response(t)
		if at := (<-s.closed).Sub(start); at != tokenLives {
			t.Errorf("cut after %v", at)
		}
	})
}

// Those with a longer token, or who need none, stay.
func TestTokenEndLeavesOthers(t *testing.T) {
	withShortToken(t, func(t *testing.T, s *host) {
		var all sync.WaitGroup
		for _, sub := range []*subscription{
			s.subscribe(t, "/sse/x", bearer("long")),
			s.subscribe(t, "/sse/open"),
			s.subscribe(t, "/sse/open", bearer("short")),
		} {
			all.Go(func() {
				for _, want := range []string{"position", "message"} {
					if m, err := sub.Next(); err != nil || m.Type != want {
						t.Errorf("%+v, %v; want %s", m, err, want)
					}
				}
			})
		}
		s.subscribe(t, "/sse/x", bearer("short")).position(t)
		time.Sleep(2 * tokenLives)
		for _, name := range []string{"x", "open"} {
			s.publish(t, name, "after")
		}
		all.Wait()
	})
}

// What ends by itself before needs no deadline, and leaves none behind.
func TestTokenEndOfTheFinished(t *testing.T) {
	withShortToken(t, func(t *testing.T, s *host) {
		for _, target := range []string{"/sse/x?from=earliest&limit=1", "/sse/x?follow=false"} {
			sub := s.subscribe(t, target, bearer("short"))
			if body, err := io.ReadAll(sub.head.Body); err != nil || len(body) == 0 {
				t.Errorf("%s: %q, %v", target, body, err)
			}
		}
		time.Sleep(2 * tokenLives)
	})
}

func TestTokenEndOverHTTP2(t *testing.T) {
	withShortToken(t, func(t *testing.T, s *host) {
		transport := &http.Transport{
			DialContext: func(context.Context, string, string) (net.Conn, error) { return s.dial(), nil },
			Protocols:   new(http.Protocols),
		}
		transport.Protocols.SetUnencryptedHTTP2(true)
		defer transport.CloseIdleConnections()
		get := func() *http.Response {
			r, err := http.NewRequestWithContext(t.Context(), "GET", "http://localhost/sse/x", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer short")
			res, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			return res
		}
		start := time.Now()
		res := get()
		if res.ProtoMajor != 2 || res.StatusCode != 200 {
			t.Fatal(res.Proto, res.Status)
		}
		if _, err := io.ReadAll(res.Body); err == nil {
			t.Error("a cut looks complete")
		}
		if at := time.Since(start); at != tokenLives {
			t.Errorf("cut after %v", at)
		}
		res = get()
		if res.Body.Close(); res.StatusCode != 401 {
			t.Errorf("the next time: %s", res.Status)
		}
	})
}
