package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// stopTimeout is how long requests have to finish once the server stops.
const stopTimeout = 5 * time.Second

// connections knows those on which a request is under way, or the first is awaited.
// http.Server.Shutdown alone would leave requests unanswered that come on connections
// accepted before it.
type connections struct {
	mu   sync.Mutex // guards busy
	busy map[net.Conn]struct{}
}

// changed is the server's ConnState.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if state == http.StateNew || state == http.StateActive {
		c.busy[conn] = struct{}{}
	} else {
		delete(c.busy, conn)
	}
}

// finish waits until none is busy.
func (c *connections) finish(ctx context.Context) error {
	for {
		c.mu.Lock()
		n := len(c.busy)
		c.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
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
