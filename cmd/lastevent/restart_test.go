//go:build unix

package main_test

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"lastevent/cmd/lastevent/servetest"
)

// A server that is stopped and started again and again loses nothing, and every
// client resumes each time, also beside clients that hold it up.
//
// 50 times: go test -tags long -run RollingRestart ./cmd/lastevent
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t, "--time-every", "15ms", "--retain-events", "0")
	s.Patience(time.Duration(servetest.Rounds(2, 10)) * time.Minute)
	tr := startTraffic(t, s, "kept", 3, 10, 0, 50)
	var stopped atomic.Bool
	clock := &resuming{Follower: servetest.Follower{Client: s.HTTP, URL: s.URL + "/sse/time", Began: true}}
	tr.following.Go(func() {
		if err := clock.resume(s.Ctx, func() bool { return !stopped.Load() }); err != nil {
			t.Error("a client of the time: ", err)
		}
	})
	rounds := servetest.Rounds(5, 50)
	var stops, starts []time.Duration
	for round := range rounds {
		_, before := tr.seen.Len()
		await(t, s, "the clients to resume and events to come", func() bool {
			_, acked := tr.seen.Len()
			return tr.reconnected(round+1) && clock.connections.Load() > int64(round) && acked > before+100
		})
		if round%5 == 0 {
			holdUp(s)
		}
		begun := time.Now()
		s.Stop() // within 10 s, with status 0
		stops = append(stops, time.Since(begun))
		begun = time.Now()
		s.Restart()
		starts = append(starts, time.Since(begun))
	}
	stopped.Store(true)
	tr.finish(t)
	if !tr.reconnected(rounds + 1) {
		t.Error("a client has not resumed")
	}
	if clock.Gaps > 0 || clock.Events == 0 {
		t.Errorf("the client of the time has %d events and %d gaps", clock.Events, clock.Gaps)
	}
	slices.Sort(stops)
	slices.Sort(starts)
	t.Logf("%d restarts: stopped within %v (half of them %v), started within %v", rounds, stops[rounds-1], stops[rounds/2], starts[rounds-1])
}

// holdUp opens connections that a server could wait for when it stops.
func holdUp(s *servetest.Server) {
	s.Send(s.Dial(), "POST /sse/other HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
	s.Send(s.Dial(), "GET /sse/kept HTTP/1.1\r\nHost: localhost\r\n")
	s.Send(s.Dial(), "GET /sse/kept?from=earliest HTTP/1.1\r\nHost: localhost\r\n\r\n") // takes nothing
	s.Dial()
}

func await(t *testing.T, s *servetest.Server, what string, done func() bool) {
	t.Helper()
	for !done() {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-s.Ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
