//go:build linux

package main_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"lastevent/cmd/lastevent/servetest"
	"lastevent/stream/sse"
)

// A nuisance is a connection that does no good.
type nuisance struct {
	first string
	drip  string // what it sends now and then
	then  func(*net.TCPConn) error
}

const toPost = "POST /sse/nuisance HTTP/1.1\r\nHost: localhost\r\n"

var nuisances = []nuisance{
	{"", "", nil},
	{"GET /sse/live HTTP/1.1\r\nHost: loc", "a", nil},
	{"GET /sse/live HTTP/1.1\r\nHost: localhost\r\n", "More: and more\r\n", nil},
	{"GET /sse/live HTTP/1.1\r\nHost: localhost\r\nLong: " + strings.Repeat("x", 80_000), "x", nil},
	{toPost + "Content-Length: 1000\r\n\r\nhalf", "x", nil},
	{toPost + "Content-Length: 1000\r\n\r\nhalf", "", (*net.TCPConn).CloseWrite},
	{toPost + "Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", nil},
	{toPost + "Content-Length: 9000000\r\n\r\n" + strings.Repeat("x", 100_000), "x", nil},
	{strings.Repeat("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 100), "GET /", nil},
	{"GET /sse/live HTTP/1.1\r\nHost: localhost\r\n\r\n" + strings.Repeat("and more", 10_000), "more", nil},
	{"GET /sse/live?from=earliest HTTP/1.1\r\nHost: localhost\r\n\r\n", "", (*net.TCPConn).CloseWrite},
	{"GET /sse/live?from=earliest HTTP/1.1\r\nHost: localhost\r\n\r\n", "", resets},
	{"GET /sse/live?from=earliest HTTP/1.0\r\n\r\n", "", (*net.TCPConn).Close},
	{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x00", nil},
	{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "\x00", nil},
}

func resets(c *net.TCPConn) error { return errors.Join(c.SetLinger(0), c.Close()) }

// annoy opens a connection. What the server does not take of it is not sent.
func (n nuisance) annoy(addr string) (*net.TCPConn, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c := conn.(*net.TCPConn)
	_ = send(c, n.first)
	if n.then != nil {
		_ = n.then(c) // it may be cut already
	}
	return c, nil
}

func send(c net.Conn, text string) error {
	_ = c.SetWriteDeadline(time.Now().Add(time.Millisecond)) // as the write shows
	_, err := io.WriteString(c, text)
	if nerr, ok := errors.AsType[net.Error](err); ok && nerr.Timeout() {
		return nil
	}
	return err
}

// Thousands of connections that are slow, broken or foul are a nuisance to nobody, and
// leave nothing behind.
//
// 15,000 connections, two thirds of them honest, for two minutes:
// go test -tags long -run Nuisances ./cmd/lastevent
func TestNuisances(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t)
	s.Patience(time.Duration(servetest.Rounds(2, 10)) * time.Minute)
	descriptors := s.Descriptors()
	h := startHonest(t, s, "live", 10, 200*time.Millisecond, 100)
	live := make([]*rawClient, servetest.Crowd(600, 10_000))
	for i := range live {
		live[i] = subscribeRaw(t, s, h.url)
	}
	came := annoyFor(t, s, servetest.Crowd(300, 5000), time.Duration(servetest.Rounds(5, 120))*time.Second)
	t.Logf("nuisances came again %d times; RSS %d MiB", came, s.RSS()>>20)
	h.finish(t)
	for i, c := range live {
		if err := c.Read(c.sub, c.UpTo(h.events)); err != nil || c.Gaps > 0 {
			t.Fatalf("client %d has %d events of %d, %d gaps, %v", i, c.Events, h.events, c.Gaps, err)
		}
		c.conn.Close()
	}
	s.HTTP.CloseIdleConnections()
	left := time.Now()
	await(t, s, "no descriptor to be left", func() bool { return s.Descriptors() <= descriptors })
	if took := time.Since(left); took > 30*time.Second { // the collector would close them, too
		t.Errorf("descriptors were left for %v", took)
	}
	checkGoroutines(t, s)
}

// annoyFor has so many nuisances at once for a time, which come again when they are
// cut, and then leave.
func annoyFor(t *testing.T, s *servetest.Server, n int, d time.Duration) (came int) {
	t.Helper()
	conns := make([]*net.TCPConn, n)
	annoy := func(i int) {
		if conns[i] != nil {
			conns[i].Close()
		}
		var err error
		if conns[i], err = nuisances[i%len(nuisances)].annoy(s.Addr); err != nil {
			t.Fatal(err)
		}
	}
	for i := range conns {
		annoy(i)
	}
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
		for i, c := range conns {
			if drip := nuisances[i%len(nuisances)].drip; drip == "" || send(c, drip) != nil {
				annoy(i)
				came++
			}
		}
	}
	t.Logf("%d descriptors of the server are open", s.Descriptors())
	for i, c := range conns {
		if i%2 == 0 {
			_ = resets(c)
		}
		c.Close()
	}
	return came
}

// checkGoroutines checks that the server, which has no clients any more, runs no more
// goroutines than one that has just served its first.
func checkGoroutines(t *testing.T, s *servetest.Server) {
	t.Helper()
	fresh := servetest.Start(t)
	fresh.MustPublish("live", 1, "first")
	c := subscribeRaw(t, fresh, fresh.URL+"/sse/live")
	open := fresh.Descriptors()
	c.conn.Close()
	fresh.HTTP.CloseIdleConnections()
	await(t, fresh, "its client to be gone", func() bool { return fresh.Descriptors() <= open-2 })
	want, got := fresh.Goroutines(), s.Goroutines()
	if got > want || want == 0 {
		t.Errorf("%d goroutines are left, and a fresh server has %d", got, want)
	}
	t.Logf("%d goroutines, a fresh server has %d", got, want)
}

// A rawClient is a follower without a goroutine, of which thousands are cheap.
type rawClient struct {
	servetest.Follower
	conn net.Conn
	sub  *servetest.Subscription
}

func subscribeRaw(t *testing.T, s *servetest.Server, url string) *rawClient {
	t.Helper()
	c := &rawClient{conn: s.Dial()}
	req, err := http.NewRequest("GET", url, nil)
	if err == nil {
		err = req.Write(c.conn)
	}
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReaderSize(c.conn, 1024), req)
	if err != nil {
		t.Fatal(err)
	}
	c.sub = &servetest.Subscription{Reader: sse.NewReader(res.Body, 1<<20)}
	if err := c.Read(c.sub, func() bool { return !c.Began }); err != nil {
		t.Fatal(err)
	}
	return c
}

// What is too slow or too large is refused in time, and in words where it can be.
func TestLimitsOfRequests(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t)
	s.Patience(3 * time.Minute)
	type limit struct {
		name   string
		n      nuisance
		answer string
		after  time.Duration
	}
	const header, body = 10 * time.Second, time.Minute
	limits := []limit{
		{"nothing", nuisances[0], "", header},
		{"half a header", nuisances[1], "", header},
		{"a header without an end", nuisances[2], "", header},
		{"a large header", nuisances[3], "HTTP/1.1 431 ", 0},
		{"a half-closed body", nuisances[5], "HTTP/1.1 400 ", 0},
		{"a large body", nuisances[7], "HTTP/1.1 413 ", 0},
		{"no HTTP", nuisance{first: "What is this?\r\n\r\n"}, "HTTP/1.1 400 ", 0},
		{"two lengths", nuisance{first: toPost + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx"}, "HTTP/1.1 400 ", 0},
		{"a chunk without a length", nuisance{first: toPost + "Transfer-Encoding: chunked\r\n\r\nx\r\n"}, "HTTP/1.1 400 ", 0},
	}
	limits[5].n.first = toPost + "Content-Length: 9000000\r\n\r\n" + strings.Repeat("x", 1<<20+1)
	if servetest.Long {
		limits = append(limits, limit{"half a body", nuisances[4], "HTTP/1.1 408 ", body}, limit{"a dripping body", nuisances[6], "HTTP/1.1 408 ", body})
	}
	var wg sync.WaitGroup
	for _, l := range limits {
		wg.Go(func() {
			answer, after, err := l.n.suffer(s.Addr, l.after+20*time.Second)
			if err != nil || !strings.HasPrefix(answer, l.answer) || l.answer == "" && answer != "" {
				t.Errorf("%s: %v, %.100q; want %q", l.name, err, answer, l.answer)
			}
			if after < l.after-time.Second || after > l.after+10*time.Second {
				t.Errorf("%s: answered or cut after %v, want %v", l.name, after, l.after)
			}
		})
	}
	wg.Wait()
	if _, last := s.Bounds("nuisance"); last != 0 {
		t.Error("something was stored")
	}
}

// suffer waits so long for what the server makes of a nuisance.
func (n nuisance) suffer(addr string, patience time.Duration) (answer string, after time.Duration, err error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return "", 0, err
	}
	defer conn.Close()
	begun, done := time.Now(), make(chan struct{})
	if err := conn.SetDeadline(begun.Add(patience)); err != nil {
		return "", 0, err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := io.WriteString(conn, n.first)
		if n.then != nil {
			_ = n.then(conn.(*net.TCPConn)) // the answer tells
		}
		for err == nil {
			select {
			case <-time.After(500 * time.Millisecond):
				_, err = io.WriteString(conn, n.drip)
			case <-done:
				return
			}
		}
	})
	defer wg.Wait()
	defer close(done)
	first := make([]byte, 1000)
	k, err := io.ReadAtLeast(conn, first, len("HTTP/1.1 400 "))
	if err == io.EOF {
		err = nil // cut without an answer
	}
	return string(first[:k]), time.Since(begun), err
}

// Without a descriptor for another client, those who are there are served on, the log
// says so, and the others' turn comes.
func TestDescriptorsRunOut(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t)
	h := startHonest(t, s, "live", 5, 50*time.Millisecond, 100)
	await(t, s, "the producer to be connected", func() bool { _, acked := h.seen.Len(); return acked > 0 })
	s.LimitDescriptors(s.Descriptors() + 50)
	var waiting []net.Conn
	for range 150 {
		conn := s.Dial()
		s.Send(conn, "GET /sse/live?from=earliest HTTP/1.1\r\nHost: localhost\r\n\r\n")
		waiting = append(waiting, conn)
	}
	await(t, s, "a warning", func() bool {
		return strings.Contains(s.Log(), `"level":"warn"`) && strings.Contains(s.Log(), "too many open files")
	})
	_, acked := h.seen.Len()
	await(t, s, "more events", func() bool { _, now := h.seen.Len(); return now > acked+20 })
	for i, conn := range waiting {
		block := s.ReadBlock(conn)
		if !strings.HasPrefix(block, "HTTP/1.1 200 ") {
			t.Fatalf("client %d: %q", i, block)
		}
		conn.Close()
	}
	h.finish(t)
	if n := strings.Count(s.Log(), "too many open files"); n > 100 {
		t.Errorf("the log has %d warnings", n)
	}
}
