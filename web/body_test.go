package web_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"lastevent/web"
)

// A body may take as long as its length calls for, and one that brings next to
// nothing is answered in words.
func TestSlowBody(t *testing.T) {
	const length = 1 << 20
	large := func(c *web.Config) { c.MaxEventBytes, c.MaxBatchBytes = length, length }
	for _, test := range []struct {
		piece  int // a second
		typ    string
		status int
		after  time.Duration
	}{
		{10_000, "text/plain", 201, 104 * time.Second},
		{5000, "text/plain", 400, 209 * time.Second}, // it is no UTF-8
		{2000, "text/plain", 408, 100 * time.Second},
		{2000, "application/x-ndjson", 408, 100 * time.Second},
		{1, "text/plain", 408, time.Minute},
		{1, "application/x-ndjson", 408, time.Minute},
		{0, "text/plain", 408, time.Minute},
	} {
		inBubble(t, setup{config: large}, func(t *testing.T, s *host) {
			start, filler := time.Now(), "x"
			if test.status == 400 {
				filler = "\xff"
			}
			w := s.send(t, "POST /sse/x", fmt.Sprint("Content-Length: ", length-len("message")), "Content-Type: "+test.typ)
			done := make(chan struct{})
			defer func() {
				w.Close()
				<-done
				time.Sleep(time.Second) // net/http lingers
			}()
			go func() {
				defer close(done)
				for left := length - len("message"); left > 0; left -= test.piece {
					if _, err := io.WriteString(w, strings.Repeat(filler, min(left, test.piece))); err != nil {
						return // answered
					}
					time.Sleep(time.Second)
				}
			}()
			res := w.response(t)
			if took := time.Since(start).Truncate(time.Second); res.StatusCode != test.status || took != test.after {
				t.Errorf("%d bytes a second: %s after %v, want %d after %v", test.piece, res.Status, took, test.status, test.after)
			}
			if last := s.last(t, "x"); (last == 1) != (test.status == 201) {
				t.Errorf("%d bytes a second: last is %d", test.piece, last)
			}
		})
	}
}

// A producer that closes its side behind a whole request is there for the answer.
func TestProducerThatHalfCloses(t *testing.T) {
	s := overTCP(t, setup{})
	for i := range 100 {
		w := s.send(t, "POST /sse/x", "Content-Length: 5")
		if _, err := io.WriteString(w, "whole"); err != nil {
			t.Fatal(err)
		}
		if err := w.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if res := w.response(t); res.StatusCode != 201 || s.last(t, "x") != uint64(i+1) {
			t.Fatalf("%s, and last is %d, want %d", res.Status, s.last(t, "x"), i+1)
		}
		w.Close()
	}
}
