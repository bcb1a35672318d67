package web

import (
	"errors"
	"net/http"
	"strconv"

	"lastevent/store"
)

// get answers with the stream's events after the client's ID, and then the live
// ones, unless the client asks for a read that ends.
func (s *Server) get(w http.ResponseWriter, r *http.Request, name string) {
	if err := checkCuts(r); err != nil {
		s.fail(w, r, err)
		return
	}
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
	if errors.Is(err, store.ErrUnavailable) && !sub.Once {
		s.follow(w, r, name, lost{}, false)
		return
	}
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
		s.follow(w, r, name, cursor, sub.Limit > 0 || cursor.Bounds().Closed)
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

// follow serves the source until the response is complete, as a finite one will be, or
// has to be cut.
func (s *Server) follow(w http.ResponseWriter, r *http.Request, name string, src source, finite bool) {
	setEventsHeader(w.Header(), eventStream)
	c := &client{server: s, source: src, stream: name, addr: r.RemoteAddr, demo: demoClient(r)}
	s.limitAge(c, w, r)
	c.endWithToken(r)
	if r.ProtoMajor > 1 {
		c.res = newStreamResponse(w, r)
		if !s.start(c) || !c.serve() {
			panic(http.ErrAbortHandler)
		}
		return
	}
	if finite {
		// Or a client might send its next request on the connection, which will be closed.
		// It is said of no other response: node's fetch would take a cut for the end.
		w.Header().Set("Connection", "close")
	}
	res, err := takeOver(w, r, s.watcher)
	if err != nil {
		src.Close()
		s.fail(w, r, err)
		return
	}
	c.res = res
	if res.direct {
		c.direct = res
	}
	if s.start(c) {
		go c.serve() // on a stack of its own, which is thus the smallest
	}
}
