package main

import (
	"context"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// A stop waits for each request that is under way, and no longer than its time for one
// that may never come.
func TestStopWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conns := &connections{busy: map[net.Conn]time.Time{}}
		silent, asking := &net.TCPConn{}, &net.TCPConn{}
		conns.changed(silent, http.StateNew)
		conns.changed(asking, http.StateNew)
		conns.changed(asking, http.StateActive)
		time.Sleep(firstTimeout / 2)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		time.AfterFunc(10*time.Second, func() { conns.changed(asking, http.StateIdle) })
		begun := time.Now()
		if err := conns.finish(ctx); err != nil || time.Since(begun) < 10*time.Second {
			t.Errorf("a request under way: %v after %v", err, time.Since(begun))
		}
		conns.changed(silent, http.StateClosed)
		conns.changed(silent, http.StateNew)
		begun = time.Now()
		if err := conns.finish(ctx); err != nil || time.Since(begun) < firstTimeout || time.Since(begun) > 2*firstTimeout {
			t.Errorf("a silent connection: %v after %v", err, time.Since(begun))
		}
	})
}
