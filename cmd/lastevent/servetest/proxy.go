//go:build unix

package servetest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// DroppingProxy passes connections on to addr, and cuts each when so many bytes came
// back as budget says for it. It returns its own address, and lasts as long as the
// test.
func DroppingProxy(t *testing.T, addr string, budget func() int64) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return // closed
			}
			n := budget()
			wg.Go(func() { passOn(client, addr, n, done) })
		}
	})
	t.Cleanup(func() {
		close(done)
		l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// passOn connects the client with addr until n bytes came back, or a side is gone.
func passOn(client net.Conn, addr string, n int64, done <-chan struct{}) {
	server, err := net.Dial("tcp", addr)
	if err != nil {
		client.Close()
		return
	}
	over := make(chan struct{}, 2)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(server, client) // each way ends when a side is gone
		over <- struct{}{}
	})
	wg.Go(func() {
		_, _ = io.CopyN(client, server, n)
		over <- struct{}{}
	})
	select {
	case <-over:
	case <-done:
	}
	client.Close()
	server.Close()
	wg.Wait()
}
