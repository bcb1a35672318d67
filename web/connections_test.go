package web_test

import (
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"lastevent/web"
)

// limitedTCP serves with a bound on connections, and tells how often that was reached.
func limitedTCP(t *testing.T, most int) (s *host, full *atomic.Int64) {
	t.Helper()
	s, full = newHost(t, setup{}), new(atomic.Int64)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.dial = func() net.Conn {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	s.serve(t, web.NewConnections(most, func() { full.Add(1) }).Limit(l))
	return s, full
}

// A bound on connections does not change how they are served.
func TestLimitedConnectionsAreServedAsOthers(t *testing.T) {
	s, _ := limitedTCP(t, 10)
	sub := s.subscribe(t, "/sse/x")
	sub.position(t)
	s.untilLive(t, 1)
	s.publish(t, "x", "1")
	if m := sub.next(t); m.ID != "1" {
		t.Errorf("%+v", m)
	}
}

// One connection too many waits until another is closed, by either side.
func TestConnectionsWaitForPlaces(t *testing.T) {
	s, full := limitedTCP(t, 2)
	s.publish(t, "x", "1")
	for range 2 {
		stays, ends := s.subscribe(t, "/sse/x"), s.subscribe(t, "/sse/x")
		stays.position(t)
		ends.position(t)
		before := full.Load()
		waits := s.send(t, "GET /sse/x?from=earliest&limit=1")
		for deadline := time.Now().Add(time.Minute); full.Load() == before; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("nobody is told that one waits")
			}
		}
		_ = waits.SetReadDeadline(time.Now().Add(10 * time.Millisecond)) // a closed one is seen below
		if _, err := waits.r.Peek(1); err == nil {
			t.Fatal("it is served")
		}
		_ = waits.SetReadDeadline(time.Now().Add(time.Minute))
		ends.Close()
		if head := waits.response(t); head.StatusCode != http.StatusOK {
			t.Error(head.Status)
		}
		waits.Close()
		stays.Close()
	}
}

// A listener that is closed while a connection waits for a place is closed at once.
func TestCloseWhileAConnectionWaits(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	limited := web.NewConnections(1, func() {}).Limit(l)
	for range 2 {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	first, err := limited.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	accepted := make(chan error)
	go func() {
		_, err := limited.Accept()
		accepted <- err
	}()
	time.Sleep(10 * time.Millisecond) // whether or not it waits already
	if err := limited.Close(); err != nil {
		t.Error(err)
	}
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("it is %v", err)
	}
}
