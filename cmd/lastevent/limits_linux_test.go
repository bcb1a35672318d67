package main_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"lastevent/cmd/lastevent/servetest"
)

// More clients than there are places have them in turn, and none misses anything.
func TestMoreThanMaxClients(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t, "--max-clients", "50", "--max-connection-age", "1s", "--retry", "10ms")
	s.MustPublish("x", 1, "before")
	h := servetest.StartHerd(s, "/sse/x?from=earliest", 70, false)
	if _, err := h.Await(); err != nil {
		t.Fatal(err)
	}
	h.Expect(21)
	s.MustPublish("x", 21, servetest.Numbered(20)...)
	took, err := h.Await()
	if err != nil {
		t.Fatal(err)
	}
	if h.Cut.Load() == 0 {
		t.Error("none was cut")
	}
	t.Logf("all had it after %v, with %d tries", took[len(took)-1], h.Tries.Load())
	if err := h.Stop(); err != nil {
		t.Error(err)
	}
	s.AwaitLog(`"level":"warn"`)
	if n := strings.Count(s.Log(), `"level":"warn"`); n != 1 {
		t.Errorf("%d warnings", n)
	}
}

// What it costs to refuse half of the clients, for a while.
//
// 10,000 clients for 20 s: go test -tags long -run RefusedClients -v ./cmd/lastevent
func TestRefusedClientsCostLittle(t *testing.T) {
	t.Parallel()
	n := servetest.Crowd(100, 10_000)
	s := servetest.Start(t, "--max-clients", fmt.Sprint(n/2))
	s.MustPublish("x", 1, "before")
	h := servetest.StartHerd(s, "/sse/x?from=earliest", n, false)
	await(t, s, "the clients that are let in", func() bool { return h.Had() == n/2 })
	for range servetest.Rounds(1, 4) {
		cpu, tries := s.CPU(), h.Tries.Load()
		d := time.Duration(servetest.Rounds(1, 5)) * time.Second
		time.Sleep(d)
		t.Logf("%d refused clients: %d tries/s, %.1f %% of a CPU, %.0f µs each", n-n/2, (h.Tries.Load()-tries)/int64(d/time.Second),
			100*(s.CPU()-cpu).Seconds()/d.Seconds(), float64((s.CPU()-cpu).Microseconds())/float64(max(1, h.Tries.Load()-tries)))
	}
	if h.Had() != n/2 {
		t.Errorf("%d clients were let in", h.Had())
	}
	if err := h.Stop(); err != nil {
		t.Error(err)
	}
}

// Connections that do nothing do not keep out those that do something.
func TestMaxConnections(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t, "--max-clients", "10") // and so 1000 connections
	open := s.Descriptors()
	var idle []net.Conn
	for range 1100 {
		conn := s.Dial()
		idle = append(idle, conn)
		s.Send(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	sub := s.Dial()
	begun := time.Now()
	s.Send(sub, "GET /sse/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if n := s.Descriptors() - open; n > 1001 {
		t.Errorf("%d connections are open", n)
	}
	if block := s.ReadBlock(sub); !strings.Contains(block, "event: position\n") {
		t.Errorf("it gets %q", block)
	}
	t.Logf("let in after %v", time.Since(begun))
	s.AwaitLog("there are as many connections as")
	for _, conn := range idle {
		conn.Close()
	}
	s.MustPublish("x", 1, "still there")
	if block := s.ReadBlock(sub); !strings.Contains(block, "still there") {
		t.Errorf("then %q", block)
	}
	sub.Close()
	s.HTTP.CloseIdleConnections()
	await(t, s, "no connection to be left", func() bool { return s.Descriptors() <= open })
}

// Places are given back however a connection ends.
func TestConnectionsGiveTheirPlacesBack(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t, "--max-clients", "10")
	s.MustPublish("x", 1, "event")
	requests := []string{
		"GET /sse/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /sse/x?from=earliest&limit=1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /sse/x?from=earliest&limit=1 HTTP/1.0\r\n\r\n",
		"GET /sse/x?follow=false HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"nonsense\r\n\r\n",
		"",
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 400 {
				conn, err := net.Dial("tcp", s.Addr)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.WriteString(conn, requests[i%len(requests)])
				_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond))
				_, _ = conn.Read(make([]byte, 1000))
				conn.Close()
				i++
			}
		})
	}
	wg.Wait()
	s.MustPublish("x", 2, "still possible")
	if strings.Contains(s.Log(), "there are as many connections as") {
		t.Error("connections have kept their places")
	}
}

// A stop does not wait for a place for a connection: clients are cut, as ever.
func TestStopWhileAConnectionWaits(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t, "--max-clients", "10") // and so 1000 connections
	s.HTTP.CloseIdleConnections()
	sub := s.Dial()
	s.Send(sub, "GET /sse/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
	s.ReadBlock(sub)
	var others []net.Conn
	for range 1100 {
		conn := s.Dial()
		others = append(others, conn)
		s.Send(conn, "POST /sse/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n")
	}
	s.AwaitLog("there are as many connections as")
	s.Terminate()
	_ = sub.SetReadDeadline(time.Now().Add(20 * time.Second)) // a third of what a body has
	if _, err := io.ReadAll(sub); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the client is not cut")
	}
	for _, conn := range others {
		conn.Close()
	}
	s.Wait()
}

// The flags reach the server, which believes the proxy whom requests are from.
func TestLimitsBehindAProxy(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t, "--trusted-proxy", "127.0.0.0/8,::1", "--max-publishes-per-second", "1", "--max-clients-per-address", "1", "--log-level", "debug")
	from := func(addr string) []string { return []string{"X-Forwarded-For", addr} }
	refused := false
	for range 20 { // within a second some are
		a := s.Do("POST", "/sse/x", "event", from("203.0.113.7")...)
		if refused = refused || a.Status == 429; refused {
			s.CheckProblem(a, 429)
			break
		}
	}
	if !refused {
		t.Error("no publish was refused")
	}
	if a := s.Do("POST", "/sse/x", "event", from("203.0.113.8")...); a.Status != 201 {
		t.Errorf("another's publish: %d", a.Status)
	}
	subscribe := func(addr string) net.Conn {
		conn := s.Dial()
		s.Send(conn, "GET /sse/x HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: "+addr+"\r\n\r\n")
		s.ReadBlock(conn)
		return conn
	}
	subscribe("203.0.113.7")
	subscribe("203.0.113.8")
	if rest, err := io.ReadAll(subscribe("203.0.113.7")); err != nil || len(rest) > 2 {
		t.Errorf("a second client of an address: %q, %v", rest, err)
	}
	s.AwaitLog(`"stream":"x","addr":"203.0.113.7","resumed":`)
}

func TestWrongLimits(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"--max-clients", "-1"},
		{"--max-clients-per-address", "-1"},
		{"--max-publishes-per-second", "-1"},
		{"--max-publishes-per-second", "0.5"},
		{"--max-connection-age", "-1s"},
		{"--max-connection-age", "1ms"},
		{"--trusted-proxy", "localhost"},
		{"--trusted-proxy", "10.0.0.0/33"},
	} {
		status, stderr := servetest.Run(t, t.TempDir(), nil, append([]string{"--listen", "127.0.0.1:0"}, args...)...)
		if status != 2 || !strings.Contains(stderr, args[0]) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: status %d, %q", args, status, stderr)
		}
	}
}
