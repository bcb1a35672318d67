//go:build linux

package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// clientsConfig is what the clients of one process do.
type clientsConfig struct {
	Addr, Host string
	Prefix     string // of the streams' paths; the i-th client has number i modulo Streams
	Streams    int
	Clients    int
	After      string // Last-Event-ID; empty is none
	AtOnce     bool   // all send their requests when all are connected
	Expect     int    // events until a client is done
	Stalled    bool   // read nothing once all have their first bytes, until killed
	Sample     int    // of how many clients one measures latencies
	Timeout    time.Duration
}

// What the clients say: first connected, when all have their first bytes, then the
// result, when all are done, unless they are stalled.
type (
	connected struct {
		Clients int
		Err     string // why not all
	}
	clientsResult struct {
		Started  int64 // Unix time in ns: before the first request
		Finished int64 // when the last client got its last event
		P50, P99 float64
		Err      string
	}
)

// clients are read by one loop over epoll, which costs the least.
type clients struct {
	clientsConfig
	epoll    int
	conns    map[int32]*conn
	open     int // that have got the beginning
	done     int
	finished time.Time
	latency  *hdrhistogram.Histogram
	buf      []byte
}

func runClients(config clientsConfig, out *json.Encoder) error {
	c := &clients{
		clientsConfig: config,
		conns:         map[int32]*conn{},
		latency:       newHistogram(),
		buf:           make([]byte, 256<<10),
	}
	deadline := time.Now().Add(c.Timeout)
	var err error
	if c.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create", err)
	}
	started := time.Now()
	err = c.connect()
	if err == nil {
		err = c.readUntil(deadline, func() bool { return c.open == c.Clients })
	}
	if err := out.Encode(connected{c.open, text(err)}); err != nil {
		return err
	}
	for c.Stalled {
		_, _ = unix.Poll(nil, -1)
	}
	if err == nil {
		err = c.readUntil(deadline, func() bool { return c.done == c.Clients })
	}
	return out.Encode(clientsResult{
		Started:  started.UnixNano(),
		Finished: c.finished.UnixNano(),
		P50:      float64(c.latency.ValueAtQuantile(50)),
		P99:      float64(c.latency.ValueAtQuantile(99)),
		Err:      text(err),
	})
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// newHistogram is of µs, up to a minute.
func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, 60_000_000, 3) }

func (c *clients) connect() error {
	var fds []int
	for i := range c.Clients {
		fd, err := dial(c.Addr, i)
		if err != nil {
			return fmt.Errorf("connection %d: %w", i+1, err)
		}
		fds = append(fds, fd)
		if !c.AtOnce {
			err = c.request(fd, i)
		}
		if err != nil {
			return err
		}
	}
	if c.AtOnce {
		for i, fd := range fds {
			if err := c.request(fd, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// sources is how many addresses the connections come from, so that there are ports
// enough also while those of earlier ones are not yet free.
const sources = 16

func dial(addr string, i int) (fd int, err error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return 0, err
	}
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	if to.Addr().IsLoopback() {
		// The port is chosen on connecting, so that it is unique only with the peer's.
		err = errors.Join(
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
			unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(2 + i%sources)}}))
	}
	if err == nil {
		// Closing resets, so that no port stays behind.
		err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	}
	return fd, os.NewSyscallError("connect", err)
}

// request sends a client's request and has its socket read from now on.
func (c *clients) request(fd, i int) error {
	req := fmt.Appendf(nil, "GET %s%d HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n", c.Prefix, i%c.Streams, c.Host)
	if c.After != "" {
		req = fmt.Appendf(req, "Last-Event-ID: %s\r\n", c.After)
	}
	if _, err := unix.Write(fd, append(req, "\r\n"...)); err != nil {
		return os.NewSyscallError("write", err)
	}
	c.conns[int32(fd)] = &conn{sample: c.Sample > 0 && i%c.Sample == 0}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(c.epoll, unix.EPOLL_CTL_ADD, fd, &event))
}

// readUntil reads what comes until over says that it is enough.
func (c *clients) readUntil(deadline time.Time, over func() bool) error {
	events := make([]unix.EpollEvent, 1024)
	for !over() {
		if time.Now().After(deadline) {
			return c.late()
		}
		n, err := unix.EpollWait(c.epoll, events, 100)
		if err != nil && err != unix.EINTR {
			return os.NewSyscallError("epoll_wait", err)
		}
		for _, e := range events[:max(n, 0)] {
			if err := c.read(e.Fd); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *clients) late() error {
	events := 0
	for _, conn := range c.conns {
		events += max(conn.blocks-1, 0)
	}
	return fmt.Errorf("after %v %d of %d clients had begun, %d had got all, and %d of %d events had come",
		c.Timeout, c.open, c.Clients, c.done, events, c.Clients*c.Expect)
}

func (c *clients) read(fd int32) error {
	n, err := unix.Read(int(fd), c.buf)
	if err == unix.EINTR || err == unix.EAGAIN {
		return nil
	}
	if err == nil && n == 0 {
		err = errors.New("the server ended the response")
	}
	conn := c.conns[fd]
	if err == nil {
		err = conn.feed(c.buf[:n], c.received)
	}
	if err != nil {
		return fmt.Errorf("a client that had %d events: %w", conn.blocks-1, err)
	}
	if !conn.open && conn.blocks > 0 {
		conn.open = true
		c.open++
	}
	if !conn.done && conn.blocks > c.Expect {
		conn.done = true
		c.done++
		c.finished = time.Now()
	}
	return nil
}

// received measures the latency of the events of a piece.
func (c *clients) received(piece []byte) {
	now := time.Now().UnixMicro()
	for {
		i := bytes.Index(piece, dataStamp)
		if i < 0 {
			return
		}
		piece = piece[i+len(dataStamp):]
		if sent, ok := parseStamp(piece); ok {
			_ = c.latency.RecordValue(max(now-sent, 1)) // more than a minute is a timeout
		}
	}
}
