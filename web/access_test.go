package web_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lastevent/store"
	"lastevent/web"
	"lastevent/web/access"
)

// bearers are tokens, as a verifier knows them, and what each may do.
type bearers map[string]access.Grants

func (b bearers) Verify(_ context.Context, token string) (access.Grants, error) {
	switch token {
	case "expired":
		return access.Grants{}, access.ErrExpired
	case "early":
		return access.Grants{}, access.ErrUnavailable
	}
	if g, ok := b[token]; ok && (g.Until.IsZero() || time.Now().Before(g.Until)) {
		return g, nil
	}
	return access.Grants{}, fmt.Errorf("%w: key 7 has not signed it", access.ErrInvalid)
}

func bearer(token string) string { return "Authorization: Bearer " + token }

// some are tokens of all kinds.
var some = bearers{
	"all":     access.All,
	"reader":  {Subscribe: access.Patterns{"rooms/**", "news"}},
	"writer":  {Publish: access.Patterns{"rooms/*"}},
	"nothing": {},
}

// guarded is a site that wants a token.
func guarded(t *testing.T, change func(*web.Access)) *site {
	t.Helper()
	return newSite(t, store.Options{}, func(c *web.Config) {
		c.Access.Verifier = some
		if change != nil {
			change(&c.Access)
		}
	})
}

// as sends a request with a token, or without if that is empty.
func (s *site) as(token, request, body string, header ...string) *answer {
	s.t.Helper()
	if token != "" {
		header = append(header, "Authorization", "Bearer "+token)
	}
	method, path, _ := strings.Cut(request, " ")
	return s.do(method, path, body, header...)
}

// readings and writings are all that can be done to the stream {}.
var (
	readings = []string{
		"GET /sse/{}?from=earliest&limit=1", "GET /sse?from=earliest&limit=1&stream={}",
		"GET /sse/{}?follow=false", "HEAD /sse/{}", "HEAD /sse?stream={}",
	}
	writings = []string{"POST /sse/{}", "POST /sse/{}?close=true", "DELETE /sse/{}"}
)

// on is a request of a stream.
func on(request, stream string) string { return strings.Replace(request, "{}", stream, 1) }

// Each can do what is granted, to what it is granted for, and nothing else.
func TestGrants(t *testing.T) {
	for _, test := range []struct {
		token       string
		anonymous   access.Grants
		stream      string
		read, write int // the status; 0: it is done
	}{
		{"", access.Grants{}, "news", 401, 401},
		{"", access.Grants{Subscribe: access.All.Subscribe}, "news", 0, 401},
		{"", access.Grants{Publish: access.All.Publish}, "news", 401, 0},
		{"", access.Grants{Subscribe: access.Patterns{"news"}}, "olds", 401, 401},
		{"all", access.Grants{}, "news", 0, 0},
		{"reader", access.Grants{}, "news", 0, 403},
		{"reader", access.Grants{}, "rooms/1/chat", 0, 403},
		{"reader", access.Grants{}, "rooms", 403, 403},
		{"writer", access.Grants{}, "rooms/1", 403, 0},
		{"writer", access.Grants{}, "rooms/1/chat", 403, 403},
		{"writer", access.Grants{Subscribe: access.All.Subscribe}, "rooms/1", 0, 0},
		{"nothing", access.Grants{}, "news", 403, 403},
		{"wrong", access.Grants{}, "news", 401, 401},
		{"expired", access.Grants{}, "news", 401, 401},
		// What anybody may, they may too.
		{"expired", access.Grants{Subscribe: access.All.Subscribe}, "news", 0, 401},
		{"nothing", access.Grants{Subscribe: access.All.Subscribe}, "news", 0, 403},
	} {
		s := guarded(t, func(a *web.Access) { a.Anonymous = test.anonymous })
		s.as("all", "POST /sse/"+test.stream, "x").want(201)
		for i, request := range append(readings, writings...) {
			want := test.read
			if i >= len(readings) {
				want = test.write
			}
			got := s.as(test.token, on(request, test.stream), "x").status
			if want == 0 && got >= 300 || want > 0 && got != want {
				t.Errorf("%s of %s with %q, and %v for all: %d; want %d", request, test.stream, test.token, test.anonymous, got, want)
			}
		}
	}
}

// Who may not learns nothing: not whether there is such a stream, nor how it is.
func TestRefusalsTellNothing(t *testing.T) {
	s := guarded(t, nil)
	for _, stream := range []string{"full", "closed"} {
		s.as("all", "POST /sse/"+stream, "x", "Idempotency-Key", "k").want(201)
	}
	s.as("all", "POST /sse/closed?close=true", "").want(201)
	for _, token := range []string{"", "wrong", "expired", "nothing"} {
		for _, request := range append(readings, writings...) {
			var answers [3]*answer
			for i, stream := range []string{"full", "closed", "never"} {
				a := s.as(token, on(request, stream), "another body", "Idempotency-Key", "k")
				a.header.Del("Date")
				a.header.Del("Content-Length")
				a.body = strings.ReplaceAll(a.body, stream, "{}")
				if a.status != 401 && a.status != 403 || a.header.Get("WWW-Authenticate") == "" {
					t.Errorf("%s with %q: %d %v", request, token, a.status, a.header)
				}
				for name := range a.header {
					if strings.HasPrefix(name, "Stream-") {
						t.Errorf("%s with %q: %s", request, token, name)
					}
				}
				answers[i] = a
			}
			for _, a := range answers[1:] {
				if a.status != answers[0].status || a.body != answers[0].body || !cmp.Equal(a.header, answers[0].header) {
					t.Errorf("%s with %q: %v, and %v", request, token, *answers[0], *a)
				}
			}
		}
	}
}

// A refusal says what is wrong, as far as that helps nobody who makes tokens up.
func TestChallenge(t *testing.T) {
	s := guarded(t, nil)
	for _, test := range []struct {
		token, challenge, detail string
		status                   int
	}{
		{"", `Bearer realm="lastevent"`, "Authorization: Bearer", 401},
		{"wrong", `Bearer realm="lastevent", error="invalid_token", error_description="the token is not valid here"`, "the token is not valid here", 401},
		{"expired", `Bearer realm="lastevent", error="invalid_token", error_description="the token has expired"`, "the token has expired", 401},
		{"reader", `Bearer realm="lastevent", error="insufficient_scope"`, "the token does not allow publishing here: news", 403},
	} {
		a := s.as(test.token, "POST /sse/news", "x").want(test.status, test.detail)
		if got := a.header.Get("WWW-Authenticate"); got != test.challenge || strings.Contains(a.body, "key 7") {
			t.Errorf("%q: %s %s", test.token, got, a.body)
		}
	}
}

// The body of who may not publish is not even asked for.
func TestRefusedBeforeTheBody(t *testing.T) {
	s := overTCP(t, setup{config: func(c *web.Config) { c.Access.Verifier = some }})
	w := s.send(t, "POST /sse/x", "Expect: 100-continue", "Content-Length: 1000000")
	if r := w.response(t); r.StatusCode != 401 {
		t.Error(r.Status)
	}
	w = s.send(t, "POST /sse/x", "Expect: 100-continue", "Content-Length: 100", "Authorization: Bearer all")
	if line, err := w.r.ReadString('\n'); err != nil || !strings.Contains(line, "100") {
		t.Errorf("the control: %q, %v", line, err)
	}
}

// Several streams can be had only by who may have each.
func TestSeveralStreams(t *testing.T) {
	s := guarded(t, func(a *web.Access) { a.Anonymous.Subscribe = access.Patterns{"open"} })
	for _, stream := range []string{"open", "news", "rooms/1"} {
		s.as("all", "POST /sse/"+stream, "x").want(201)
	}
	const request = "GET /sse?from=earliest&limit=1&stream="
	s.as("", request+"open", "").want(200)
	s.as("", request+"open&stream=news", "").want(401)
	s.as("reader", request+"open&stream=news&stream=rooms/1", "").want(200)
	s.as("reader", request+"news&stream=secret", "").want(403, "secret")
	s.as("reader", request+"secret&stream=news", "").want(403, "secret")
}

// The list is of what its reader may read.
func TestListIsFiltered(t *testing.T) {
	names := []string{"news", "open", "rooms/1", "rooms/1/chat", "secret"}
	for _, test := range []struct {
		token     string
		anonymous access.Patterns
		want      []string // nil: 401
	}{
		{"all", nil, names},
		{"reader", nil, []string{"news", "rooms/1", "rooms/1/chat"}},
		{"reader", access.Patterns{"open"}, []string{"news", "open", "rooms/1", "rooms/1/chat"}},
		{"writer", nil, []string{}},
		{"", nil, nil},
		{"expired", nil, nil},
		{"", access.Patterns{"open"}, []string{"open"}},
		{"wrong", access.Patterns{"open"}, []string{"open"}},
		{"", access.All.Subscribe, names},
	} {
		s := guarded(t, func(a *web.Access) { a.Anonymous.Subscribe = test.anonymous })
		for _, name := range names {
			s.as("all", "POST /sse/"+name, "x").want(201)
		}
		a := s.as(test.token, "GET /sse", "")
		if test.want == nil {
			a.want(401)
			continue
		}
		a.want(200)
		for _, name := range names {
			if got, want := strings.Contains(a.body, `"`+name+`"`), strings.Contains(strings.Join(test.want, " ")+" ", name+" "); got != want {
				t.Errorf("with %q and %v for all: %s is listed: %v", test.token, test.anonymous, name, got)
			}
		}
	}
}

// A token in a URL is refused, even where none is needed.
func TestTokenInURL(t *testing.T) {
	s := guarded(t, func(a *web.Access) { a.Anonymous = access.All })
	for _, name := range []string{"access_token", "token"} {
		for _, request := range append(readings, writings...) {
			request = on(request, "x")
			request += map[bool]string{true: "&", false: "?"}[strings.Contains(request, "?")] + name + "=all"
			if a := s.as("", request, "x"); a.status != 400 || !strings.HasPrefix(request, "HEAD") && !strings.Contains(a.body, "token in the URL") {
				t.Errorf("%s: %d %s", request, a.status, a.body)
			}
		}
		s.as("", "GET /sse?"+name+"=all", "").want(400, "token in the URL")
	}
}

// Who needs no token sends none: those who do are not looked at.
func TestHeader(t *testing.T) {
	s := guarded(t, nil)
	for header, status := range map[string]int{
		"Bearer reader":           200,
		"bearer reader":           200,
		"BEARER   reader ":        200,
		"Bearer":                  401,
		"Bearer ":                 401,
		"reader":                  401,
		"Basic reader":            401,
		"Bearer reader x":         401,
		"Bearer\treader":          401,
		"Basic x, Bearer reader":  401,
		"Bearer reader,Basic eHg": 401,
	} {
		if got := s.do("HEAD", "/sse/news", "", "Authorization", header).status; got != status {
			t.Errorf("%q: %d; want %d", header, got, status)
		}
	}
	over := overTCP(t, setup{config: func(c *web.Config) { c.Access.Verifier = some }})
	for _, test := range []struct {
		headers []string
		status  int
	}{
		{[]string{"Authorization: Bearer wrong", "Authorization: Bearer reader"}, 400},
		{[]string{"Authorization: Basic eHg", "Authorization: Bearer reader"}, 200},
	} {
		if r := over.send(t, "HEAD /sse/news", test.headers...).response(t); r.StatusCode != test.status {
			t.Errorf("%q: %s", test.headers, r.Status)
		}
	}
}

// Where nobody needs a token, what looks like one has no meaning.
func TestOpenServer(t *testing.T) {
	s := newSite(t, store.Options{}, nil)
	s.as("wrong", "POST /sse/x", "x", "Cookie", "session=wrong").want(201)
	s.as("", "GET /sse/x?follow=false&access_token=wrong", "").want(200)
}

// While the keys cannot be had, subscribers get no answer, as any would stop an
// EventSource; others are told.
func TestKeysUnavailable(t *testing.T) {
	s := overTCP(t, setup{config: func(c *web.Config) { c.Access.Verifier = some }})
	for _, request := range []string{"GET /sse/x", "GET /sse?stream=x&stream=y"} {
		w := s.send(t, request, "Authorization: Bearer early")
		if got, err := io.ReadAll(w.r); err != nil && len(got) > 0 || len(got) > 0 {
			t.Errorf("%s: %q, %v", request, got, err)
		}
	}
	for _, request := range []string{"GET /sse/x?follow=false", "HEAD /sse/x", "POST /sse/x", "DELETE /sse/x", "GET /sse"} {
		w := s.send(t, request, "Authorization: Bearer early")
		if r := w.response(t); r.StatusCode != 503 || r.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %s %v", request, r.Status, r.Header)
		}
	}
}

// The page is for all, but its stream is not.
func TestDemoNeedsToken(t *testing.T) {
	s := newSite(t, store.Options{}, func(c *web.Config) {
		c.Access.Verifier, c.Demo = some, "time"
	})
	for _, path := range []string{"/", "/demo", "/lastevent.js", "/healthz", "/readyz"} {
		if got := s.get(path).status; got != 200 {
			t.Errorf("%s: %d", path, got)
		}
	}
	s.get("/demo/sse?client=0123456789abcdef").want(401)
	s.get("/sse/time").want(401)
}
