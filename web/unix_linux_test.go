package web_test

import (
	"io"
	"strings"
	"testing"
)

// What the kernel holds for a client at a unix socket that takes nothing is bounded.
func TestStalledOverUnix(t *testing.T) {
	const atMost = 64 << 10
	s := overUnix(t, setup{config: large})
	sub := s.subscribe(t, "/sse/x")
	s.untilLive(t, 1)
	s.publishNumbers(t, "x", 1, 1, strings.Repeat("x", 1<<19))
	s.untilLive(t, 0)
	if err := s.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if held, err := io.Copy(io.Discard, sub.head.Body); err == nil || held == 0 || held > atMost {
		t.Errorf("%d bytes were held, %v", held, err)
	}
}
