package web

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"lastevent/store"
	"lastevent/stream"
)

// streams answers with the events of the streams that the request names, or with a
// list of all.
func (s *Server) streams(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuery(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if q.Has("stream") {
		err = s.getMerged(w, r, q)
	} else {
		var visible func(string) bool
		if visible, err = s.visible(r); err == nil {
			err = s.list(w, r, visible)
		}
	}
	if err != nil {
		s.deny(w, r, err)
	}
}

// list answers with the streams that are visible.
func (s *Server) list(w http.ResponseWriter, r *http.Request, visible func(string) bool) error {
	streams, err := s.config.Streams.List(r.Context())
	switch {
	case errors.Is(err, store.ErrDamaged):
		s.failures.Error().Err(err).Msg("a stream is left out of the list")
	case err != nil:
		return err
	}
	type entry struct {
		Name    string `json:"name"`
		First   uint64 `json:"first"`
		Last    uint64 `json:"last"`
		Events  uint64 `json:"events"`
		Bytes   uint64 `json:"bytes"`
		Clients int    `json:"clients"`
		Closed  bool   `json:"closed"`
	}
	entries := make([]entry, 0, len(streams))
	for _, st := range streams {
		if visible(st.Name) {
			entries = append(entries, entry{st.Name, st.First, st.Last, st.Last + 1 - st.First, st.Bytes, st.Clients, st.Closed})
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(entries) // a client that is gone needs no answer
	return nil
}

// getMerged answers with the events of several streams on one connection.
func (s *Server) getMerged(w http.ResponseWriter, r *http.Request, q query) error {
	if err := checkCuts(r); err != nil {
		return err
	}
	names := q.Values["stream"]
	if len(names) > stream.MaxStreams {
		return badRequest("stream= is given %d times; at most %d are possible", len(names), stream.MaxStreams)
	}
	for i, name := range names {
		if err := checkName(name); err != nil {
			return err
		}
		if slices.Contains(names[:i], name) {
			return badRequest("stream=%s is given twice", name)
		}
	}
	r, err := s.authorize(r, subscribing, names...)
	if err != nil {
		return err
	}
	if follow, err := q.bool("follow", true); err != nil || !follow {
		return cmp.Or(err, badRequest("several streams cannot be read with follow=false; read each by itself"))
	}
	sub, err := parseSelection(r, q, true)
	if err != nil {
		return err
	}
	if r.Method == http.MethodHead {
		setEventsHeader(w.Header(), eventStream)
		return nil
	}
	merged, err := s.config.Streams.SubscribeAll(s.ctx, names, sub)
	if errors.Is(err, store.ErrUnavailable) {
		s.follow(w, r, strings.Join(names, " "), lost{}, false)
		return nil
	}
	if err != nil {
		return err
	}
	if merged.Finished() {
		merged.Close()
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	s.follow(w, r, strings.Join(names, " "), merged, sub.Limit > 0)
	return nil
}
