package web_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"lastevent/store"
	"lastevent/stream"
	"lastevent/stream/sse"
	"lastevent/web"
)

// dechunk splits a chunked body. It is complete when its last chunk is there, and
// nothing may follow that.
func dechunk(t *testing.T, raw []byte) (body []byte, complete bool) {
	t.Helper()
	for len(raw) > 0 {
		head, rest, ok := bytes.Cut(raw, []byte("\r\n"))
		n, err := strconv.ParseUint(string(head), 16, 32)
		if !ok || err != nil || uint64(len(rest)) < n+2 || string(rest[n:n+2]) != "\r\n" {
			t.Fatalf("not chunked: %.100q", raw)
		}
		body, raw = append(body, rest[:n]...), rest[n+2:]
		if n == 0 {
			if len(raw) > 0 {
				t.Fatalf("after the last chunk: %.100q", raw)
			}
			return body, true
		}
	}
	return body, false
}

// A whole response, as it goes over the wire.
func TestResponse(t *testing.T) {
	inBubble(t, setup{retention: store.Retention{Events: 3}}, func(t *testing.T, s *host) {
		s.publish(t, "x", "lost", "two", "three\r\nlines\rof data", "")
		w := s.send(t, "GET /sse/x?limit=5", "Last-Event-ID: 0")
		done := make(chan []byte)
		go func() {
			raw, err := io.ReadAll(w)
			if err != nil {
				t.Error(err)
			}
			done <- raw
		}()
		synctest.Wait()
		if got := s.do(t, "POST", "/sse/x?event=time", "live"); got.Code != 201 {
			t.Fatal(got.Code)
		}
		time.Sleep(15 * time.Second) // a heartbeat
		synctest.Wait()
		s.publish(t, "x", "the last of them")
		raw := <-done

		head, raw, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
		lines := strings.Split(string(head), "\r\n")
		if lines[0] != "HTTP/1.1 200 OK" {
			t.Errorf("status line %q", lines[0])
		}
		for _, want := range []string{
			"Content-Type: text/event-stream",
			"Cache-Control: no-cache, no-transform",
			"X-Accel-Buffering: no",
			"Transfer-Encoding: chunked",
			"Stream-First-Id: 2",
			"Stream-Last-Id: 4",
			"Stream-Log: " + s.db.ID(),
			"Date: Sat, 01 Jan 2000 00:00:00 GMT",
		} {
			name, _, _ := strings.Cut(want, ":")
			same := func(line string) bool { return strings.HasPrefix(line, name+":") }
			if i := slices.IndexFunc(lines, same); i < 0 || lines[i] != want {
				t.Errorf("no %q in %q", want, lines)
			} else if slices.ContainsFunc(lines[i+1:], same) {
				t.Errorf("%s twice in %q", name, lines)
			}
		}
		if strings.Contains(string(head), "Content-Length") {
			t.Errorf("a length in %q", lines)
		}

		body, complete := dechunk(t, raw)
		if !complete {
			t.Error("the response is not complete, though it has reached its limit")
		}
		retry := regexp.MustCompile(`^retry: 1\d\d\d\n|^retry: 2000\n`)
		if !retry.Match(body) {
			t.Errorf("begins with %.20q", body)
		}
		want := `event: gap
data: {"reason":"evicted","lastEventId":"0","first":2,"last":4,"missed":1}

event: position
id: 1
data: {"log":"` + s.db.ID() + `","first":2,"last":4}

id: 2
data: two

id: 3
data: three
data: lines
data: of data

id: 4
data: 

event: time
id: 5
data: live

:
id: 6
data: the last of them

`
		if got := string(retry.ReplaceAll(body, nil)); got != want {
			t.Errorf("got:\n%s\nwant:\n%s", got, want)
		}
	})
}

// A stream never written is empty, and asking for it writes nothing.
func TestNeverWritten(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, s *host) {
		file := func() []byte {
			p, err := os.ReadFile(s.file)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		before := file()
		sub := s.subscribe(t, "/sse/never")
		m := sub.next(t)
		if want := fmt.Sprintf(`{"log":%q,"first":1,"last":0}`, s.db.ID()); m.ID != "0" || m.Data != want {
			t.Errorf("begins with %+v, want %s", m, want)
		}
		for name, want := range map[string]string{"Stream-First-Id": "1", "Stream-Last-Id": "0"} {
			if got := sub.head.Header.Get(name); got != want {
				t.Errorf("%s is %q", name, got)
			}
		}
		if !bytes.Equal(file(), before) {
			t.Error("the file was written to")
		}
		s.publish(t, "never", "now")
		if m := sub.next(t); m.ID != "1" || m.Data != "now" {
			t.Errorf("got %+v", m)
		}
	})
}

func TestHead(t *testing.T) {
	s := overTCP(t, setup{retention: store.Retention{Events: 2}})
	s.publish(t, "x", "1", "2", "3")
	w := s.send(t, "HEAD /sse/x", "Last-Event-ID: 1", "Connection: close")
	raw, err := io.ReadAll(w)
	if err != nil {
		t.Fatal(err)
	}
	head, body, _ := strings.Cut(string(raw), "\r\n\r\n")
	if body != "" {
		t.Errorf("with a body: %q", body)
	}
	status, header, _ := strings.Cut(head, "\r\n")
	if status != "HTTP/1.1 200 OK" {
		t.Errorf("status line %q", status)
	}
	for name, want := range map[string]string{
		"Content-Type":      "text/event-stream",
		"Cache-Control":     "no-cache, no-transform",
		"X-Accel-Buffering": "no",
		"Stream-First-Id":   "2",
		"Stream-Last-Id":    "3",
		"Stream-Log":        s.db.ID(),
	} {
		if !strings.Contains("\r\n"+header+"\r\n", "\r\n"+textproto.CanonicalMIMEHeaderKey(name)+": "+want+"\r\n") {
			t.Errorf("no %s: %s in %q", name, want, header)
		}
	}
}

// HTTP/1.0 has no chunks: the end of the connection is the response's, and a cut
// is a reset.
func TestHTTP10(t *testing.T) {
	s := overTCP(t, setup{})
	s.publish(t, "x", "1", "2")

	w := s.send(t, "GET /sse/x?from=earliest&limit=2 HTTP/1.0")
	head := w.response(t)
	body, err := io.ReadAll(head.Body)
	if err != nil {
		t.Errorf("at the end: %v", err)
	}
	if head.StatusCode != 200 || len(head.TransferEncoding) > 0 {
		t.Errorf("got %+v", head)
	}
	if !bytes.HasPrefix(body, []byte("retry: ")) || !bytes.HasSuffix(body, []byte("\n\nid: 1\ndata: 1\n\nid: 2\ndata: 2\n\n")) {
		t.Errorf("got %q", body)
	}

	w.Close()

	w = s.send(t, "GET /sse/x?from=earliest HTTP/1.0")
	events := sse.NewReader(w.response(t).Body, 1000)
	for range 3 {
		if _, err := events.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if m, err := events.Next(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("when it is cut: %+v, %v, want a reset", m, err)
	}
}

// A connection that has served a request can subscribe.
func TestAfterAnotherRequest(t *testing.T) {
	s := overTCP(t, setup{})
	s.publish(t, "x", "1")
	w := s.send(t, "GET /healthz")
	if _, err := io.Copy(io.Discard, w.response(t).Body); err != nil {
		t.Fatal(err)
	}
	w.send(t, "GET /sse/x?from=earliest&limit=1")
	if body, err := io.ReadAll(w.response(t).Body); err != nil || !bytes.HasSuffix(body, []byte("id: 1\ndata: 1\n\n")) {
		t.Errorf("got %q, %v", body, err)
	}
}

func testFrom(t *testing.T, s *host, evicted int) {
	for range 3 {
		s.publish(t, "x", "data")
		time.Sleep(time.Minute)
	}
	for from, after := range map[string]int{
		"": 3, "latest": 3, "earliest": 0,
		"-1": 2, "-2": 1, "-3": 0, "-4": 0, "-007": 0, "-18446744073709551615": 0,
		"0s": 3, "1ns": 3, "59s": 3, "59.999999999s": 3, "60s": 2, "1m": 2, "61s": 2, "1m30s": 2, "1.5m": 2, "2m": 1, "3m": 0, "1h": 0, "2562047h": 0,
		"2000-01-01T00:00:00Z":                  0,
		"2000-01-01T00:00:00.000000001Z":        1,
		"2000-01-01T00:01:00Z":                  1,
		"2000-01-01T00:01:00.5Z":                2,
		"2000-01-01T02:01:00%2B02:00":           1,
		"2000-01-01T02:01:00+02:00":             1, // + is a space where it is not escaped
		"2000-01-01T02:01:00.25%2B02:00":        2,
		"1999-12-31T19:01:00-05:00":             1,
		"2000-01-01T00:02:00.000000001Z":        3,
		"2000-01-01T00:03:00Z":                  3,
		"1970-01-01T00:00:00Z":                  0,
		"1969-12-31T23:59:59Z":                  0,
		"0001-01-01T00:00:00Z":                  0,
		"0000-01-01T00:00:00Z":                  0,
		"9999-12-31T23:59:59.999999999Z":        3,
		"1600-01-01T00:00:00Z":                  0,
		"2300-01-01T00:00:00Z":                  3,
		"%32000-01-01T00%3A01%3A00Z":            1,
		"%65arliest":                            0,
		"2000-01-01T00:01:00.000000000Z":        1,
		"1999-12-31T23:59:59.999999999%2B00:00": 0,
	} {
		sub := s.subscribe(t, "/sse/x?from="+from)
		if id := sub.position(t); id != strconv.Itoa(max(after, evicted)) {
			t.Errorf("from=%s: after %s, want %d", from, id, max(after, evicted))
		}
		sub.Close()
	}
}

func TestLimit(t *testing.T) {
	s := overTCP(t, setup{})
	s.publish(t, "x", "1", "2", "3")
	for query, want := range map[string]int{
		"?from=earliest&limit=1":  1,
		"?from=earliest&limit=2":  2,
		"?from=earliest&limit=3":  3,
		"?lastEventId=1&limit=1":  1,
		"?from=earliest&limit=03": 3,
	} {
		sub := s.subscribe(t, "/sse/x"+query)
		sub.position(t)
		for range want {
			sub.next(t)
		}
		if m, err := sub.Next(); err != io.EOF {
			t.Errorf("%s: goes on with %+v, %v, and should have ended", query, m, err)
		}
	}
}

// retryOf reads the first line of a response.
func retryOf(t *testing.T, sub *subscription) time.Duration {
	t.Helper()
	return sub.next(t).Retry
}

// Clients that were cut together do not return together.
func TestRetry(t *testing.T) {
	inBubble(t, setup{config: func(c *web.Config) { c.Retry = 3 * time.Second }}, func(t *testing.T, s *host) {
		least, most := time.Hour, time.Duration(0)
		for range 200 {
			sub := s.subscribe(t, "/sse/x")
			retry := retryOf(t, sub)
			least, most = min(least, retry), max(most, retry)
			sub.Close()
		}
		if least < 3*time.Second || least > 3500*time.Millisecond || most < 5500*time.Millisecond || most > 6*time.Second {
			t.Errorf("retry is from %v to %v, and should be anywhere from 3s to 6s", least, most)
		}
	})
}

func TestHeartbeat(t *testing.T) {
	inBubble(t, setup{config: func(c *web.Config) { c.Heartbeat = 10 * time.Second }}, func(t *testing.T, s *host) {
		sub := s.subscribe(t, "/sse/x")
		start := time.Now()
		after := func(d time.Duration, want string) {
			t.Helper()
			p := make([]byte, len(want))
			if _, err := io.ReadFull(sub.head.Body, p); err != nil {
				t.Fatal(err)
			}
			if string(p) != want {
				t.Fatalf("got %q, want %q", p, want)
			}
			if got := time.Since(start); got != d {
				t.Errorf("%q came after %v, want %v", want, got, d)
			}
		}
		// Read without a buffer that takes more than is asked for.
		var begin []byte
		for !bytes.HasSuffix(begin, []byte("\n\n")) {
			p := make([]byte, 1)
			if _, err := io.ReadFull(sub.head.Body, p); err != nil {
				t.Fatal(err)
			}
			begin = append(begin, p...)
		}
		after(10*time.Second, ":\n")
		after(20*time.Second, ":\n")
		go func() {
			time.Sleep(7 * time.Second)
			s.publish(t, "x", "a") // at 27 s
			for range 10 {
				time.Sleep(10*time.Second - 1)
				s.publish(t, "x", "b")
			}
		}()
		after(27*time.Second, "id: 1\ndata: a\n\n")
		for i := range 10 {
			after(27*time.Second+time.Duration(i+1)*(10*time.Second-1), fmt.Sprintf("id: %d\ndata: b\n\n", i+2))
		}
		after(137*time.Second-10, ":\n")
		after(147*time.Second-10, ":\n")
	})
}

// A subscription outlives the timeouts that its server has for requests.
func TestLongSubscription(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, s *host) {
		sub := s.subscribe(t, "/sse/x")
		sub.position(t)
		go func() {
			time.Sleep(24 * time.Hour)
			s.publish(t, "x", "a day later")
		}()
		if m := sub.next(t); m.Data != "a day later" {
			t.Errorf("got %+v", m)
		}
	})
}

// Nobody waits for a client that takes nothing, and it is cut within 30 s.
func TestStalledClients(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, s *host) {
		healthy := s.subscribe(t, "/sse/x")
		healthy.position(t)

		start := time.Now()
		s.send(t, "GET /sse/x") // and takes nothing at all
		stalled := s.subscribe(t, "/sse/x")
		stalled.position(t) // and no more

		for i := range 40 {
			s.publish(t, "x", fmt.Sprint(i))
			if m := healthy.next(t); m.Data != fmt.Sprint(i) {
				t.Fatalf("got %+v", m)
			}
			if want := time.Duration(i) * time.Second; time.Since(start) != want {
				t.Fatalf("event %d is there after %v, want %v", i, time.Since(start), want)
			}
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if n := len(s.closed); n != 2 {
			t.Fatalf("%d clients were cut, want 2", n)
		}
		for range 2 {
			if d := (<-s.closed).Sub(start); d != 30*time.Second {
				t.Errorf("cut after %v, want 30s", d)
			}
		}
	})
}

// The 30 s of a client begin when it took something last.
func TestClientThatStallsWithinAWrite(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, s *host) {
		sub := s.subscribe(t, "/sse/x")
		sub.position(t)
		s.publish(t, "x", strings.Repeat("x", 900))
		for range 2 {
			time.Sleep(11 * time.Second)
			if _, err := sub.Read(make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		if d := (<-s.closed).Sub(start); d < 30*time.Second || d > 31*time.Second {
			t.Errorf("cut after %v, want 30s", d)
		}
	})
}

// One that takes something now and then is not stalled, however long an event lasts.
func TestSlowClient(t *testing.T) {
	large := func(c *web.Config) { c.MaxEventBytes, c.MaxBatchBytes = 1<<20, 1<<20 }
	inBubble(t, setup{config: large}, func(t *testing.T, s *host) {
		w := s.send(t, "GET /sse/x")
		res := w.response(t)
		events := sse.NewReader(&slow{res.Body}, 1<<20)
		if m, err := events.Next(); err != nil || m.Type != "position" {
			t.Fatal(m, err)
		}
		data := strings.Repeat("x", 20_000)
		start := time.Now()
		s.publish(t, "x", data)
		m, err := events.Next()
		if err != nil || m.Data != data {
			t.Fatalf("%d bytes and %v after %v", len(m.Data), err, time.Since(start))
		}
		if time.Since(start) < time.Minute {
			t.Fatal("the client was not slow")
		}
	})
}

// The end has its own time, however late the client took the last event.
func TestSlowClientAtTheEnd(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, s *host) {
		s.publish(t, "x", "1")
		sub := s.subscribe(t, "/sse/x?limit=1", "Last-Event-ID: 0")
		sub.position(t)
		time.Sleep(25 * time.Second)
		sub.next(t)
		time.Sleep(10 * time.Second)
		if m, err := sub.Next(); err != io.EOF {
			t.Errorf("got %+v, %v, want the end", m, err)
		}
	})
}

// A slow body is read by a thousand bytes every five seconds.
type slow struct{ io.Reader }

func (s *slow) Read(p []byte) (int, error) {
	time.Sleep(5 * time.Second)
	return s.Reader.Read(p[:min(len(p), 1000)])
}

// A client has at least half of that time whenever it stalls.
func TestStalledLater(t *testing.T) {
	for wait := 0 * time.Second; wait < time.Minute; wait += 5 * time.Second {
		inBubble(t, setup{config: func(c *web.Config) { c.Heartbeat = time.Hour }}, func(t *testing.T, s *host) {
			sub := s.subscribe(t, "/sse/x")
			sub.position(t)
			sub.settle(t)
			time.Sleep(wait)
			s.publish(t, "x", "taken")
			sub.next(t)
			sub.settle(t)
			start := time.Now()
			s.publish(t, "x", "not taken")
			time.Sleep(time.Minute)
			synctest.Wait()
			if len(s.closed) == 0 {
				t.Fatalf("after %v: not cut", wait)
			}
			if d := (<-s.closed).Sub(start); d < 15*time.Second || d > 30*time.Second {
				t.Errorf("after %v: cut after %v", wait, d)
			}
		})
	}
}

// A client that is gone is noticed by the next heartbeat, and then not kept.
func TestGoneClients(t *testing.T) {
	var following atomic.Int64
	inBubble(t, setup{log: func(l stream.Log) stream.Log { return &followed{l, &following} }}, func(t *testing.T, s *host) {
		for range 3 {
			sub := s.subscribe(t, "/sse/x")
			sub.position(t)
			if n := following.Load(); n != 1 {
				t.Fatalf("the log is followed %d times", n)
			}
			sub.Close()
			time.Sleep(15 * time.Second)
			synctest.Wait()
			if n := following.Load(); n != 0 {
				t.Errorf("without a client, the log is followed %d times", n)
			}
		}
		// Nor is one that was refused.
		_ = s.do(t, "GET", "/sse/x", "") // no connection to take over
		if n := following.Load(); n != 0 {
			t.Errorf("after a refused request, the log is followed %d times", n)
		}
	})
}

// A followed log counts its followers.
type followed struct {
	stream.Log
	n *atomic.Int64
}

func (l *followed) Follow(ctx context.Context, f func(store.Bounds, []store.Event)) (func(), error) {
	stop, err := l.Log.Follow(ctx, f)
	if err != nil {
		return nil, err
	}
	l.n.Add(1)
	return func() { stop(); l.n.Add(-1) }, nil
}

func testDraining(t *testing.T, s *host) {
	s.publish(t, "x", "1", "2", "3")
	if w := s.do(t, "GET", "/readyz", ""); w.Code != 200 {
		t.Errorf("before: readyz is %d", w.Code)
	}
	if err := s.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	isProblem(t, s.do(t, "GET", "/readyz", ""), 503)
	if w := s.do(t, "GET", "/healthz", ""); w.Code != 200 {
		t.Errorf("healthz is %d", w.Code)
	}

	least, most := time.Hour, time.Duration(0)
	for range 100 {
		sub := s.subscribe(t, "/sse/x", "Last-Event-ID: 1")
		m := sub.next(t)
		least, most = min(least, m.Retry), max(most, m.Retry)
		if m.Type != "gap" {
			t.Errorf("begins with %+v", m)
		}
		if id := sub.position(t); id != "2" {
			t.Errorf("goes on after %s", id)
		}
		if m, err := sub.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("then %+v, %v, want a cut", m, err)
		}
	}
	if least < 4*time.Second || least > 5*time.Second || most < 7*time.Second || most > 8*time.Second {
		t.Errorf("retry is from %v to %v, and should be anywhere from 4s to 8s", least, most)
	}

	s.publish(t, "x", "4") // publishes finish
	if last := s.last(t, "x"); last != 4 {
		t.Errorf("last is %d", last)
	}
}

// A subscriber is never answered as if all were well when its stream cannot be
// read: it is refused, or cut so that it comes back.
func TestReadingFails(t *testing.T) {
	var broken atomic.Bool
	inBubble(t, setup{log: func(l stream.Log) stream.Log { return &breaking{l, &broken} }}, func(t *testing.T, s *host) {
		s.publish(t, "x", "1")
		broken.Store(true)
		sub := s.subscribe(t, "/sse/x?from=earliest")
		sub.position(t)
		if m, err := sub.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %+v, %v, want a cut", m, err)
		}
		broken.Store(false)
		sub = s.subscribe(t, "/sse/x", "Last-Event-ID: 0")
		sub.position(t)
		if m := sub.next(t); m.ID != "1" {
			t.Errorf("got %+v", m)
		}
	})
}

// A read that fails must not look complete, which over HTTP/1.0 only a reset tells.
func TestReadThatFailsIsCut(t *testing.T) {
	var broken atomic.Bool
	s := overTCP(t, setup{log: func(l stream.Log) stream.Log { return &breaking{l, &broken} }})
	s.publish(t, "x", "1")
	broken.Store(true)
	for version, want := range map[string]error{"1.0": syscall.ECONNRESET, "1.1": io.ErrUnexpectedEOF} {
		w := s.send(t, "GET /sse/x?follow=false HTTP/"+version)
		r, err := http.ReadResponse(w.r, nil)
		if err == nil { // the header may arrive
			_, err = io.ReadAll(r.Body)
		}
		if !errors.Is(err, want) {
			t.Errorf("over HTTP/%s: %v, want %v", version, err, want)
		}
	}
}

// A breaking log cannot be read, now and then.
type breaking struct {
	stream.Log
	broken *atomic.Bool
}

func (b *breaking) Read(ctx context.Context, after uint64, yield func(store.Event) bool) (store.Bounds, error) {
	if b.broken.Load() {
		return store.Bounds{}, errors.New("broken")
	}
	return b.Log.Read(ctx, after, yield)
}

// What is replayed in many writes is whole, and nothing is between it and what is
// live.
func TestReplayIntoLive(t *testing.T) {
	s := overTCP(t, setup{config: func(c *web.Config) { c.MaxEventBytes, c.MaxBatchBytes = 1<<20, 1<<20 }})
	const before, after = 30, 10
	data := func(i int) string { return strings.Repeat(strconv.Itoa(i%10), 5000*(i%20)) }
	for i := range before {
		s.publish(t, "x", data(i+1))
	}
	sub := s.subscribe(t, "/sse/x?from=earliest&limit=40")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range after {
			s.publish(t, "x", data(before+i+1))
		}
	}()
	sub.position(t)
	for i := range before + after {
		if m := sub.next(t); m.ID != strconv.Itoa(i+1) || m.Data != data(i+1) {
			t.Fatalf("event %s with %d bytes, want %d", m.ID, len(m.Data), i+1)
		}
	}
	if m, err := sub.Next(); err != io.EOF {
		t.Errorf("goes on with %+v, %v", m, err)
	}
	<-done
}

// What a handler without a connection is asked for is refused.
func TestNoConnection(t *testing.T) {
	s := newHost(t, setup{})
	isProblem(t, s.do(t, "GET", "/sse/x", ""), http.StatusInternalServerError)
}

// Whether a connection ends with its response is said only where the response will be
// complete: a client must not use it for its next request; but of any other response
// some clients would take a cut for the end.
func TestConnectionAfterTheEnd(t *testing.T) {
	s := newSite(t, store.Options{}, nil)
	s.post("/sse/s", "event").want(201)
	for range 200 {
		s.get("/sse/s?from=-1&limit=1").want(200)
		s.post("/sse/s", "event").want(201)
	}
	s.post("/sse/s?close=true", "last").want(201)
	for range 200 {
		s.get("/sse/s?from=-1").want(200)
		s.post("/sse/t", "event").want(201)
	}
	h := overTCP(t, setup{})
	conn := h.dial()
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /sse/t HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || r.Close {
		t.Errorf("%+v, %v; want none that says close", r, err)
	}
}
