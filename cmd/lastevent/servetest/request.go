//go:build unix

package servetest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// ErrBroken is a broken promise: the server's fault, not the connection's.
var ErrBroken = errors.New("broken promise")

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrBroken}, args...)...)
}

// An Answer is a whole response.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Request prepares a request. The header is names and values in turn.
func (s *Server) Request(ctx context.Context, method, path, body string, header ...string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.URL+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	req.Host = cmp.Or(req.Header.Get("Host"), req.Host)
	return req, nil
}

func (s *Server) try(method, path, body string, header ...string) (Answer, error) {
	req, err := s.Request(s.Ctx, method, path, body, header...)
	if err != nil {
		return Answer{}, err
	}
	res, err := s.HTTP.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		return Answer{}, fmt.Errorf("%w after %q", err, got)
	}
	return Answer{res.StatusCode, res.Header, string(got)}, nil
}

// Do sends a request, and returns the answer once it is complete.
func (s *Server) Do(method, path, body string, header ...string) Answer {
	s.t.Helper()
	a, err := s.try(method, path, body, header...)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// CheckProblem checks that a request was refused with the status, and in words.
func (s *Server) CheckProblem(a Answer, status int) {
	s.t.Helper()
	var problem struct{ Detail string }
	err := json.Unmarshal([]byte(a.Body), &problem)
	if typ := a.Header.Get("Content-Type"); a.Status != status || typ != "application/problem+json" || err != nil || problem.Detail == "" {
		s.t.Errorf("status %d, type %q, %q; want %d with a problem's detail", a.Status, typ, a.Body, status)
	}
}

// Bounds asks for a stream's first and last.
func (s *Server) Bounds(stream string) (first, last uint64) {
	s.t.Helper()
	a := s.Do("HEAD", "/sse/"+stream, "")
	first, err := strconv.ParseUint(a.Header.Get("Stream-First-Id"), 10, 64)
	last, err2 := strconv.ParseUint(a.Header.Get("Stream-Last-Id"), 10, 64)
	if a.Status != http.StatusOK || err != nil || err2 != nil {
		s.t.Fatalf("HEAD /sse/%s: %d %v", stream, a.Status, a.Header)
	}
	return first, last
}

// LogID is the name of the file's numbering.
func (s *Server) LogID() string { return s.Do("HEAD", "/sse/any", "").Header.Get("Stream-Log") }

// A Receipt is the answer to a publish that is durable.
type Receipt struct {
	ID, Count uint64 // of the last event; how many
	Replayed  bool   `json:"-"`
}

// Post publishes. An error that is ErrBroken is a refusal, which trying again does
// not mend; after any other it is unknown whether something is stored.
func (s *Server) Post(path, body string, header ...string) (r Receipt, err error) {
	a, err := s.try("POST", path, body, header...)
	switch {
	case err != nil:
		return r, err
	case a.Status >= 500:
		return r, fmt.Errorf("publishing: %d %q", a.Status, a.Body)
	}
	if err := json.Unmarshal([]byte(a.Body), &r); err != nil || a.Status != http.StatusCreated {
		return r, broken("publishing: %d %q", a.Status, a.Body)
	}
	r.Replayed = a.Header.Get("Idempotency-Replayed") == "true"
	return r, nil
}

// MustPost is Post where nothing can go wrong.
func (s *Server) MustPost(path, body string, header ...string) Receipt {
	s.t.Helper()
	r, err := s.Post(path, body, header...)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// An Event is what is published and comes back.
type Event struct {
	Type string `json:"event"`
	Data string `json:"data"`
}

// Publish publishes one event. Without an error it is acknowledged.
func (s *Server) Publish(stream string, e Event) (id uint64, err error) {
	r, err := s.Post("/sse/"+stream+"?event="+url.QueryEscape(e.Type), e.Data)
	if err == nil && r.Count != 1 {
		err = broken("the receipt of one event counts %d", r.Count)
	}
	return r.ID, err
}

// MustPublish publishes events of type message, which must get consecutive IDs up
// to last.
func (s *Server) MustPublish(stream string, last uint64, data ...string) {
	s.t.Helper()
	for i, d := range data {
		id, err := s.Publish(stream, Event{"message", d})
		if want := last - uint64(len(data)-1-i); err != nil || id != want {
			s.t.Fatalf("publishing: ID %d, %v; want ID %d", id, err, want)
		}
	}
}

// Numbered is n different data, from "event 1" on.
func Numbered(n int) []string {
	data := make([]string, n)
	for i := range data {
		data[i] = fmt.Sprint("event ", i+1)
	}
	return data
}

// Lines is a batch of events.
func Lines(events ...Event) string {
	var body strings.Builder
	lines := json.NewEncoder(&body)
	for _, e := range events {
		_ = lines.Encode(e) // text has no error
	}
	return body.String()
}

// Dial opens a connection for a request written by hand.
func (s *Server) Dial() net.Conn {
	s.t.Helper()
	conn, err := s.dial(s.Ctx, "", "")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	deadline, _ := s.Ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		s.t.Fatal(err)
	}
	return conn
}

// Send writes a request, or a part of one.
func (s *Server) Send(conn net.Conn, text string) {
	s.t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		s.t.Fatal(err)
	}
}

// ReadBlock reads up to the end of the first event.
func (s *Server) ReadBlock(r io.Reader) string {
	s.t.Helper()
	var got strings.Builder
	for b := make([]byte, 1); !strings.HasSuffix(got.String(), "\n\n"); {
		if _, err := r.Read(b); err != nil {
			s.t.Fatalf("%v after %q", err, got.String())
		}
		got.Write(b)
	}
	return got.String()
}
