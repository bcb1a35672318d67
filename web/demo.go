package web

import (
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"time"
)

// The demo page cuts its own connections to show what a resume is. It opens them at
// /demo/sse with a secret that it has drawn, and whoever has that secret can have the
// server cut them and refuse them for a while. All other connections have none, so
// nobody can cut another's.

const (
	minCut = time.Second
	maxCut = 10 * time.Second
	// maxCuts bounds how many secrets are refused at once.
	maxCuts = 256
)

var (
	errCut = errors.New("the demo page has it cut")
	secret = regexp.MustCompile(`^[A-Za-z0-9_-]{16,64}$`)
)

// demo tells the page which stream to show. By the start of the process and its clock
// it tells a restart from a cut, and measures latency.
func (s *Server) demo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	// A client that is gone needs no answer.
	_ = json.NewEncoder(w).Encode(struct {
		Stream  string    `json:"stream"`
		Started time.Time `json:"started"`
		Now     time.Time `json:"now"`
	}{s.config.Demo, s.started.UTC(), time.Now().UTC()})
}

// demoStream is the demo's stream as at /sse/{stream}, but refused while it is cut: by
// no answer at all, as where the network is down, since any would stop an EventSource
// for good.
func (s *Server) demoStream(w http.ResponseWriter, r *http.Request) {
	client := r.URL.Query().Get("client")
	if !secret.MatchString(client) {
		s.fail(w, r, badRequest("client=%q is not 16 to 64 of A-Z a-z 0-9 _ -", client))
		return
	}
	s.mu.Lock()
	refused := s.isCut(client)
	s.mu.Unlock()
	if refused {
		abort(w, r)
		return
	}
	s.allow(subscribing, s.get, s.config.Demo)(w, r)
}

// demoClient is the secret of a subscription of the demo page, and empty for others.
func demoClient(r *http.Request) string {
	if r.URL.Path != "/demo/sse" {
		return ""
	}
	return r.URL.Query().Get("client")
}

// demoCut cuts the connections that were opened with client=, and refuses more of them
// for as long as for= says.
func (s *Server) demoCut(w http.ResponseWriter, r *http.Request) {
	client := r.URL.Query().Get("client")
	d, err := time.ParseDuration(r.URL.Query().Get("for"))
	switch {
	case !secret.MatchString(client):
		err = badRequest("client=%q is not 16 to 64 of A-Z a-z 0-9 _ -", client)
	case err != nil || d < minCut || d > maxCut:
		err = badRequest("for=%q is not a duration from %v to %v", r.URL.Query().Get("for"), minCut, maxCut)
	case !s.cutFor(client, d):
		err = &refusal{http.StatusTooManyRequests, "too many are cut right now; try again in some seconds"}
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// cutFor reports whether there was room for one more.
func (s *Server) cutFor(client string, d time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.cuts {
		s.isCut(c)
	}
	already := s.isCut(client) // then there is no connection to look for
	if !already && len(s.cuts) >= maxCuts {
		return false
	}
	s.cuts[client] = time.Now().Add(d)
	for c := range s.clients {
		if !already && c.demo == client {
			s.cutClientLocked(c, errCut)
		}
	}
	return true
}

// isCut reports whether connections with the secret are refused, and forgets a cut that
// is over. The caller holds mu.
func (s *Server) isCut(client string) bool {
	until, ok := s.cuts[client]
	if ok && !time.Now().Before(until) {
		delete(s.cuts, client)
		return false
	}
	return ok
}
