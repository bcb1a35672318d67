package client_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lastevent/cmd/lastevent/internal/client"
)

// A script is a server that answers each request with the next of its answers. It keeps
// when which requests came.
type script struct {
	t       *testing.T
	began   time.Time
	answers []answer
	calls   []call
}

// An answer is a response, or none at all.
type answer struct {
	status int    // 0: the connection is refused
	header string // "Name: value"
	body   string
	then   error // what the body ends with; errOpen: it does not end
}

// A call is a request, and how long after the script's beginning it came.
type call struct {
	at    time.Duration
	query string
	key   string
	auth  string
	body  string
}

var (
	errRefused = errors.New("connection refused")
	errOpen    = errors.New("stays open")
)

// server returns the scripted server. It runs in a bubble of its own.
func (s *script) server(token func() (string, error)) *client.Server {
	s.began = time.Now()
	server, err := client.NewServer("http://example.com/below/", token)
	if err != nil {
		s.t.Fatal(err)
	}
	return server.Via(s)
}

func noToken() (string, error) { return "", nil }

func (s *script) RoundTrip(req *http.Request) (*http.Response, error) {
	c := call{at: time.Since(s.began), query: req.URL.RawQuery, key: req.Header.Get("Idempotency-Key"), auth: req.Header.Get("Authorization")}
	if req.Body != nil {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		c.body = string(body)
	}
	if want := "/below/sse/s"; req.URL.Path != want {
		s.t.Errorf("the path is %s, want %s", req.URL.Path, want)
	}
	if len(s.calls) == len(s.answers) {
		s.t.Fatalf("there is one call too many: %+v after %+v", c, s.calls)
	}
	s.calls = append(s.calls, c)
	a := s.answers[len(s.calls)-1]
	if a.status == 0 {
		return nil, errRefused
	}
	res := &http.Response{StatusCode: a.status, Status: fmt.Sprint(a.status), Header: http.Header{}, Request: req}
	name, value, _ := strings.Cut(a.header, ": ")
	res.Header.Set(name, value)
	res.Body = io.NopCloser(io.MultiReader(strings.NewReader(a.body), readerFunc(func([]byte) (int, error) {
		switch a.then {
		case nil:
			return 0, io.EOF
		case errOpen:
			<-req.Context().Done()
			return 0, req.Context().Err()
		}
		return 0, a.then
	})))
	return res, nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// pauses returns the time between the calls.
func (s *script) pauses() (d []time.Duration) {
	for i, c := range s.calls[1:] {
		d = append(d, c.at-s.calls[i].at)
	}
	return d
}

// checkPauses checks that each pause is as long as the backoff of this base may be.
func (s *script) checkPauses(base time.Duration) {
	s.t.Helper()
	for i, d := range s.pauses() {
		if most := min(base<<i, 15*time.Second); d < most/2 || d > most {
			s.t.Errorf("pause %d is %v, want %v to %v", i+1, d, most/2, most)
		}
	}
}

func TestBackoff(t *testing.T) {
	seen := map[time.Duration]bool{}
	for failures := 1; failures < 100; failures++ {
		d := client.Backoff(time.Second, failures)
		most := 15 * time.Second
		if failures < 5 {
			most = time.Second << (failures - 1)
		}
		if d < most/2 || d > most {
			t.Errorf("after %d failures: %v, want %v to %v", failures, d, most/2, most)
		}
		seen[d] = true
	}
	if len(seen) < 90 {
		t.Errorf("%d different pauses: there is no jitter", len(seen))
	}
}

func TestServerURL(t *testing.T) {
	for url, ok := range map[string]bool{
		"http://localhost:8080": true, "https://example.com/": true, "https://example.com/events": true,
		"": false, "localhost:8080": false, "ftp://example.com": false, "http://": false, "http://a?b": false, "http://a#b": false, "http://a b": false,
	} {
		if _, err := client.NewServer(url, noToken); (err == nil) != ok {
			t.Errorf("%q: %v", url, err)
		}
	}
}

// bubble runs a test with a clock of its own.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}
