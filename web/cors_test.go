package web_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"lastevent/store"
	"lastevent/stream"
	"lastevent/web"
)

const app = "https://app.example"

// wantCORS checks what an answer allows to pages of the origin.
func (a *answer) wantCORS(origin, credentials string) {
	a.t.Helper()
	if got := a.header.Get("Access-Control-Allow-Origin"); got != origin {
		a.t.Errorf("for origin %q; want %q", got, origin)
	}
	if got := a.header.Get("Access-Control-Allow-Credentials"); got != credentials {
		a.t.Errorf("with credentials %q; want %q", got, credentials)
	}
	exposed := a.header.Get("Access-Control-Expose-Headers")
	for _, name := range []string{"Stream-First-Id", "Stream-Last-Id", "Stream-Log", "Stream-Closed", "Link", "Etag", "Idempotency-Replayed", "Retry-After"} {
		if got := slices.Contains(strings.Split(exposed, ", "), name); got != (origin != "") {
			a.t.Errorf("exposed are %q", exposed)
			break
		}
	}
	if vary := strings.Join(a.header.Values("Vary"), ", "); !strings.Contains(vary, "Origin") {
		a.t.Errorf("Vary: %s", vary)
	}
}

// Pages of an allowed origin can do all and read each answer, also those that refuse.
// Others can do neither.
func TestCORS(t *testing.T) {
	s := guarded(t, func(a *web.Access) { a.Origins, a.Cookie = []string{"http://localhost:3000", app}, "session" })
	for _, proto := range []string{app, "http://localhost:3000"} {
		s.as("all", "POST /sse/x", "x", "Origin", proto).want(201).wantCORS(proto, "true")
	}
	for _, request := range []string{
		"GET /sse/x?from=earliest&limit=1", // on a connection that is taken over
		"GET /sse?stream=x&from=earliest&limit=1", "GET /sse/x?follow=false", "HEAD /sse/x", "GET /sse", "GET /lastevent.js", "GET /healthz", "DELETE /sse/y",
	} {
		a := s.as("all", request, "", "Origin", app, "Sec-Fetch-Site", "cross-site")
		if a.wantCORS(app, "true"); a.status >= 300 {
			t.Errorf("%s: %d %s", request, a.status, a.body)
		}
	}
	for request, status := range map[string]int{"GET /sse/x": 401, "POST /sse/x": 401, "GET /sse": 401, "GET /nothing": 404, "GET /sse/%41": 400, "PUT /sse/x": 405, "POST /sse/x?token=x": 400} {
		s.as("", request, "", "Origin", app, "Sec-Fetch-Site", "cross-site").want(status)
		if a := s.as("", request, "", "Origin", app); !strings.HasPrefix(request, "PUT") { // no page gets to send it
			a.wantCORS(app, "true")
		}
	}
	for _, origin := range []string{"https://evil.example", "http://app.example", app + ":8443", app + ".evil.example", "https://sub.app.example", "null", ""} {
		a := s.as("all", "GET /sse/x?follow=false", "", "Origin", origin)
		a.want(200).wantCORS("", "")
		if origin != "" {
			s.as("all", "POST /sse/x", "x", "Origin", origin, "Sec-Fetch-Site", "cross-site").want(403).wantCORS("", "")
		}
	}
}

func TestPreflight(t *testing.T) {
	s := guarded(t, func(a *web.Access) { a.Origins = []string{app} })
	ask := func(path, origin, method, headers string) *answer {
		return s.do("OPTIONS", path, "", "Origin", origin, "Access-Control-Request-Method", method, "Access-Control-Request-Headers", headers)
	}
	for _, path := range []string{"/sse/x", "/sse/never/seen", "/sse", "/sse?stream=x", "/demo/sse"} {
		for _, method := range []string{"GET", "HEAD", "POST", "DELETE"} {
			a := ask(path, app, method, "authorization,content-type,idempotency-key,last-event-id").want(204)
			h := a.header
			if h.Get("Access-Control-Allow-Origin") != app || h.Get("Access-Control-Allow-Methods") != method ||
				h.Get("Access-Control-Allow-Headers") != "authorization,content-type,idempotency-key,last-event-id" || a.body != "" {
				t.Errorf("%s %s: %v %q", method, path, h, a.body)
			}
		}
	}
	for _, test := range [][3]string{
		{"https://evil.example", "POST", "authorization"},
		{"null", "POST", "authorization"},
		{app, "PUT", "authorization"},
		{app, "POST", "x-forwarded-for"},
	} {
		if a := ask("/sse/x", test[0], test[1], test[2]); a.header.Get("Access-Control-Allow-Origin") != "" || a.status >= 300 {
			t.Errorf("%q: %d %v", test, a.status, a.header)
		}
	}
	// What is no preflight is a method like others.
	s.do("OPTIONS", "/sse/x", "", "Origin", app).want(405).wantCORS(app, "true")
	newSite(t, store.Options{}, nil).do("OPTIONS", "/sse/x", "", "Origin", app, "Access-Control-Request-Method", "POST").want(405)
}

// All origins are allowed without credentials.
func TestAllOrigins(t *testing.T) {
	s := guarded(t, func(a *web.Access) { a.Origins = []string{"*"} })
	for _, origin := range []string{app, "null"} {
		a := s.as("all", "POST /sse/x", "x", "Origin", origin, "Sec-Fetch-Site", "cross-site").want(201)
		if h := a.header; h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%v", h)
		}
		s.as("", "POST /sse/x", "x", "Origin", origin, "Sec-Fetch-Site", "cross-site").want(401)
	}
}

// Origins that cannot be meant are refused.
func TestWrongOrigins(t *testing.T) {
	streams := stream.NewSet(func(string) stream.Log { return nil }, nil)
	for _, access := range []web.Access{
		{Origins: []string{"*", app}},
		{Origins: []string{"*"}, Cookie: "session"},
		{Origins: []string{app + "/"}},
		{Origins: []string{"app.example"}},
		{Origins: []string{""}},
	} {
		c := usual(streams)
		c.Access = access
		if s, err := web.New(c); err == nil || s != nil || !strings.Contains(fmt.Sprint(err), "rigin") {
			t.Errorf("%+v: %v", access, err)
		}
	}
}
