package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"lastevent/web/access"
)

// Access is who may do what, and which pages may. Zero: everybody may do all, but for
// pages of other origins.
type Access struct {
	// Verifier checks tokens. nil: nobody needs one.
	Verifier Verifier
	// Anonymous is what all may do, also without a token.
	Anonymous access.Grants
	// Cookie is the name of a cookie that can hold the token, as an EventSource cannot
	// set a header. Empty: none can.
	Cookie string
	// Origins are those whose pages may do what those of the server's own origin may:
	// https://app.example. The one origin "*" is all, of which none gets to use cookies.
	Origins []string
}

func (a *Access) valid() bool {
	return !slices.Contains(a.Origins, allOrigins) || len(a.Origins) == 1 && a.Cookie == ""
}

// A Verifier tells what the bearer of a token may do. Its errors are those of
// [access.Verifier.Verify].
type Verifier interface {
	Verify(ctx context.Context, token string) (access.Grants, error)
}

// An action is what somebody does to a stream.
type action int

const (
	subscribing action = iota // also reading and listing
	publishing                // also closing and deleting
)

func (a action) String() string { return [...]string{"subscribing", "publishing"}[a] }

// in returns the streams to which the grants allow it.
func (a action) in(g access.Grants) access.Patterns {
	if a == publishing {
		return g.Publish
	}
	return g.Subscribe
}

var errTokenEnded = errors.New("its token has ended")

// allow has h serve a stream to those who may do this to it. The others get the same
// answer whether there is such a stream or not, and before anything of theirs is read.
func (s *Server) allow(a action, h func(http.ResponseWriter, *http.Request, string), name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		granted, err := s.authorize(r, a, name)
		if err != nil {
			s.deny(w, r, err)
			return
		}
		h(w, granted, name)
	}
}

// authorize returns the request with the end of what it may, unless it may not do this
// to one of the streams.
func (s *Server) authorize(r *http.Request, a action, names ...string) (*http.Request, error) {
	if s.config.Access.Verifier == nil {
		return r, nil
	}
	if err := s.checkURL(r); err != nil {
		return nil, err
	}
	anonymous := a.in(s.config.Access.Anonymous)
	var granted access.Grants
	verified := false
	for _, name := range names {
		if anonymous.Match(name) {
			continue
		}
		if !verified {
			var err error
			if granted, err = s.verify(r); err != nil {
				return nil, err
			}
			verified = true
		}
		if !a.in(granted).Match(name) {
			return nil, &denial{http.StatusForbidden, `error="insufficient_scope"`, fmt.Sprintf("the token does not allow %s here: %s", a, name)}
		}
	}
	if !verified {
		return r, nil
	}
	return r.WithContext(context.WithValue(r.Context(), untilKey{}, granted.Until)), nil
}

// untilKey is the key of when what a request may ends.
type untilKey struct{}

// endWithToken has the client cut when the token of its request ends.
func (c *client) endWithToken(r *http.Request) {
	if until, _ := r.Context().Value(untilKey{}).(time.Time); !until.IsZero() {
		c.cutAt(until, errTokenEnded)
	}
}

// visible returns which streams the request's sender may know of.
func (s *Server) visible(r *http.Request) (func(stream string) bool, error) {
	a := &s.config.Access
	if a.Verifier == nil {
		return func(string) bool { return true }, nil
	}
	if err := s.checkURL(r); err != nil {
		return nil, err
	}
	granted, err := s.verify(r)
	if err != nil && len(a.Anonymous.Subscribe) == 0 {
		return nil, err
	}
	return func(stream string) bool {
		return a.Anonymous.Subscribe.Match(stream) || granted.Subscribe.Match(stream)
	}, nil
}

// checkURL refuses a token where logs and histories would keep it.
func (s *Server) checkURL(r *http.Request) error {
	q := r.URL.Query()
	for _, name := range []string{"access_token", "token"} {
		if q.Has(name) {
			return badRequest("a token in the URL is not taken, as logs and histories keep it, and so may have this one: %s", s.howToSend())
		}
	}
	return nil
}

// verify returns what the request's token grants.
func (s *Server) verify(r *http.Request) (access.Grants, error) {
	token, fromCookie, err := s.token(r)
	if err != nil {
		return access.Grants{}, err
	}
	// A browser adds a cookie to whatever a page of any site sends, and tells of the page
	// in one of these, by which the server has judged it.
	if safe := r.Method == http.MethodGet || r.Method == http.MethodHead; fromCookie && !safe &&
		r.Header.Get("Origin") == "" && r.Header.Get("Sec-Fetch-Site") == "" {
		return access.Grants{}, &refusal{http.StatusForbidden, "with a token in a cookie, the request must tell its Origin, as browsers do; other clients send the token as the header Authorization: Bearer"}
	}
	granted, err := s.config.Access.Verifier.Verify(r.Context(), token)
	if err == nil || errors.Is(err, access.ErrUnavailable) {
		return granted, err
	}
	s.config.Log.Debug().Err(err).Str("addr", r.RemoteAddr).Msg("a token was refused")
	detail := access.ErrInvalid.Error()
	if !errors.Is(err, access.ErrInvalid) {
		detail = err.Error()
	}
	return granted, &denial{http.StatusUnauthorized, fmt.Sprintf(`error="invalid_token", error_description=%q`, detail), detail}
}

// token returns the token of the request: the header's, or else the cookie's.
func (s *Server) token(r *http.Request) (token string, fromCookie bool, err error) {
	for _, header := range r.Header.Values("Authorization") {
		scheme, credentials, _ := strings.Cut(header, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			continue
		}
		if token != "" {
			return "", false, badRequest("the header Authorization: Bearer is given more than once")
		}
		token = strings.Trim(credentials, " ")
	}
	if name := s.config.Access.Cookie; token == "" && name != "" {
		cookies := r.CookiesNamed(name)
		if len(cookies) > 1 { // one may be another site's, for this one's whole domain
			return "", false, badRequest("there is more than one cookie %s", name)
		}
		if len(cookies) == 1 {
			token, fromCookie = cookies[0].Value, true
		}
	}
	if token == "" {
		return "", false, &denial{http.StatusUnauthorized, "", "this needs a token: " + s.howToSend()}
	}
	return token, fromCookie, nil
}

// howToSend says how to send a token.
func (s *Server) howToSend() string {
	how := "send it as the header Authorization: Bearer"
	if name := s.config.Access.Cookie; name != "" {
		how += ", or in the cookie " + name
	}
	return how
}

// A denial is a refusal of somebody who may not, or who is not known (RFC 6750).
type denial struct {
	status    int
	challenge string // what is wrong, as for WWW-Authenticate
	detail    string
}

func (e *denial) Error() string { return e.detail }

// deny answers a request that is not allowed.
func (s *Server) deny(w http.ResponseWriter, r *http.Request, err error) {
	var denied *denial
	switch {
	case errors.As(err, &denied):
		challenge := `Bearer realm="lastevent"`
		if denied.challenge != "" {
			challenge += ", " + denied.challenge
		}
		w.Header().Set("WWW-Authenticate", challenge)
		problem(w, denied.status, denied.detail)
	case !errors.Is(err, access.ErrUnavailable):
		s.fail(w, r, err)
	case follows(r):
		abort(w, r) // any answer would stop an EventSource for good
	default:
		w.Header().Set("Retry-After", "5")
		problem(w, http.StatusServiceUnavailable, access.ErrUnavailable.Error())
	}
}

// follows reports whether the request is one to stay subscribed.
func follows(r *http.Request) bool {
	q, err := parseQuery(r)
	if err != nil || r.Method != http.MethodGet || r.URL.Path == "/sse" && !q.Has("stream") {
		return false
	}
	follow, err := q.bool("follow", true)
	format, _ := negotiate(r.Header.Values("Accept"))
	return err == nil && follow && format == eventStream
}
