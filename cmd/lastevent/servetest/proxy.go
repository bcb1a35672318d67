//go:build unix

package servetest

import (
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// Faults are what a Proxy does to connections. None are a good network.
type Faults struct {
	// CutAfter tells for each connection after how many bytes of the server's it is
	// cut, which is mostly in mid-event. Nil: never.
	CutAfter func() int64
	// Reset makes that a reset, by which a client may also lose what it has not read
	// yet. Otherwise the connection is closed.
	Reset bool
	// Latency is how much later all that is sent arrives, either way.
	Latency time.Duration
	// BytesPerSecond is what all connections carry together, each way. 0: no limit.
	BytesPerSecond int
}

// A Proxy is a bad network between clients and a server: it passes TCP connections
// on, and the end of each side. It lasts as long as the test. Its methods can be
// called by any goroutine at any time.
type Proxy struct {
	Addr string // where clients connect

	server string
	over   chan struct{}
	wg     sync.WaitGroup

	mu     sync.Mutex // guards all below
	faults Faults
	whole  chan struct{} // closed where there is no partition
	conns  map[*net.TCPConn]struct{}
	free   [2]time.Time // when the line can carry more, to the server and from it
}

// StartProxy starts a proxy for the server at an address, which may be down.
func StartProxy(t *testing.T, server string, faults Faults) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{
		Addr: l.Addr().String(), server: server, over: make(chan struct{}),
		faults: faults, whole: make(chan struct{}), conns: map[*net.TCPConn]struct{}{},
	}
	close(p.whole)
	p.wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return // closed
			}
			left := p.budget()
			p.wg.Go(func() { p.pass(client.(*net.TCPConn), left) })
		}
	})
	t.Cleanup(func() {
		close(p.over)
		l.Close()
		p.Reset()
		p.wg.Wait()
	})
	return p
}

// Set changes the faults: CutAfter and Reset for the connections that are to come,
// the others for all.
func (p *Proxy) Set(faults Faults) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = faults
}

// Partition makes nothing arrive any more, not even an end or a reset, and nothing
// get lost, until Heal.
func (p *Proxy) Partition() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.whole:
		p.whole = make(chan struct{})
	default:
	}
}

// Heal ends a partition.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.whole:
	default:
		close(p.whole)
	}
}

// Connections is how many pass through the proxy.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns) / 2
}

// Reset resets all connections that there are.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		reset(c)
	}
}

func reset(c *net.TCPConn) {
	_ = c.SetLinger(0) // the connection is closed all the same
	c.Close()
}

func (p *Proxy) budget() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.faults.CutAfter == nil {
		return math.MaxInt64
	}
	return p.faults.CutAfter()
}

// pass passes a connection on until left bytes came back or both sides have ended.
func (p *Proxy) pass(client *net.TCPConn, left int64) {
	conn, err := net.Dial("tcp", p.server)
	if err != nil {
		reset(client) // as if it had been refused
		return
	}
	server := conn.(*net.TCPConn)
	p.mu.Lock()
	p.conns[client], p.conns[server] = struct{}{}, struct{}{}
	resets := p.faults.Reset
	p.mu.Unlock()
	select {
	case <-p.over: // and its resets
		reset(client)
		reset(server)
	default:
	}
	var ways sync.WaitGroup
	ways.Go(func() { p.carry(0, server, client, math.MaxInt64, resets) })
	ways.Go(func() { p.carry(1, client, server, left, resets) })
	ways.Wait()
	client.Close()
	server.Close()
	p.mu.Lock()
	delete(p.conns, client)
	delete(p.conns, server)
	p.mu.Unlock()
}

// A packet is what arrives together.
type packet struct {
	data []byte
	due  time.Time
	err  error // the connection broke
}

// carry passes on what one side sends, and its end. Where it breaks, or when left
// bytes were passed on, both sides are cut.
func (p *Proxy) carry(way int, to, from *net.TCPConn, left int64, resets bool) {
	line := make(chan packet, 16)
	p.wg.Go(func() { p.receive(from, line) })
	switch err := p.deliver(way, to, line, left); {
	case err == nil:
		_ = to.CloseWrite() // the other way tells if it is gone
		return
	case err == errCut && !resets:
		to.Close()
		from.Close()
	default:
		reset(to)
		reset(from)
	}
	for range line { // until the receiver ends, too
	}
}

func (p *Proxy) receive(from *net.TCPConn, line chan<- packet) {
	defer close(line)
	for {
		data := make([]byte, 8<<10)
		n, err := from.Read(data)
		if err == io.EOF {
			return
		}
		p.mu.Lock()
		due := time.Now().Add(p.faults.Latency)
		p.mu.Unlock()
		line <- packet{data[:n], due, err}
		if err != nil {
			return
		}
	}
}

var errCut = errors.New("the proxy cuts the connection")

func (p *Proxy) deliver(way int, to *net.TCPConn, line <-chan packet, left int64) error {
	for packet := range line {
		n := min(int64(len(packet.data)), left)
		if !p.await(way, packet.due, n) {
			return errCut
		}
		if packet.err != nil {
			return packet.err
		}
		if _, err := to.Write(packet.data[:n]); err != nil {
			return err
		}
		if left -= n; left == 0 {
			return errCut
		}
	}
	if !p.await(way, time.Now(), 0) { // an end arrives no sooner
		return errCut
	}
	return nil
}

// await waits until a packet of n bytes arrives.
func (p *Proxy) await(way int, due time.Time, n int64) bool {
	p.mu.Lock()
	whole := p.whole
	p.mu.Unlock()
	select {
	case <-whole:
	case <-p.over:
		return false
	}
	p.mu.Lock()
	if rate := int64(p.faults.BytesPerSecond); rate > 0 {
		if now := time.Now(); p.free[way].Before(now) {
			p.free[way] = now
		}
		p.free[way] = p.free[way].Add(time.Duration(n) * time.Second / time.Duration(rate))
		if p.free[way].After(due) {
			due = p.free[way]
		}
	}
	p.mu.Unlock()
	select {
	case <-time.After(time.Until(due)):
		return true
	case <-p.over:
		return false
	}
}

// Via is the server as clients of that HTTP client reach it at another address. It is
// for requests alone.
func (s *Server) Via(addr string, client *http.Client) *Server {
	return &Server{Ctx: s.Ctx, HTTP: client, once: once(client), Addr: addr, URL: "http://" + addr, t: s.t}
}

// once returns a client like it that has a connection for each request.
func once(client *http.Client) *http.Client {
	alone := client.Transport.(*http.Transport).Clone()
	alone.DisableKeepAlives = true
	return &http.Client{Transport: alone, Timeout: client.Timeout}
}
