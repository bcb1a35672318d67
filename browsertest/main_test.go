//go:build linux

// Package browsertest tests the program with what others made: the SSE clients that
// are in use, the proxies that stand before it, and the browsers.
package browsertest

import (
	"flag"
	"testing"

	"lastevent/cmd/lastevent/servetest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "8") // it is a flag; the tests mostly wait
	servetest.Main(m)
}
