package web_test

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
)

// At a unix socket a cut cannot be told from an end without chunks, so nobody gets
// events without them; but for that HTTP/1.0 is served.
func TestHTTP10OverUnix(t *testing.T) {
	s := overUnix(t, setup{})
	s.publish(t, "x", "1")
	for target, want := range map[string]int{
		"/sse/x":              505,
		"/sse/x?follow=false": 505,
		"/sse?stream=x":       505,
		"/sse":                200,
		"/healthz":            200,
	} {
		w := s.send(t, "GET "+target+" HTTP/1.0")
		if got := w.response(t); got.StatusCode != want {
			t.Errorf("%s: %s, want %d", target, got.Status, want)
		}
	}
}

// What is complete ends over a unix socket, and what is cut does not.
func TestEndsAndCutsOverUnix(t *testing.T) {
	s := overUnix(t, setup{})
	s.publish(t, "x", "1", "2")
	whole := s.send(t, "GET /sse/x?from=earliest&limit=2")
	if body, err := io.ReadAll(whole.response(t).Body); err != nil || !strings.HasSuffix(string(body), "id: 2\ndata: 2\n\n") {
		t.Errorf("a complete response: %q, %v", body, err)
	}
	cut := s.send(t, "GET /sse/x?from=earliest")
	body := cut.response(t).Body
	s.untilLive(t, 1)
	if err := s.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all, err := io.ReadAll(body); err != io.ErrUnexpectedEOF {
		t.Errorf("a response that is cut: %q, %v", all, err)
	}
}

// No page gets at a unix socket by a name that it has made resolve to it, so there any
// name is good.
func TestHostOverUnix(t *testing.T) {
	for network, want := range map[string]int{"TCP": 403, "unix": 200} {
		serve := overUnix
		if network == "TCP" {
			serve = overTCP
		}
		conn := serve(t, setup{}).dial()
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: events.example.com\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if got, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || got.StatusCode != want {
			t.Errorf("%s: %+v, %v; want %d", network, got, err, want)
		}
	}
}
