package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"lastevent/cmd/lastevent/internal/client"
)

var (
	stored  = answer{status: 201, body: `{"id":7,"count":2}`}
	refused = answer{}
)

func problem(status int, detail string) answer {
	return answer{status: status, header: "Content-Type: application/problem+json", body: fmt.Sprintf(`{"detail":%q}`, detail)}
}

// publish publishes to a scripted server, and returns what the last publish did.
func publish(t *testing.T, batches int, answers ...answer) (s *script, failures int, err error) {
	s = &script{t: t, answers: answers}
	p := &client.Publisher{Server: s.server(noToken), Stream: "s", Waiting: func(error, int) { failures++ }}
	for n := range batches {
		var r client.Receipt
		r, err = p.Publish(t.Context(), client.Batch{Key: fmt.Sprint("k", n), Type: "a b", Body: []byte("x"), Lines: true})
		if err == nil && (r != client.Receipt{ID: 7, Count: 2}) {
			t.Errorf("the receipt is %+v", r)
		}
	}
	if len(s.calls) != len(answers) {
		t.Errorf("there were %d calls, want %d", len(s.calls), len(answers))
	}
	return s, failures, err
}

func TestPublishTriesUntilStored(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cut := answer{status: 201, body: `{"id":7`, then: io.ErrUnexpectedEOF}
		s, failures, err := publish(t, 1, refused, problem(500, "unknown"), answer{status: 502}, cut, problem(408, ""), problem(504, ""), stored)
		if err != nil || failures != 6 {
			t.Errorf("%v after %d failures", err, failures)
		}
		for _, c := range s.calls {
			if c.key != "k0" || c.query != "event=a+b" || c.body != "x" {
				t.Errorf("a try is %+v", c)
			}
		}
		s.checkPauses(200 * time.Millisecond)
	})
}

func TestPublishWaitsAsLongAsAsked(t *testing.T) {
	bubble(t, func(t *testing.T) {
		at := time.Now().Add(time.Hour + 30*time.Second).UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")
		s, _, err := publish(t, 1,
			answer{status: 429, header: "Retry-After: 30"}, answer{status: 503, header: "Retry-After: " + at}, answer{status: 503, header: "Retry-After: soon"}, stored)
		if err != nil {
			t.Fatal(err)
		}
		if d := s.pauses(); d[0] < 30*time.Second || d[0] > 31*time.Second || d[1] < 59*time.Minute || d[1] > 61*time.Minute || d[2] > time.Second {
			t.Errorf("the pauses are %v", d)
		}
	})
}

func TestPublishIsRefused(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404, 405, 409, 413, 415, 422, 501, 507} {
		bubble(t, func(t *testing.T) {
			_, _, err := publish(t, 1, problem(status, "so it is"))
			if e, ok := errors.AsType[*client.Error](err); !ok || e.Status != status || e.Error() != fmt.Sprintf("%d: so it is", status) {
				t.Errorf("of %d: %v", status, err)
			}
		})
	}
	for name, a := range map[string]answer{
		"301: the server is elsewhere: https://example.com/":        {status: 301, header: "Location: https://example.com/"},
		"200: this is not how lastevent answers; is the URL right?": {status: 200, header: "Content-Type: text/html", body: "<html>"},
		"413 Request Entity Too Large":                              {status: 413, header: "Content-Type: text/html", body: "<html>"},
	} {
		bubble(t, func(t *testing.T) {
			if _, _, err := publish(t, 1, a); err == nil || err.Error() != name {
				t.Errorf("%v, want %s", err, name)
			}
		})
	}
}

// A disk that is full after something was stored is not the limit of streams.
func TestPublishWaitsForRoom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		if _, failures, err := publish(t, 2, stored, problem(507, "full"), stored); err != nil || failures != 1 {
			t.Errorf("%v after %d failures", err, failures)
		}
	})
}

// A server that takes the request and never answers is given up, and asked again.
func TestPublishTimesOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, _, err := publish(t, 1, answer{status: 201, then: errOpen}, stored)
		if d := s.pauses()[0]; err != nil || d < time.Minute || d > 2*time.Minute {
			t.Errorf("%v, and asked again after %v", err, d)
		}
	})
}

func TestPublishStopsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		why := errors.New("why")
		ctx, cancel := context.WithCancelCause(t.Context())
		s := &script{t: t, answers: []answer{refused}}
		p := &client.Publisher{Server: s.server(noToken), Stream: "s", Waiting: func(error, int) { cancel(why) }}
		if _, err := p.Publish(ctx, client.Batch{Key: "k"}); err != why {
			t.Errorf("%v, want the cause", err)
		}
	})
}

// A token may be renewed while publishing goes on.
func TestTokenIsAskedForAtEachRequest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &script{t: t, answers: []answer{refused, stored}}
		n := 0
		token := func() (string, error) { n++; return fmt.Sprint("token", n), nil }
		p := &client.Publisher{Server: s.server(token), Stream: "s", Waiting: func(error, int) {}}
		if _, err := p.Publish(t.Context(), client.Batch{Key: "k"}); err != nil {
			t.Fatal(err)
		}
		if a, b := s.calls[0].auth, s.calls[1].auth; a != "Bearer token1" || b != "Bearer token2" {
			t.Errorf("sent %q and %q", a, b)
		}
	})
}
