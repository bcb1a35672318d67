package main_test

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"lastevent/cmd/lastevent/servetest"
)

// All clients of a server that is restarted are there again soon, whether they wait for
// as long as they are told or come again at once, and again and again.
//
// 10,000: go test -tags long -run Return -v ./cmd/lastevent
func TestReturn(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		impatient bool
		stop      func(*servetest.Server)
	}{
		{"stopped", false, (*servetest.Server).Stop},
		{"killed", false, (*servetest.Server).Kill},
		{"killed, impatient", true, (*servetest.Server).Kill},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := servetest.Start(t)
			s.Patience(5 * time.Minute)
			s.MustPublish("x", 1, "before")
			h := servetest.StartHerd(s, "/sse/x?from=earliest", servetest.Crowd(200, 10_000), test.impatient)
			defer h.Stop()
			await := func(what string) {
				t.Helper()
				drops := listenDrops(t)
				took, err := h.Await()
				if err != nil {
					t.Fatal(err)
				}
				n := len(took)
				t.Logf("%s: of %d clients half were live after %v, 99 %% after %v, all after %v; the server took %v of CPU, %d MiB; "+
					"%d tries, %d refused, %d took long, %d cut; %d SYNs dropped", what, n, took[n/2], took[n*99/100], took[n-1], s.CPU(), s.RSS()>>20,
					h.Tries.Load(), h.Refused.Load(), h.Long.Load(), h.Cut.Load(), listenDrops(t)-drops)
			}
			await("at first")
			h.Expect(2)
			test.stop(s)
			s.Restart()
			s.MustPublish("x", 2, "after")
			await("after a restart")
			if err := h.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

var listenFields = regexp.MustCompile(`(?m)^TcpExt: (.*)\nTcpExt: (.*)$`)

// listenDrops is how many connections the machine has not taken, so far, as too many
// were waiting.
func listenDrops(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/net/netstat")
	m := listenFields.FindSubmatch(text)
	if m == nil {
		t.Fatalf("no TcpExt: %v", err)
	}
	names, values := strings.Fields(string(m[1])), strings.Fields(string(m[2]))
	for i, name := range names {
		if name == "ListenDrops" {
			n, _ := strconv.Atoi(values[i]) // digits
			return n
		}
	}
	t.Fatal("no ListenDrops")
	return 0
}
