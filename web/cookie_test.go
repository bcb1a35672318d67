package web_test

import (
	"fmt"
	"testing"

	"lastevent/web"
)

// A cookie is as good as a header, but a header comes first.
func TestCookie(t *testing.T) {
	s := guarded(t, func(a *web.Access) { a.Cookie = "session" })
	for _, test := range []struct {
		cookies, header string
		status          int
	}{
		{"session=reader", "", 200},
		{"a=b; session=reader; c=d", "", 200},
		{`session="reader"`, "", 200},
		{"session=wrong", "", 401},
		{"session=", "", 401},
		{"Session=reader", "", 401},
		{"other=reader", "", 401},
		{"session=wrong", "Bearer reader", 200},
		{"session=reader", "Bearer wrong", 401},
		{"session=reader", "Basic wrong", 200}, // a proxy's
		{"session=reader; session=wrong", "", 400},
		{"session=reader; session=reader", "", 400},
		{"session=reader; session=wrong", "Bearer reader", 200},
	} {
		header := []string{"Cookie", test.cookies}
		if test.header != "" {
			header = append(header, "Authorization", test.header)
		}
		if got := s.do("HEAD", "/sse/news", "", header...).status; got != test.status {
			t.Errorf("%q and %q: %d; want %d", test.cookies, test.header, got, test.status)
		}
	}
	s.get("/sse/news").want(401, "the cookie session")
	guarded(t, nil).get("/sse/news?follow=false", "Cookie", "session=reader").want(401)
}

// With a cookie, publishing is for pages of the server's own origin and those that it
// trusts; who does not tell is none.
func TestCookieAcrossSites(t *testing.T) {
	s := guarded(t, func(a *web.Access) { a.Cookie, a.Origins = "session", []string{"https://app.example"} })
	for i, test := range []struct {
		origin, site string
		cookie       int // the status with one; 0: it is done
		header       int
	}{
		{"", "", 403, 0},
		{"", "same-origin", 0, 0},
		{"", "none", 0, 0},
		{"", "same-site", 403, 403},
		{"", "cross-site", 403, 403},
		{s.url, "", 0, 0},
		{s.url, "same-origin", 0, 0},
		{"https://app.example", "cross-site", 0, 0},
		{"https://app.example", "same-site", 0, 0},
		{"https://app.example", "", 0, 0},
		{"http://app.example", "", 403, 403},
		{"https://app.example:8443", "cross-site", 403, 403},
		{"https://evil.example", "cross-site", 403, 403},
		{"https://evil.example", "", 403, 403},
		{"null", "", 403, 403},
		{"null", "cross-site", 403, 403},
	} {
		from := []string{}
		if test.origin != "" {
			from = append(from, "Origin", test.origin)
		}
		if test.site != "" {
			from = append(from, "Sec-Fetch-Site", test.site)
		}
		for _, request := range writings {
			for header, want := range map[[2]string]int{{"Cookie", "session=all"}: test.cookie, {"Authorization", "Bearer all"}: test.header} {
				got := s.as("", on(request, fmt.Sprint(header[0], i)), "", append(from, header[:]...)...).status
				if want == 0 && got >= 300 || want > 0 && got != want {
					t.Errorf("%s with %s from %q, %q: %d; want %d", request, header, test.origin, test.site, got, want)
				}
			}
		}
		// What does not change anything is for CORS to judge.
		s.as("", "HEAD /sse/x", "", append(from, "Cookie", "session=all")...).want(200)
	}
}
