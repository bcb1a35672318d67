package web_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"lastevent/store"
	"lastevent/stream"
	"lastevent/web"
)

const (
	mine   = "/demo/sse?client=0123456789abcdef"
	theirs = "/demo/sse?client=fedcba9876543210"
)

func withDemo(c *web.Config) { c.Demo = "time" }

// refused checks that a request gets no answer at all.
func (s *host) refused(t testing.TB, target string) {
	t.Helper()
	got, err := io.ReadAll(s.send(t, "GET "+target))
	if err != nil || len(got) > 0 {
		t.Fatalf("GET %s: answered with %q, %v", target, got, err)
	}
}

// isCutOff checks that what was subscribed to is cut, and not ended.
func (s *subscription) isCutOff(t testing.TB) {
	t.Helper()
	if m, err := s.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("not cut: %+v, %v", m, err)
	}
}

func TestDemoCut(t *testing.T) {
	inBubble(t, setup{config: withDemo}, func(t *testing.T, s *host) {
		s.publish(t, "time", "1", "2")
		cut, other, plain := s.subscribe(t, mine+"&lastEventId=1"), s.subscribe(t, theirs), s.subscribe(t, "/sse/time?client=0123456789abcdef")
		for sub, at := range map[*subscription]string{cut: "1", other: "2", plain: "2"} {
			if got := sub.position(t); got != at {
				t.Errorf("goes on after %s, want %s", got, at)
			}
		}
		if m := cut.next(t); m.Data != "2" {
			t.Errorf("%+v", m)
		}

		if w := s.do(t, "POST", "/demo/cut?client=0123456789abcdef&for=3s", ""); w.Code != 204 {
			t.Fatalf("cutting: %d %s", w.Code, w.Body)
		}
		cut.isCutOff(t)
		s.publish(t, "time", "3")
		for _, sub := range []*subscription{other, plain} {
			if m := sub.next(t); m.Data != "3" {
				t.Errorf("%+v", m)
			}
		}

		s.refused(t, mine)
		time.Sleep(3*time.Second - 1)
		s.refused(t, mine+"&lastEventId=2")
		s.subscribe(t, theirs).position(t)
		time.Sleep(time.Nanosecond)
		if got := s.subscribe(t, mine+"&lastEventId=2").position(t); got != "2" {
			t.Errorf("resumes after %s", got)
		}
	})
}

// A second cut while the first lasts puts its end off.
func TestDemoCutAgain(t *testing.T) {
	inBubble(t, setup{config: withDemo}, func(t *testing.T, s *host) {
		for range 3 {
			if w := s.do(t, "POST", "/demo/cut?client=0123456789abcdef&for=10s", ""); w.Code != 204 {
				t.Fatalf("cutting: %d %s", w.Code, w.Body)
			}
			time.Sleep(9 * time.Second)
			s.refused(t, mine)
		}
		time.Sleep(time.Second)
		s.subscribe(t, mine).position(t)
	})
}

// What cuts cost is bounded: by their number and by their duration.
func TestDemoCutBounds(t *testing.T) {
	inBubble(t, setup{config: withDemo}, func(t *testing.T, s *host) {
		cut := func(i int) int { return s.do(t, "POST", fmt.Sprintf("/demo/cut?client=%016d&for=10s", i), "").Code }
		for i := range 256 {
			if code := cut(i); code != 204 {
				t.Fatalf("cut %d: %d", i, code)
			}
		}
		if code := cut(256); code != 429 {
			t.Errorf("one too many: %d", code)
		}
		if code := cut(255); code != 204 {
			t.Errorf("one that is cut already: %d", code)
		}
		time.Sleep(10 * time.Second)
		for i := range 256 {
			if code := cut(1000 + i); code != 204 {
				t.Fatalf("once the others are over: %d", code)
			}
		}
		for query, words := range map[string]string{
			"for=3s":                                        "client",
			"client=&for=3s":                                "client",
			"client=0123456789abcde&for=3s":                 "client",
			"client=0123456789abcde%20&for=3s":              "client",
			"client=" + strings.Repeat("x", 65) + "&for=3s": "client",
			"client=0123456789abcdef":                       "for",
			"client=0123456789abcdef&for=3":                 "for",
			"client=0123456789abcdef&for=999ms":             "for",
			"client=0123456789abcdef&for=10001ms":           "for",
			"client=0123456789abcdef&for=-3s":               "for",
		} {
			if detail := isProblem(t, s.do(t, "POST", "/demo/cut?"+query, ""), 400); !strings.Contains(detail, words) {
				t.Errorf("%s: %s", query, detail)
			}
		}
		for _, query := range []string{"", "?client=", "?client=short"} {
			isProblem(t, s.do(t, "GET", "/demo/sse"+query, ""), 400)
		}
	})
}

// Pages of other origins cannot cut, and there is nothing to cut where there is no demo.
func TestDemoGuards(t *testing.T) {
	s := newHost(t, setup{config: withDemo})
	const cut = "/demo/cut?client=0123456789abcdef&for=3s"
	for _, header := range []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Origin: http://evil.example"} {
		isProblem(t, s.do(t, "POST", cut, "", header), 403)
	}
	isProblem(t, s.do(t, "GET", cut, ""), 405)
	isProblem(t, s.do(t, "POST", mine, ""), 405)

	var demo struct {
		Stream       string
		Started, Now time.Time
	}
	if err := json.Unmarshal(s.do(t, "GET", "/demo", "").Body.Bytes(), &demo); err != nil ||
		demo.Stream != "time" || demo.Started.IsZero() || demo.Now.Before(demo.Started) || time.Since(demo.Now) > time.Minute {
		t.Errorf("%+v, %v", demo, err)
	}

	none := newHost(t, setup{})
	for _, request := range [][2]string{{"GET", "/demo"}, {"GET", mine}, {"POST", cut}} {
		isProblem(t, none.do(t, request[0], request[1], ""), 404)
	}
}

// A subscription that has begun, but that a cut does not find yet, is cut too.
func TestDemoCutRaces(t *testing.T) {
	during := func() {}
	o := setup{config: withDemo, log: func(log stream.Log) stream.Log { return asked{log, &during} }}
	inBubble(t, o, func(t *testing.T, s *host) {
		during = func() {
			if w := s.do(t, "POST", "/demo/cut?client=0123456789abcdef&for=3s", ""); w.Code != 204 {
				t.Errorf("cutting: %d %s", w.Code, w.Body)
			}
		}
		sub := s.subscribe(t, mine)
		sub.position(t)
		sub.isCutOff(t)
	})
}

// An asked log does something whenever it is asked for its bounds.
type asked struct {
	stream.Log
	do *func()
}

func (a asked) Bounds(ctx context.Context) (store.Bounds, error) {
	(*a.do)()
	return a.Log.Bounds(ctx)
}

// A connection that the demo page has cut is given up at once, though nothing happens
// on it any more.
func TestDemoCutsLive(t *testing.T) {
	s := overTCP(t, setup{config: func(c *web.Config) {
		withDemo(c)
		c.Heartbeat = time.Hour
	}})
	sub, other := s.subscribe(t, mine), s.subscribe(t, theirs)
	s.untilLive(t, 2)
	if w := s.do(t, "POST", "/demo/cut?client=0123456789abcdef&for=1s", ""); w.Code != 204 {
		t.Fatalf("cutting: %d %s", w.Code, w.Body)
	}
	sub.isOver(t, io.ErrUnexpectedEOF)
	s.untilClients(t, 1)
	s.publish(t, "time", "1")
	other.position(t)
	if m := other.next(t); m.Data != "1" {
		t.Errorf("%+v", m)
	}
}
