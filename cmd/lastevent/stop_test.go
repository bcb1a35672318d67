//go:build unix

package main_test

import (
	"bufio"
	"net"
	"net/http"
	"testing"

	"lastevent/cmd/lastevent/servetest"
)

// Whoever was connected when the server stops gets an answer to what it asks then.
func TestStopAnswersWhoIsConnected(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t)
	conn := s.Dial()
	s.Send(conn, "POST /sse/x HTTP/1.1\r\n")
	s.Do("GET", "/healthz", "") // so it is accepted by now
	s.Terminate()
	await(t, s, "the server to take no more connections", func() bool {
		more, err := net.Dial("tcp", s.Addr)
		if err == nil {
			more.Close()
		}
		return err != nil
	})
	s.Send(conn, "Host: localhost\r\nContent-Length: 3\r\n\r\none")
	if got, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || got.StatusCode != 201 {
		t.Errorf("%+v, %v; want 201", got, err)
	}
	s.Wait()
	s.Restart()
	if _, last := s.Bounds("x"); last != 1 {
		t.Errorf("last is %d", last)
	}
}
