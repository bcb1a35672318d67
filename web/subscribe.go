package web

import (
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"lastevent/store"
	"lastevent/stream/sse"
)

// A source is what a response is made of: the cursor of a stream, or of several.
type source interface {
	Begin() []byte
	Next() ([]byte, <-chan struct{}, error)
	Idle() []byte
	Finished() bool
	Close()
}

// get answers with the stream's events after the client's ID, and then the live
// ones, unless the client asks for a read that ends.
func (s *Server) get(w http.ResponseWriter, r *http.Request, name string) {
	q, err := parseQuery(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	sub, err := parseSubscription(r, q)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	h := w.Header()
	h.Add("Vary", "Accept")
	head := r.Method == http.MethodHead && !sub.Once
	ctx := s.ctx // a subscription outlives its handler
	if sub.Once || head {
		ctx, sub.Once = r.Context(), true
	}
	cursor, err := s.config.Streams.Subscribe(ctx, name, sub)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	setStreamHeader(h, cursor.Bounds())
	switch {
	case cursor.Finished():
		cursor.Close()
		w.WriteHeader(http.StatusNoContent)
	case head:
		cursor.Close()
		setEventsHeader(h, eventStream)
	case sub.Once:
		defer cursor.Close()
		s.read(w, r, q, sub, cursor)
	default:
		s.follow(w, r, name, cursor)
	}
}

func setStreamHeader(h http.Header, b store.Bounds) {
	h.Set("Stream-First-Id", strconv.FormatUint(b.First, 10))
	h.Set("Stream-Last-Id", strconv.FormatUint(b.Last, 10))
	h.Set("Stream-Log", b.Log)
	if b.Closed {
		h.Set("Stream-Closed", "true")
	}
}

func setEventsHeader(h http.Header, contentType string) {
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-cache, no-transform")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
}

// follow serves the source until the response is complete or has to be cut.
func (s *Server) follow(w http.ResponseWriter, r *http.Request, name string, src source) {
	setEventsHeader(w.Header(), eventStream)
	c := &client{server: s, source: src, stream: name, addr: r.RemoteAddr}
	if r.ProtoMajor > 1 {
		c.res = newStreamResponse(w, r)
		if !s.start(c) || !s.serve(c) {
			panic(http.ErrAbortHandler)
		}
		return
	}
	res, err := takeOver(w, r, s.watcher)
	if err != nil {
		src.Close()
		s.fail(w, r, err)
		return
	}
	c.res = res
	if s.start(c) {
		go s.serve(c) // on a stack of its own, which is thus the smallest
	}
}

// A client is one subscription.
type client struct {
	server       *Server
	res          response
	source       source
	stream, addr string

	// wake gets a value when something has to be written to see or to show that the
	// connection is alive.
	wake      chan struct{}
	heartbeat *time.Timer
	written   atomic.Int64 // when, since the server's start
	over      atomic.Bool
}

// start writes what the client's response begins with, and registers it. It reports
// whether the client is to be served.
func (s *Server) start(c *client) bool {
	c.wake = make(chan struct{}, 1)
	c.res.watch(c.wake)
	retry := s.config.Retry
	if s.isDraining() {
		retry *= 4
	}
	// Clients that are cut together must not return together.
	p := sse.AppendRetry(nil, retry+rand.N(retry))
	now := time.Now()
	err := c.res.begin(append(p, c.source.Begin()...), now)
	if err == nil && !s.register(c) { // only now, so that Drain cuts no beginning
		err = errDraining
	}
	if err != nil {
		s.leave(c, false, err)
		return false
	}
	c.written.Store(int64(now.Sub(s.started)))
	c.heartbeat = time.AfterFunc(math.MaxInt64, c.beat)
	c.heartbeat.Reset(s.config.Heartbeat) // only now, as beat uses the field
	s.config.Log.Debug().Str("stream", c.stream).Str("addr", c.addr).Msg("subscribed")
	return true
}

// beat wakes the client if its connection was idle for a heartbeat. Writes do not
// touch the timer, which is cheaper.
func (c *client) beat() {
	if c.over.Load() {
		return
	}
	written := time.Duration(c.written.Load())
	idle := time.Since(c.server.started) - written
	rest := c.server.config.Heartbeat - idle
	if rest <= 0 {
		poke(c.wake)
		rest = c.server.config.Heartbeat
	}
	c.heartbeat.Reset(rest)
}

func poke(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
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
func (s *Server) leave(c *client, ended bool, reason error) {
	c.over.Store(true)
	if c.heartbeat != nil {
		c.heartbeat.Stop()
	}
	if ended {
		c.res.end()
	} else {
		c.res.cut()
	}
	c.source.Close()
	s.config.Log.Debug().Str("stream", c.stream).Str("addr", c.addr).Bool("ended", ended).AnErr("reason", reason).Msg("unsubscribed")
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.clients[c]; ok {
		delete(s.clients, c)
		s.gone.Done()
	}
}

// serve runs a registered subscription to its end. It reports whether its response
// is complete.
func (s *Server) serve(c *client) bool {
	ended, err := s.run(c)
	s.leave(c, ended, err)
	return ended
}

// run writes all that the source gives, until the response is complete or has to be
// cut.
func (s *Server) run(c *client) (ended bool, _ error) {
	for {
		p, changed, err := c.source.Next()
		switch {
		case err == io.EOF:
			return true, nil
		case err != nil:
			s.config.Log.Error().Err(err).Str("stream", c.stream).Msg("reading failed")
			return false, err
		case len(p) > 0:
			if err := c.write(p); err != nil {
				return false, err
			}
			continue
		}
		select {
		case <-changed:
		case <-c.wake:
			if err := c.writeIdle(); err != nil {
				return false, err
			}
		case <-s.cut:
			return false, errDraining
		}
	}
}

func (c *client) write(p []byte) error {
	now := time.Now()
	c.written.Store(int64(now.Sub(c.server.started)))
	return c.res.write(p, now)
}

// writeIdle writes something, for want of events.
func (c *client) writeIdle() error {
	p := c.source.Idle()
	if p == nil {
		p = []byte(sse.Heartbeat)
	}
	return c.write(p)
}
