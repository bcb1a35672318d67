//go:build linux

package browsertest

import (
	"bytes"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// A proxy passes TCP connections on to a server, and breaks them as it is told.
type proxy struct {
	Addr string
	to   string

	mu         sync.Mutex // guards what follows
	conns      map[net.Conn]bool
	began      []time.Time // when subscriptions came in
	beginnings int         // how many responses got as far as their position
	away       string      // the answer to who comes: "" passes on, refused, unavailable
	budget     int         // bytes to pass back until the connections are cut; 0: no limit
}

// What a proxy does with who comes.
const (
	passOn      = ""
	refuse      = "reset"
	beginOnly   = "pass on up to the position"
	unavailable = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)

func startProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Addr: l.Addr().String(), to: to, conns: map[net.Conn]bool{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return // closed
			}
			p.mu.Lock()
			p.conns[client] = true
			p.mu.Unlock()
			wg.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.Cut()
		wg.Wait()
	})
	return p
}

// Cut resets all connections.
func (p *proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		reset(c)
	}
}

func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// CutAfter resets the connections once n more bytes came back.
func (p *proxy) CutAfter(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.budget = n
}

// Answer is what the proxy does from now on with who comes.
func (p *proxy) Answer(how string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = how
}

// Subscriptions returns when they came in.
func (p *proxy) Subscriptions() []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.began)
}

// Beginnings returns how many responses got as far as their position.
func (p *proxy) Beginnings() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.beginnings
}

func (p *proxy) serve(client net.Conn) {
	defer func() {
		reset(client)
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, client)
	}()
	buf := make([]byte, 32<<10)
	n, err := client.Read(buf)
	if err != nil {
		return
	}
	server, answer := p.connect(buf[:n])
	if server == nil {
		_, _ = io.WriteString(client, answer) // who does not wait for it has no use for it
		client.Close()
		return
	}
	defer server.Close()
	if _, err := server.Write(buf[:n]); err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.passBack(client, server)
		reset(client)
	}()
	for err == nil {
		if n, err = client.Read(buf); n > 0 {
			p.note(buf[:n])
			_, err = server.Write(buf[:n])
		}
	}
	server.Close()
	<-done
}

// note counts a subscription.
func (p *proxy) note(request []byte) {
	if bytes.HasPrefix(request, []byte("GET /sse/")) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.began = append(p.began, time.Now())
	}
}

// connect connects with the server, or gives the answer to make do with.
func (p *proxy) connect(request []byte) (server net.Conn, answer string) {
	p.note(request)
	p.mu.Lock()
	away := p.away
	p.mu.Unlock()
	switch away {
	case refuse:
		return nil, ""
	case unavailable:
		return nil, unavailable
	}
	server, err := net.Dial("tcp", p.to)
	if err != nil {
		return nil, ""
	}
	return server, ""
}

// passBack copies from the server until a side is gone or the budget is spent. The
// end of the server's side is passed on as an end.
func (p *proxy) passBack(client, server net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := server.Read(buf)
		n, spent := p.spend(buf[:n])
		if _, err := client.Write(buf[:n]); err != nil || spent {
			return
		}
		if err != nil {
			client.Close()
			return
		}
	}
}

// spend returns how many of the bytes may pass, and whether they are the last.
func (p *proxy) spend(b []byte) (n int, spent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if bytes.Contains(b, []byte("event: position")) {
		p.beginnings++
		if p.away == beginOnly {
			return len(b), true
		}
	}
	if p.budget == 0 || len(b) < p.budget {
		p.budget = max(0, p.budget-len(b))
		return len(b), false
	}
	n, p.budget = p.budget, 0
	return n, true
}
