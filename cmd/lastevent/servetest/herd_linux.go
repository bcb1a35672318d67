package servetest

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lastevent/stream/sse"
)

// A Herd is many clients of one stream, each of which connects again whenever it is cut
// or not let in, and checks as a [Follower] does that it misses nothing.
type Herd struct {
	// Impatient clients come again after a hundredth of a second; the others after the
	// time that the server tells, as browsers do.
	Impatient bool

	server  *Server
	path    string
	clients []*herdClient
	wg      sync.WaitGroup
	cancel  context.CancelFunc

	mu     sync.Mutex // guards all that follows
	broken error
	want   uint64
	since  time.Time
	had    []time.Duration // since then, until each client had the event want
	all    chan struct{}   // closed when all have

	// Tries are connections tried, of which some were refused as nobody listened, and
	// some took long, since SYNs were dropped. Cut are responses that were cut.
	Tries, Refused, Long, Cut atomic.Int64
}

type herdClient struct {
	Follower
	retry time.Duration
	from  net.Addr
	noted uint64 // the last expected event that it has had
}

const (
	// usualRetry is that of a browser that was told none.
	usualRetry = 3 * time.Second
	// herdAddresses is from how many addresses a herd comes, so that there are ports.
	herdAddresses = 16
)

// StartHerd has n clients read the path. Stop ends them.
func StartHerd(s *Server, path string, n int, impatient bool) *Herd {
	ctx, cancel := context.WithCancel(s.Ctx)
	h := &Herd{Impatient: impatient, server: s, path: path, cancel: cancel}
	for i := range n {
		c := &herdClient{retry: usualRetry, from: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%herdAddresses))}}
		h.clients = append(h.clients, c)
	}
	h.Expect(1)
	for _, c := range h.clients {
		h.wg.Go(func() { h.run(ctx, c) })
	}
	return h
}

// Stop ends all clients, and returns a promise that was broken.
func (h *Herd) Stop() error {
	h.cancel()
	h.wg.Wait()
	return h.broken
}

// Expect has the herd tell from now on when each client has the event with this ID.
func (h *Herd) Expect(id uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.want, h.since, h.had, h.all = id, time.Now(), nil, make(chan struct{})
	for _, count := range []*atomic.Int64{&h.Tries, &h.Refused, &h.Long, &h.Cut} {
		count.Store(0)
	}
}

// Await waits until all have the event, and returns how long each took, in order.
func (h *Herd) Await() ([]time.Duration, error) {
	h.mu.Lock()
	all := h.all
	h.mu.Unlock()
	select {
	case <-all:
	case <-h.server.Ctx.Done():
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	slices.Sort(h.had)
	if len(h.had) < len(h.clients) {
		return h.had, cmp.Or(h.broken, fmt.Errorf("%d of %d clients have event %d", len(h.had), len(h.clients), h.want))
	}
	return h.had, h.broken
}

// Had is how many clients have had the event.
func (h *Herd) Had() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.had)
}

func (h *Herd) run(ctx context.Context, c *herdClient) {
	for {
		err := h.follow(ctx, c)
		if errors.Is(err, ErrBroken) {
			h.mu.Lock()
			h.broken = cmp.Or(h.broken, err)
			h.mu.Unlock()
			return
		}
		wait := c.retry
		if h.Impatient {
			wait = 10 * time.Millisecond
		}
		if pause(ctx, wait) != nil {
			return
		}
	}
}

// follow makes one connection and reads it to its end.
func (h *Herd) follow(ctx context.Context, c *herdClient) error {
	h.Tries.Add(1)
	begun := time.Now()
	dialer := net.Dialer{LocalAddr: c.from, Control: withoutPort}
	conn, err := dialer.DialContext(ctx, "tcp", h.server.Addr)
	if time.Since(begun) > 900*time.Millisecond {
		h.Long.Add(1)
	}
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			h.Refused.Add(1)
		}
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	head := "GET " + h.path + " HTTP/1.1\r\nHost: localhost\r\n"
	if c.Began {
		head += "Last-Event-ID: " + strconv.FormatUint(c.After, 10) + "\r\n"
	}
	if _, err := conn.Write([]byte(head + "\r\n")); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReaderSize(conn, 1024), nil)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return broken("subscribing: %s", res.Status)
	}
	defer h.Cut.Add(1)
	return h.read(c, sse.NewReader(res.Body, 1000))
}

// read reads a response to its end.
func (h *Herd) read(c *herdClient, events *sse.Reader) error {
	for {
		m, err := events.Next()
		if err == io.EOF {
			return broken("a clean end after ID %d", c.After)
		}
		if err := cmp.Or(err, c.Take(m)); err != nil {
			return err
		}
		c.retry = cmp.Or(m.Retry, c.retry)
		h.note(c)
	}
}

// note notes that the client has the event that is expected, the first time.
func (h *Herd) note(c *herdClient) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.After < h.want || c.noted == h.want {
		return
	}
	c.noted = h.want
	h.had = append(h.had, time.Since(h.since))
	if len(h.had) == len(h.clients) {
		close(h.all)
	}
}

// withoutPort has the port chosen on connecting, so that it is unique only with the peer's.
func withoutPort(_, _ string, raw syscall.RawConn) error {
	var set error
	err := raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
	return cmp.Or(err, set)
}
