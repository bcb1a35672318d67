package web

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// fullEvery is how often it is told that there are as many connections as can be.
const fullEvery = time.Second

// Connections bound how many connections listeners have in all. Those beyond wait until
// one is closed.
type Connections struct {
	places chan struct{} // holds a token for each
	full   func()
}

// NewConnections allows so many, at least 1. While some wait, full is called, at most
// once a second, to see to that.
func NewConnections(most int, full func()) *Connections {
	now := rate.Sometimes{Interval: fullEvery}
	return &Connections{places: make(chan struct{}, most), full: func() { now.Do(full) }}
}

// Limit returns the listener with the bound on its connections.
func (c *Connections) Limit(l net.Listener) net.Listener {
	return &limitedListener{Listener: l, connections: c, closed: make(chan struct{})}
}

type limitedListener struct {
	net.Listener
	connections *Connections
	once        sync.Once
	closed      chan struct{}
}

// Accept takes a place only for a connection that there is, as the other listeners
// need it, too.
func (l *limitedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if !l.takePlace() {
		_ = conn.Close() // nothing was written to it
		return nil, net.ErrClosed
	}
	return &placedConn{Conn: conn, places: l.connections.places}, nil
}

// takePlace waits for a place, and reports false when the listener is closed.
func (l *limitedListener) takePlace() bool {
	places := l.connections.places
	for {
		select {
		case places <- struct{}{}:
			return true
		default:
			l.connections.full()
		}
		select {
		case places <- struct{}{}:
			return true
		case <-time.After(fullEvery):
		case <-l.closed:
			return false
		}
	}
}

func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// A placedConn gives its place back when it is closed.
type placedConn struct {
	net.Conn
	places <-chan struct{}
	closed atomic.Bool
}

func (c *placedConn) Close() error {
	err := c.Conn.Close()
	if !c.closed.Swap(true) {
		<-c.places
	}
	return err
}

// CloseWrite is what net/http asks of a connection.
func (c *placedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
