package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// stopTimeout is how long requests have to finish once the server stops.
	stopTimeout = 5 * time.Second
	// firstTimeout is how long one is awaited on a connection that is new; browsers open
	// some that they may not need. It is that of http.Server.Shutdown.
	firstTimeout = 5 * time.Second
)

// connections knows those on which a request is under way, or the first is awaited.
// http.Server.Shutdown alone would leave requests unanswered that come on connections
// accepted before it.
type connections struct {
	mu   sync.Mutex             // guards busy
	busy map[net.Conn]time.Time // until when; zero: until its request is answered
}

// changed is the server's ConnState.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		c.busy[conn] = time.Now().Add(firstTimeout)
	case http.StateActive:
		c.busy[conn] = time.Time{}
	default:
		delete(c.busy, conn)
	}
}

func (c *connections) anyBusy(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, until := range c.busy {
		if until.IsZero() || now.Before(until) {
			return true
		}
	}
	return false
}

// finish waits until none is busy.
func (c *connections) finish(ctx context.Context) error {
	for c.anyBusy(time.Now()) {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// stopServing has no more connections accepted, those that there are finish what was
// asked of them, and subscriptions be cut by drain.
func stopServing(h *http.Server, listeners []net.Listener, accepting *sync.WaitGroup, conns *connections, drain func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	closeAll(listeners)
	accepting.Wait()
	h.SetKeepAlivesEnabled(false)
	drained := make(chan error, 1)
	go func() { drained <- drain(ctx) }()
	err := conns.finish(ctx)
	if err == nil {
		err = h.Shutdown(ctx)
	}
	if err = errors.Join(err, <-drained); err != nil {
		_ = h.Close() // the listeners are closed, and connections have nothing to report
	}
	return err
}
