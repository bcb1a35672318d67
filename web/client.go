package web

import (
	"io"
	"math/rand/v2"
	"time"

	"lastevent/stream/sse"
)

// A source is what a response is made of: the cursor of a stream, or of several.
type source interface {
	Begin() []byte
	Next() ([]byte, <-chan struct{}, error)
	// Behind reports whether Next has to read the log.
	Behind() bool
	Idle() []byte
	Finished() bool
	Close()
}

// A client is one subscription. At any time it belongs to the goroutine that serves
// it, or to the live that it has joined.
type client struct {
	server       *Server
	res          response
	source       source
	stream, addr string
	turn         chan struct{} // has the handler serve on; nil: a new goroutine does

	written time.Time // the last time
	err     error     // why it is over; io.EOF: its response is complete

	// For its live:
	listed bool // it is one of the live's clients
	check  bool // to be written to, as it may be gone
	out    bool // to go on by itself

	// Guarded by Server.liveMu:
	live      *live // that it has joined
	maybeGone bool  // it has not been written to since it hung up
}

// start writes what the client's response begins with, and registers it. It reports
// whether the client is to be served.
func (s *Server) start(c *client) bool {
	c.res.watch(c)
	retry := s.config.Retry
	if s.isDraining() {
		retry *= 4
	}
	// Clients that are cut together must not return together.
	p := sse.AppendRetry(nil, retry+rand.N(retry))
	c.written = time.Now()
	c.err = c.res.begin(append(p, c.source.Begin()...), c.written)
	if c.err == nil && !s.register(c) { // only now, so that Drain cuts no beginning
		c.err = errDraining
	}
	if c.err != nil {
		s.leave(c)
		return false
	}
	s.config.Log.Debug().Str("stream", c.stream).Str("addr", c.addr).Msg("subscribed")
	return true
}

// register makes the client known to Drain, unless the server drains already.
func (s *Server) register(c *client) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.clients[c] = struct{}{}
	s.gone.Add(1)
	return true
}

// leave ends or cuts the client's response and gives it up.
func (s *Server) leave(c *client) {
	ended := c.err == io.EOF
	if ended {
		c.res.end()
	} else {
		c.res.cut()
	}
	c.source.Close()
	s.config.Log.Debug().Str("stream", c.stream).Str("addr", c.addr).Bool("ended", ended).AnErr("reason", c.err).Msg("unsubscribed")
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.clients[c]; ok {
		delete(s.clients, c)
		s.gone.Done()
	}
}

// goOn has the client served by a goroutine of its own.
func (c *client) goOn() {
	if c.turn == nil {
		go c.serve()
		return
	}
	c.turn <- struct{}{}
}

// serveInTurns is for a response that ends when its handler does. It reports whether
// the response is complete.
func (c *client) serveInTurns() bool {
	for c.serve() {
		<-c.turn
	}
	return c.err == io.EOF
}

// serve writes all that there is for the client, waiting for it where it has to, and
// then has it join those that are live. It reports false where the client is over.
func (c *client) serve() bool {
	if c.err == nil {
		c.err = c.res.finish(time.Now())
	}
	for c.err == nil {
		p, changed, err := c.source.Next()
		switch {
		case err != nil:
			c.fail(err)
		case len(p) > 0:
			c.written = time.Now()
			c.err = c.res.write(p, c.written)
		case changed != nil:
			c.server.join(c)
			return true
		}
	}
	c.server.leave(c)
	return false
}

// fail takes an error of Next.
func (c *client) fail(err error) {
	if c.err = err; err != io.EOF {
		c.server.config.Log.Error().Err(err).Str("stream", c.stream).Msg("reading failed")
	}
}

// serveLive writes what there is for a live client without waiting for it. It returns
// what is closed when there is more, or nil where the client has to go on by itself.
func (c *client) serveLive(now time.Time) <-chan struct{} {
	for !c.source.Behind() {
		p, changed, err := c.source.Next()
		if err != nil {
			c.fail(err)
			return nil
		}
		if len(p) == 0 {
			return changed
		}
		if !c.tryWrite(p, now) {
			return nil
		}
	}
	return nil
}

// tryWrite reports whether all was written.
func (c *client) tryWrite(p []byte, now time.Time) (all bool) {
	c.written = now
	all, c.err = c.res.tryWrite(p)
	return all
}

// tryWriteIdle writes something, for want of events.
func (c *client) tryWriteIdle(now time.Time) (all bool) {
	p := c.source.Idle()
	if p == nil {
		p = []byte(sse.Heartbeat)
	}
	return c.tryWrite(p, now)
}
