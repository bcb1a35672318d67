// Package client is how the command line calls a server: a [Publisher] that tries
// until it is told that its events are durable, and a [Follower] that resumes where
// it was.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// answerTimeout is how long a server may take to begin its answer. It answers a
// subscriber at once, and a publisher after a sync.
const answerTimeout = 30 * time.Second

// A Server is where streams are.
type Server struct {
	base   *url.URL
	token  func() (string, error)
	client *http.Client
}

// NewServer returns the server at a URL, which may have a path that a proxy takes off.
// The token is asked for at each request, as it may be renewed meanwhile; it is empty
// where there is none.
func NewServer(base string, token func() (string, error)) (*Server, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q is not one like http://localhost:8080 or https://HOST", base)
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = answerTimeout
	transport.DisableCompression = true // an event must not wait in a compressor
	transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: answerTimeout, PingTimeout: answerTimeout}
	return &Server{u, token, &http.Client{Transport: transport, CheckRedirect: notRedirected}}, nil
}

// notRedirected has a redirect be an answer: a POST would become a GET, and the token
// go to somebody else.
func notRedirected(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Via returns the same server, called by another client, which should not follow
// redirects.
func (s *Server) Via(c http.RoundTripper) *Server {
	return &Server{s.base, s.token, &http.Client{Transport: c, CheckRedirect: notRedirected}}
}

// Do calls the server. The path is that below its URL; the header is names and values
// in turn. The answer is one of success, or the error is an [*Error] or the connection's.
func (s *Server) Do(ctx context.Context, method, path string, q url.Values, body []byte, header ...string) (*http.Response, error) {
	u := *s.base
	u.Path += path
	u.RawQuery = q.Encode()
	var content io.Reader // nil, and not a reader of nothing, has no type
	if body != nil {
		content = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), content)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	token, err := s.token()
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		defer res.Body.Close()
		return nil, refusal(res)
	}
	return res, nil
}

// Streams returns the names of all streams that begin so.
func (s *Server) Streams(ctx context.Context, prefix string) (names []string, err error) {
	res, err := s.Do(ctx, "GET", "/sse", nil, nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var streams []struct{ Name string }
	if err := json.NewDecoder(res.Body).Decode(&streams); err != nil {
		return nil, err
	}
	for _, st := range streams {
		if strings.HasPrefix(st.Name, prefix) {
			names = append(names, st.Name)
		}
	}
	return names, nil
}

// An Error is an answer other than success.
type Error struct {
	Status int
	Detail string        // in the server's words; empty where it has none
	After  time.Duration // how long it asks to wait before the next try
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status))
	}
	return fmt.Sprintf("%d: %s", e.Status, e.Detail)
}

// refusal reads an answer other than success.
func refusal(res *http.Response) *Error {
	e := &Error{Status: res.StatusCode, After: retryAfter(res.Header.Get("Retry-After"))}
	var problem struct{ Detail string }
	if json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&problem) == nil {
		e.Detail = problem.Detail
	}
	if to := res.Header.Get("Location"); e.Detail == "" && res.StatusCode < 400 {
		e.Detail = "the server is elsewhere: " + to
	}
	return e
}

// retryAfter reads a header Retry-After: seconds, or a time.
func retryAfter(s string) time.Duration {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	at, err := http.ParseTime(s)
	if err != nil {
		return 0
	}
	return max(0, time.Until(at))
}

// temporary reports whether the same request may succeed later: where there was no
// answer, the server is overloaded or about to restart, or a proxy has none behind it.
func temporary(err error) bool {
	if _, refused := errors.AsType[*tls.CertificateVerificationError](err); refused {
		return false
	}
	e, answered := errors.AsType[*Error](err)
	if !answered {
		return true
	}
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported, http.StatusInsufficientStorage:
		return false
	}
	return e.Status >= 500
}
