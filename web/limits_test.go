package web_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"lastevent/store"
	"lastevent/stream/sse"
	"lastevent/web"
)

// limited are limits, behind a proxy that tells whom requests are from.
func limited(l web.Limits) func(*web.Config) {
	return func(c *web.Config) {
		c.Limits = l
		if err := c.TrustedProxies.Add("unix"); err != nil {
			panic(err)
		}
	}
}

// isCut reads the rest of a response, which must be cut and without an event.
func (s *subscription) isCut(t testing.TB) {
	t.Helper()
	if m, err := s.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%+v, %v, want a cut", m, err)
	}
}

// turnedAway has a subscriber refused, and returns how long it is to stay away, and the ID
// that it goes on after.
func (s *host) turnedAway(t testing.TB, target string, headers ...string) (retry time.Duration, id string) {
	t.Helper()
	sub := s.subscribe(t, target, headers...)
	defer sub.Close()
	_ = sub.SetReadDeadline(time.Now().Add(time.Second)) // it may be cut already
	m := sub.next(t)
	if m.Type == "gap" {
		m = sub.next(t)
	}
	if m.Type != "position" {
		t.Errorf("begins with %+v", m)
	}
	sub.isCut(t)
	if m.Retry < 4*time.Second {
		t.Errorf("retry is %v", m.Retry)
	}
	return m.Retry, m.ID
}

// A client for which there is no place is cut after its beginning, without an event, and
// misses nothing when it resumes.
func TestMaxClients(t *testing.T) {
	inBubble(t, setup{retention: store.Retention{Events: 3}, config: limited(web.Limits{MaxClients: 2})}, func(t *testing.T, s *host) {
		s.publish(t, "x", "1", "2", "3", "4")
		one, two := s.subscribe(t, "/sse/x"), s.subscribe(t, "/sse/x")
		one.position(t)
		two.position(t)
		go io.Copy(io.Discard, two) // takes heartbeats
		synctest.Wait()

		for _, test := range []struct{ target, header, id string }{
			{"/sse/x", "", "4"},
			{"/sse/x?from=earliest", "", "1"},
			{"/sse/x?from=-2&limit=2", "", "2"},
			{"/sse/x", "2", "2"},
			{"/sse/x", "0", "1"}, // with a gap
			{"/sse?stream=x&stream=y&from=earliest", "", "1.0"},
		} {
			if _, id := s.turnedAway(t, test.target, "Last-Event-ID: "+test.header); id != test.id {
				t.Errorf("%s goes on after %s, want %s", test.target, id, test.id)
			}
		}
		_, id := s.turnedAway(t, "/sse/x?from=-2")
		s.publish(t, "x", "5")
		one.Close()
		synctest.Wait()
		time.Sleep(30 * time.Second) // a heartbeat tells
		synctest.Wait()
		again := s.subscribe(t, "/sse/x?from=-2", "Last-Event-ID: "+id)
		again.position(t)
		for want := range 3 {
			if m := again.next(t); m.ID != strconv.Itoa(want+3) {
				t.Errorf("%+v, want ID %d", m, want+3)
			}
		}
		s.turnedAway(t, "/sse/x")
	})
}

// Reads that end count, too, and are refused by a status.
func TestMaxClientsOfReads(t *testing.T) {
	inBubble(t, setup{config: limited(web.Limits{MaxClients: 1})}, func(t *testing.T, s *host) {
		for range 10 {
			s.publish(t, "x", strings.Repeat("x", 900))
		}
		slow := s.send(t, "GET /sse/x?follow=false") // takes nothing
		synctest.Wait()
		s.turnedAway(t, "/sse/x")
		for _, target := range []string{"/sse/x?follow=false", "/sse/x?follow=false&from=earliest&limit=1"} {
			w := s.do(t, "GET", target, "")
			isProblem(t, w, 429)
			if after, err := strconv.Atoi(w.Header().Get("Retry-After")); err != nil || after < 4 {
				t.Errorf("Retry-After: %q", w.Header().Get("Retry-After"))
			}
		}
		if w := s.do(t, "HEAD", "/sse/x", ""); w.Code != 200 {
			t.Errorf("HEAD: %d", w.Code)
		}
		head := slow.response(t)
		if body, err := io.ReadAll(head.Body); err != nil || !strings.Contains(string(body), `"id":10`) {
			t.Errorf("%q, %v", body, err)
		}
		if w := s.do(t, "GET", "/sse/x?follow=false", ""); w.Code != 200 {
			t.Errorf("when it has left: %d", w.Code)
		}
		s.subscribe(t, "/sse/x").position(t)
	})
}

func TestMaxClientsPerAddress(t *testing.T) {
	inBubble(t, setup{config: limited(web.Limits{MaxClientsPerAddress: 1})}, func(t *testing.T, s *host) {
		from := func(addr string) string { return "X-Forwarded-For: " + addr }
		var subs []*subscription
		for _, addr := range []string{"203.0.113.1", "203.0.113.2", "2001:db8::1", "2001:db8:0:1::1", "", ""} {
			sub := s.subscribe(t, "/sse/x", from(addr))
			sub.position(t)
			subs = append(subs, sub)
		}
		for _, addr := range []string{"203.0.113.1", "198.51.100.9, 203.0.113.2", "::ffff:203.0.113.1", "203.0.113.1:1234", "2001:db8::2", "[2001:db8:0:1::3]:80"} {
			s.turnedAway(t, "/sse/x", from(addr))
			w := s.do(t, "GET", "/sse/x?follow=false", "", from(addr))
			isProblem(t, w, 429)
		}
		subs[2].Close()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		s.subscribe(t, "/sse/x", from("2001:db8::3")).position(t)
		s.turnedAway(t, "/sse/x", from("2001:db8::1"))
	})
}

// The more are refused, the longer they stay away: they take turns.
func TestRefusedTakeTurns(t *testing.T) {
	inBubble(t, setup{config: limited(web.Limits{MaxClients: 1})}, func(t *testing.T, s *host) {
		sub := s.subscribe(t, "/sse/x")
		sub.position(t)
		go io.Copy(io.Discard, sub) // takes heartbeats
		const refused, turns = 1500, 500
		for i := range refused {
			retry, _ := s.turnedAway(t, "/sse/x")
			least := 4*time.Second + time.Duration(i)*time.Second/turns
			if retry < least || retry > least+5*time.Second {
				t.Fatalf("client %d is to stay away for %v", i, retry)
			}
		}
		time.Sleep(time.Minute)
		if retry, _ := s.turnedAway(t, "/sse/x"); retry > 9*time.Second {
			t.Errorf("when all have had their turns: %v", retry)
		}
	})
}

// An address that publishes too often is refused, and nothing of that is stored.
func TestMaxPublishesPerSecond(t *testing.T) {
	inBubble(t, setup{config: limited(web.Limits{MaxPublishesPerSecond: 2})}, func(t *testing.T, s *host) {
		from := func(addr string) string { return "X-Forwarded-For: " + addr }
		refused := func(method, body string) {
			t.Helper()
			w := s.do(t, method, "/sse/x", body, from("203.0.113.1"))
			isProblem(t, w, 429)
			if after := w.Header().Get("Retry-After"); after != "1" {
				t.Errorf("Retry-After: %q", after)
			}
		}
		batch := strings.Repeat(`{"data":1}`+"\n", 10)
		if w := s.do(t, "POST", "/sse/x", batch, from("203.0.113.1"), "Content-Type: application/x-ndjson"); w.Code != 201 {
			t.Errorf("a batch is one request: %d", w.Code)
		}
		if w := s.do(t, "DELETE", "/sse/x", "", from("203.0.113.1")); w.Code != 204 {
			t.Errorf("DELETE: %d", w.Code)
		}
		refused("POST", "too much")
		refused("DELETE", "")
		for range 10 {
			s.publish(t, "x", "without an address")
		}
		if w := s.do(t, "POST", "/sse/x", "another's", from("203.0.113.2")); w.Code != 201 {
			t.Errorf("another address: %d", w.Code)
		}
		time.Sleep(time.Second)
		if w := s.do(t, "POST", "/sse/x", "now", from("203.0.113.1")); w.Code != 201 {
			t.Errorf("a second later: %d", w.Code)
		}
		if last := s.last(t, "x"); last != 22 {
			t.Errorf("last is %d", last)
		}
	})
}

// The rest of a large body that is refused is not waited for.
func TestRefusedBody(t *testing.T) {
	s := overTCP(t, setup{config: func(c *web.Config) { c.Limits.MaxPublishesPerSecond = 1 }})
	for _, status := range []int{201, 429} {
		w := s.send(t, "POST /sse/x", "Content-Length: 5")
		if _, err := io.WriteString(w, "short"); err != nil {
			t.Fatal(err)
		}
		if head := w.response(t); head.StatusCode != status || head.Close {
			t.Errorf("%s, close is %v", head.Status, head.Close)
		}
	}
	w := s.send(t, "POST /sse/x", "Content-Length: 10000000")
	if head := w.response(t); head.StatusCode != 429 || !head.Close {
		t.Errorf("%s, close is %v", head.Status, head.Close)
	}
	if last := s.last(t, "x"); last != 1 {
		t.Errorf("last is %d", last)
	}
}

// Addresses that publish no more are forgotten.
func TestPacesAreForgotten(t *testing.T) {
	inBubble(t, setup{config: limited(web.Limits{MaxPublishesPerSecond: 1})}, func(t *testing.T, s *host) {
		for i := range 5000 {
			if i%1000 == 0 {
				time.Sleep(2 * time.Second)
			}
			// 404 or 400 would do, but for the limit being looked at first.
			s.do(t, "POST", "/sse/x?event=a&event=b", "", fmt.Sprintf("X-Forwarded-For: 2001:db8:%x::1", i))
		}
		if n := web.Paces(s.Server); n < 1000 || n > 2100 {
			t.Errorf("%d are remembered", n)
		}
	})
}

// Live or not, a subscription is cut at its age, and its client misses nothing.
func TestMaxConnectionAge(t *testing.T) {
	const age = time.Minute
	inBubble(t, setup{config: limited(web.Limits{MaxConnectionAge: age})}, func(t *testing.T, s *host) {
		s.publish(t, "x", "1", "2", "3")
		begun := time.Now()
		s.send(t, "GET /sse/x?from=earliest") // takes nothing, so that the write is under way
		var cut []time.Duration
		for range 20 {
			sub := s.subscribe(t, "/sse/x?from=-2")
			sub.position(t)
			var last sse.Message
			_ = sub.SetReadDeadline(begun.Add(2 * age)) // it may be cut already
			m, err := sub.Next()
			for ; err == nil; m, err = sub.Next() {
				last = m
			}
			if last.ID != "3" {
				t.Errorf("the last is %+v", last)
			}
			cut = append(cut, time.Since(begun))
			begun = time.Now()
		}
		same := true
		for _, d := range cut {
			if d < age-age/10 || d > age+age/10 {
				t.Errorf("cut after %v", d)
			}
			same = same && d == cut[0]
		}
		if same {
			t.Error("all are of the same age")
		}
		synctest.Wait()
		if n := web.Clients(s.Server); n != 0 {
			t.Errorf("%d clients are left", n)
		}
	})
}

// overHTTP2 serves over HTTP/2 without TLS, and returns a client that tells how many
// connections it has made.
func overHTTP2(t *testing.T, s *host) (client *http.Client, dials func() int64) {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &http.Server{Handler: s, Protocols: protocols, ConnContext: s.ConnContext}
	go func() { _ = h.Serve(l) }() // until it is closed
	var dialed atomic.Int64
	transport := &http.Transport{Protocols: protocols, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		dialed.Add(1)
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = h.Close()
	})
	s.addr = l.Addr().String()
	return &http.Client{Transport: transport}, dialed.Load
}

// Over HTTP/2, a client whose subscription was cut for its age goes to another connection.
func TestMaxConnectionAgeOverHTTP2(t *testing.T) {
	s := newHost(t, setup{config: func(c *web.Config) { c.Limits.MaxConnectionAge = 200 * time.Millisecond }})
	client, dials := overHTTP2(t, s)
	s.publish(t, "x", "1")
	id := ""
	for range 50 {
		if dials() >= 4 {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, "GET", "http://"+s.addr+"/sse/x?from=earliest", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Last-Event-ID", id)
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		events := sse.NewReader(res.Body, 1000)
		for {
			m, err := events.Next()
			if err == io.EOF {
				t.Fatal("it has ended and was not cut")
			}
			if err != nil {
				break
			}
			id = m.ID
		}
		res.Body.Close()
		if id != "1" {
			t.Fatalf("the ID is %q", id)
		}
	}
	t.Errorf("it has made %d connections", dials())
}

// The log tells once a minute that a limit refuses somebody, and each at debug.
func TestRefusalsAreLogged(t *testing.T) {
	var log bytes.Buffer
	inBubble(t, setup{config: func(c *web.Config) {
		limited(web.Limits{MaxClients: 1, MaxPublishesPerSecond: 1})(c)
		c.Log = zerolog.New(zerolog.SyncWriter(&log))
	}}, func(t *testing.T, s *host) {
		sub := s.subscribe(t, "/sse/x")
		sub.position(t)
		go io.Copy(io.Discard, sub) // takes heartbeats
		for range 3 {
			s.turnedAway(t, "/sse/x", "X-Forwarded-For: 203.0.113.7")
			s.do(t, "POST", "/sse/x", "1", "X-Forwarded-For: 203.0.113.7")
		}
		synctest.Wait()
		for what, want := range map[string]int{
			`"level":"warn"`: 2,
			`"level":"warn","error":"there are as many clients as --max-clients allows","addr":"203.0.113.7"`: 1,
			`"level":"debug","error":"this address publishes more often`:                                      2,
			`"reason":"overload","error":"there are as many clients as --max-clients allows","message":"cut"`: 3,
		} {
			if n := strings.Count(log.String(), what); n != want {
				t.Errorf("%s is there %d times, want %d", what, n, want)
			}
		}
		time.Sleep(2 * time.Minute)
		s.turnedAway(t, "/sse/x")
		synctest.Wait()
		if n := strings.Count(log.String(), `"level":"warn"`); n != 3 {
			t.Errorf("%d warnings after two minutes", n)
		}
		if t.Failed() {
			t.Log(log.String())
		}
	})
}
