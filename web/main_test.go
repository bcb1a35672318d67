package web_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"lastevent/store"
	"lastevent/stream"
	"lastevent/stream/sse"
	"lastevent/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A host is a server over a store of its own.
type host struct {
	*web.Server
	db   *store.DB
	file string
	dial func() net.Conn
	addr string // of over
	// closed gets the time at which the server closes a connection of inBubble.
	closed chan time.Time
}

// A setup is what a host is made of; zero is the usual.
type setup struct {
	db        *store.DB // instead of a new one
	retention store.Retention
	config    func(*web.Config)
	log       func(stream.Log) stream.Log // instead of the store's
}

func newHost(t testing.TB, o setup) *host {
	t.Helper()
	s := &host{db: o.db, file: filepath.Join(t.TempDir(), "x.db"), closed: make(chan time.Time, 100)}
	var err error
	metrics := web.NewMetrics("test")
	if s.db == nil {
		if s.db, err = store.Open(s.file, store.Options{Retention: o.retention, Observer: metrics}); err != nil {
			t.Fatal(err)
		}
	}
	c := usual(stream.NewSet(func(name string) stream.Log {
		if o.log != nil {
			return o.log(s.db.Log(name))
		}
		return s.db.Log(name)
	}, s.db.Streams))
	c.Inside = web.Inside{Metrics: metrics, Stats: s.db.Stats}
	if o.config != nil {
		o.config(&c)
	}
	if s.Server, err = web.New(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Drain(context.Background()), s.db.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// usual is a config in which all is right.
func usual(streams *stream.Set) web.Config {
	return web.Config{
		Streams:       streams,
		Log:           zerolog.Nop(),
		Heartbeat:     15 * time.Second,
		Retry:         time.Second,
		MaxEventBytes: 1000,
		MaxBatchBytes: 10_000,
		Ready:         func() error { return nil },
	}
}

// serve serves on a listener until the test ends.
func (s *host) serve(t testing.TB, l net.Listener) {
	h := &http.Server{Handler: s, ReadTimeout: time.Minute, WriteTimeout: time.Minute, Protocols: new(http.Protocols)}
	h.Protocols.SetHTTP1(true)
	h.Protocols.SetUnencryptedHTTP2(true)
	served := make(chan error, 1)
	go func() { served <- h.Serve(l) }()
	t.Cleanup(func() {
		_ = h.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// overTCP serves on a loopback address.
func overTCP(t testing.TB, o setup) *host {
	t.Helper()
	return over(t, "tcp", "127.0.0.1:0", o)
}

// overUnix serves on a socket of the unix domain.
func overUnix(t testing.TB, o setup) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "") // a short one, as sockets need
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return over(t, "unix", filepath.Join(dir, "x.sock"), o)
}

// overEach runs a test with a host on each kind of connections that are taken over.
func overEach(t *testing.T, o setup, test func(*testing.T, *host)) {
	t.Run("TCP", func(t *testing.T) { test(t, overTCP(t, o)) })
	t.Run("unix", func(t *testing.T) { test(t, overUnix(t, o)) })
}

func over(t testing.TB, network, addr string, o setup) *host {
	t.Helper()
	s := newHost(t, o)
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	s.dial = func() net.Conn {
		conn, err := net.Dial(network, s.addr)
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	s.serve(t, l)
	return s
}

// inBubble runs a test in a bubble, where time is its own, with a host that serves
// on connections that hold nothing: what is written waits until it is read.
func inBubble(t *testing.T, o setup, test func(*testing.T, *host)) {
	synctest.Test(t, func(t *testing.T) {
		s := newHost(t, o)
		web.Unwatch(s.Server)
		l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		s.dial = func() net.Conn {
			client, server := net.Pipe()
			l.conns <- &watched{Conn: server, closed: s.closed}
			return client
		}
		s.serve(t, l)
		test(t, s)
	})
}

type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

// A watched connection tells when it is closed.
type watched struct {
	net.Conn
	closed chan time.Time
	once   sync.Once
}

func (w *watched) Close() error {
	w.once.Do(func() {
		select {
		case w.closed <- time.Now():
		default: // nobody wants to know
		}
	})
	return w.Conn.Close()
}

// A wire is a connection to a host.
type wire struct {
	net.Conn
	r *bufio.Reader
}

// send sends a request without a body over a connection of its own. The request is
// "GET /sse/x", with a version if it is not HTTP/1.1; headers are "Name: value".
func (s *host) send(t testing.TB, request string, headers ...string) *wire {
	t.Helper()
	conn := s.dial()
	t.Cleanup(func() { conn.Close() })
	w := &wire{conn, bufio.NewReader(conn)}
	w.send(t, request, headers...)
	return w
}

func (w *wire) send(t testing.TB, request string, headers ...string) {
	t.Helper()
	if !strings.Contains(request, " HTTP/1.") {
		request += " HTTP/1.1"
	}
	head := request + "\r\nHost: localhost\r\n"
	for _, h := range headers {
		head += h + "\r\n"
	}
	if _, err := io.WriteString(w, head+"\r\n"); err != nil {
		t.Fatal(err)
	}
}

// response reads the head of a response.
func (w *wire) response(t testing.TB) *http.Response {
	t.Helper()
	r, err := http.ReadResponse(w.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A subscription is a response that events come from.
type subscription struct {
	*sse.Reader
	*wire
	head *http.Response
}

// subscribe subscribes, and has a 200.
func (s *host) subscribe(t testing.TB, target string, headers ...string) *subscription {
	t.Helper()
	w := s.send(t, "GET "+target, headers...)
	head := w.response(t)
	if head.StatusCode != 200 {
		body, _ := io.ReadAll(head.Body)
		t.Fatalf("GET %s: %s: %s", target, head.Status, body)
	}
	return &subscription{sse.NewReader(head.Body, 1<<20), w, head}
}

// next is the next event.
func (s *subscription) next(t testing.TB) sse.Message {
	t.Helper()
	m, err := s.Next()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// settle takes what the server may still be writing behind an event.
func (s *subscription) settle(t testing.TB) {
	t.Helper()
	if err := s.SetReadDeadline(time.Now().Add(1)); err != nil {
		t.Fatal(err)
	}
	_, _ = s.r.Peek(s.r.Buffered() + 1)
	if err := s.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
}

// position reads the event that a response without a gap begins with, and returns
// its ID.
func (s *subscription) position(t testing.TB) string {
	t.Helper()
	m := s.next(t)
	if m.Type != "position" {
		t.Fatalf("begins with %+v", m)
	}
	return m.ID
}

// do has a request answered without a network. The target is taken as it is.
func (s *host) do(t testing.TB, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	head := method + " " + target + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n"
	for _, h := range headers {
		head += h + "\r\n"
	}
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head + "\r\n" + body)))
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// publish publishes, and has a 201.
func (s *host) publish(t testing.TB, name string, data ...string) {
	t.Helper()
	for _, d := range data {
		if w := s.do(t, "POST", "/sse/"+name, d); w.Code != 201 {
			t.Fatalf("publishing: %d %s", w.Code, w.Body)
		}
	}
}

// last is the sequence of the stream's newest event.
func (s *host) last(t testing.TB, name string) uint64 {
	t.Helper()
	b, err := s.db.Log(name).Bounds(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return b.Last
}

// isProblem checks that an answer is a problem in words, and returns these.
func isProblem(t testing.TB, w *httptest.ResponseRecorder, status int) string {
	t.Helper()
	var p struct {
		Title  string
		Status int
		Detail string
	}
	dec := json.NewDecoder(bytes.NewReader(w.Body.Bytes()))
	if err := dec.Decode(&p); err != nil {
		t.Errorf("%v: %s", err, w.Body)
	}
	if w.Code != status || p.Status != status || p.Title != http.StatusText(status) || p.Detail == "" {
		t.Errorf("%d %+v, want %d with a detail", w.Code, p, status)
	}
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type is %q", got)
	}
	return p.Detail
}
