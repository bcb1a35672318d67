package web_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"lastevent/store"
	"lastevent/web"
)

// A client that goes away while nothing happens is given up without a heartbeat; one
// that only closes its own side is served on.
func TestHangUp(t *testing.T) {
	s := newSite(t, store.Options{}, func(c *web.Config) { c.Heartbeat = time.Hour })
	s.post("/sse/s", "first").want(201)
	subscribe := func() (*net.TCPConn, *bufio.Reader) {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		fmt.Fprint(conn, "GET /sse/s HTTP/1.1\r\nHost: localhost\r\n\r\n")
		r := bufio.NewReader(conn)
		readUntil(t, r, "data: {")
		return conn.(*net.TCPConn), r
	}
	clients := func(want string) {
		t.Helper()
		deadline := time.Now().Add(10 * time.Second)
		for !strings.Contains(s.get("/sse").body, `"clients":`+want+",") {
			if time.Now().After(deadline) {
				t.Fatalf("not %s clients: %s", want, s.get("/sse").body)
			}
			time.Sleep(time.Millisecond)
		}
	}
	closed, _ := subscribe()
	reset, _ := subscribe()
	half, halfReader := subscribe()
	clients("3")
	closed.Close()
	clients("2")
	reset.SetLinger(0)
	reset.Close()
	clients("1")
	half.CloseWrite()
	s.post("/sse/s", "second").want(201)
	readUntil(t, halfReader, "data: second")
	clients("1")
}

func readUntil(t *testing.T, r *bufio.Reader, part string) {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		if strings.Contains(line, part) {
			return
		}
		if err != nil && err != io.EOF {
			t.Fatal(err)
		} else if err == io.EOF {
			t.Fatalf("ended before %q", part)
		}
	}
}
