package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"lastevent/store"
)

// problem answers with problem details (RFC 9457), the detail in words that the
// client's user can act on.
func problem(w http.ResponseWriter, status int, detail string) {
	writeProblem(w, problemDetails{Status: status, Detail: detail})
}

type problemDetails struct {
	Title   string `json:"title"`
	Status  int    `json:"status"`
	Detail  string `json:"detail"`
	Outcome string `json:"outcome,omitempty"`
}

func writeProblem(w http.ResponseWriter, p problemDetails) {
	p.Title = http.StatusText(p.Status)
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // a client that is gone needs no answer
}

func problemHandler(status int, err error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		problem(w, status, err.Error())
	})
}

// A refusal is an error whose words are for the client.
type refusal struct {
	status int
	detail string
}

func (e *refusal) Error() string { return e.detail }

// fail answers with what the error calls for. What is not the client's fault is
// logged, and told without the server's own matters.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var (
		p       = problemDetails{Status: http.StatusInternalServerError, Detail: "the stream cannot be read or written; see the server's log"}
		refused *refusal
		tooLong *http.MaxBytesError
	)
	switch {
	case errors.As(err, &refused):
		if refused.status == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "1")
		}
		problem(w, refused.status, refused.detail)
		return
	case errors.As(err, &tooLong):
		problem(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than the %d bytes that are possible", tooLong.Limit))
		return
	case errors.Is(err, store.ErrTooLarge):
		problem(w, http.StatusRequestEntityTooLarge, err.Error())
		return
	case errors.Is(err, store.ErrClosed):
		problem(w, http.StatusConflict, "the stream is closed; nothing can be published to it any more")
		return
	case errors.Is(err, store.ErrKeyReused):
		problem(w, http.StatusUnprocessableEntity, "the Idempotency-Key was used for another request; a new one needs a new key")
		return
	case errors.Is(err, store.ErrTooManyStreams):
		problem(w, http.StatusInsufficientStorage, err.Error()+"; publish to one that exists")
		return
	case errors.Is(err, store.ErrNoSpace):
		p = problemDetails{Status: http.StatusInsufficientStorage, Detail: "no space is left for events; nothing was stored"}
	case errors.Is(err, store.ErrUnknown):
		p.Detail, p.Outcome = "writing failed, so it is unknown whether the event is stored; with an Idempotency-Key it is safe to try again", "unknown"
	case errors.Is(err, store.ErrUnavailable):
		p = problemDetails{Status: http.StatusServiceUnavailable, Detail: "the store cannot be reached now; nothing was changed"}
		w.Header().Set("Retry-After", "1")
	case errors.Is(err, store.ErrStopped):
		p = problemDetails{Status: http.StatusServiceUnavailable, Detail: "the store takes no events now; nothing was stored"}
		w.Header().Set("Retry-After", "1")
	case r.Context().Err() != nil:
		problem(w, http.StatusServiceUnavailable, "the request was given up before anything was stored")
		return
	}
	s.failures.Error().Err(err).Str("method", r.Method).Str("path", r.URL.Path).Msg("request failed")
	writeProblem(w, p)
}
