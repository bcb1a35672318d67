package web

import (
	"cmp"
	"io"
	"time"

	"github.com/rs/zerolog"

	"lastevent/stream/sse"
)

// A source is what a response is made of: the cursor of a stream, or of several.
type source interface {
	Begin() []byte
	BeginCut() []byte
	Next() ([]byte, <-chan struct{}, error)
	// Behind reports whether Next has to read the log.
	Behind() bool
	Idle() []byte
	Finished() bool
	figured
	Close()
}

// A client is one subscription. At any time it belongs to the goroutine that serves
// it, or to the live that it has joined.
type client struct {
	server       *Server
	res          response
	direct       *connResponse // res, if it can be written to without waiting
	source       source
	stream, addr string
	demo         string // the secret by which the demo page can cut it

	written time.Time // the last time
	err     error     // why it is over; io.EOF: its response is complete

	// Where it is not direct:
	beat *time.Timer   // runs until a heartbeat is due, at most
	wake chan struct{} // gets a value when it may be gone

	// For its live:
	listed bool // it is one of the live's clients
	check  bool // to be written to, as it may be gone
	out    bool // to go on by itself

	entered bool // the server's gate, which it is to leave

	deadline *deadline // nil: it has none

	// Guarded by Server.mu:
	cutBy error // why the server has cut it; nil: it has not

	// Guarded by Server.liveMu:
	live      *live // that it has joined
	maybeGone bool  // it has not been written to since it hung up
}

// start writes what the client's response begins with, and registers it. It reports
// whether the client is to be served.
func (s *Server) start(c *client) bool {
	s.metrics.subscriptions.WithLabelValues(yesNo(c.source.Figures().Resumed)).Inc()
	if c.direct == nil {
		c.wake, c.beat = make(chan struct{}, 1), time.NewTimer(s.config.Heartbeat)
	}
	c.res.watch(c)
	retry, refused := s.admit(c)
	begin := c.source.Begin
	if refused != nil {
		begin = c.source.BeginCut
	}
	p := append(sse.AppendRetry(nil, retry), begin()...)
	c.written = time.Now()
	if c.err = cmp.Or(c.res.begin(p, c.written), refused); c.err == nil {
		c.err = s.register(c) // only now, so that Drain cuts no beginning
	}
	if c.err != nil {
		s.leave(c)
		return false
	}
	c.logDebug().Bool("resumed", c.source.Figures().Resumed).Msg("subscribed")
	return true
}

// register makes the client known to those who can cut it, unless it is to be cut
// already.
func (s *Server) register(c *client) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining:
		return errDraining
	case s.isCut(c.demo):
		return errCut
	}
	s.clients[c] = struct{}{}
	s.gone.Add(1)
	if c.deadline != nil {
		c.deadline.timer = time.AfterFunc(time.Until(c.deadline.at), func() { s.cutClient(c, c.deadline.reason) })
	}
	return nil
}

// A deadline is when a client is cut, and why.
type deadline struct {
	at     time.Time
	reason error
	timer  *time.Timer
}

// cutAt gives the client, which is not started yet, a deadline, unless it has an
// earlier one.
func (c *client) cutAt(at time.Time, reason error) {
	if c.deadline == nil || at.Before(c.deadline.at) {
		c.deadline = &deadline{at: at, reason: reason}
	}
}

// cutClient cuts a client, for a reason, wherever it is served.
func (s *Server) cutClient(c *client, reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.clients[c]; ok {
		s.cutClientLocked(c, reason)
	}
}

func (s *Server) cutClientLocked(c *client, reason error) {
	c.cutBy = cmp.Or(c.cutBy, reason)
	c.res.cut()
	c.hungUp()
}

// leave ends or cuts the client's response and gives it up.
func (s *Server) leave(c *client) {
	if c.err == io.EOF {
		c.res.end()
	} else {
		c.res.cut()
	}
	if c.beat != nil {
		c.beat.Stop()
	}
	c.source.Close()
	if c.entered {
		s.gate.leave(c.addr)
	}
	reason := s.forget(c)
	s.metrics.left(reason)
	f := c.source.Figures()
	line := c.logDebug().Uint64("delivered", f.Delivered).Uint64("lag", f.Lag)
	if reason == io.EOF {
		line.Msg("ended")
	} else {
		line.Str("reason", nameOf(reason, cutReasons)).Err(reason).Msg("cut")
	}
}

// logDebug begins a line about the client.
func (c *client) logDebug() *zerolog.Event {
	return c.server.config.Log.Debug().Str("stream", c.stream).Str("addr", c.addr)
}

// forget undoes register, and returns why the client is over.
func (s *Server) forget(c *client) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.countGivenLocked(c.source)
	if _, ok := s.clients[c]; ok {
		delete(s.clients, c)
		s.gone.Done()
		if c.deadline != nil {
			c.deadline.timer.Stop()
		}
	}
	if c.err == io.EOF {
		return io.EOF
	}
	return cmp.Or(c.cutBy, c.err)
}

// serve writes all that there is for the client, waiting for it where it has to. Then
// the client joins those that are live, or, where its response cannot be written to
// without waiting, stays here until its end. It reports whether that was complete.
func (c *client) serve() (ended bool) {
	if c.err == nil && c.direct != nil {
		c.err = c.direct.finish(time.Now())
	}
	for c.err == nil {
		p, changed, err := c.source.Next()
		switch {
		case err != nil:
			c.fail(err)
		case len(p) > 0:
			c.write(p)
		case changed == nil:
		case c.direct != nil:
			c.server.join(c)
			return false
		default:
			c.wait(changed)
		}
	}
	c.server.leave(c)
	return c.err == io.EOF
}

// wait waits until there may be more for the client, and keeps its connection alive.
func (c *client) wait(changed <-chan struct{}) {
	select {
	case <-changed:
	case <-c.beat.C:
		rest := c.server.config.Heartbeat - time.Since(c.written)
		if rest <= 0 {
			c.write(c.idle())
			c.server.metrics.heartbeats.Inc()
			rest = c.server.config.Heartbeat
		}
		c.beat.Reset(rest)
	case <-c.wake:
		c.write(c.idle())
	case <-c.server.cut:
		c.err = errDraining
	}
}

func (c *client) write(p []byte) {
	c.written = time.Now()
	c.err = c.res.write(p, c.written)
}

// idle returns something to write, for want of events.
func (c *client) idle() []byte {
	if p := c.source.Idle(); p != nil {
		return p
	}
	return []byte(sse.Heartbeat)
}

// fail takes an error of Next.
func (c *client) fail(err error) {
	if c.err = err; err != io.EOF {
		c.server.failures.Error().Err(err).Str("stream", c.stream).Msg("reading failed")
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
	all, c.err = c.direct.tryWrite(p)
	return all
}
