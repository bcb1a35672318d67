//go:build linux

package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// The limit is a server that does the least for the same bytes: a raw write of each
// event to each socket in one loop, and a replay from memory in writes of 64 KiB. It
// is good for what is measured and nothing else.
type limitServer struct {
	mu      sync.Mutex // guards streams
	streams map[string]*limitStream
}

type limitStream struct {
	mu      sync.Mutex // guards the rest
	log     []byte     // all events as they go over the wire
	ends    []int      // where in it each event ends
	clients []*net.TCPConn
	sockets []int // the clients'
}

func serveLimit([]byte, *json.Encoder) error {
	l, err := listenLocal()
	if err != nil {
		return err
	}
	s := &limitServer{streams: map[string]*limitStream{}}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			if err := s.serve(conn.(*net.TCPConn)); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}()
	}
}

// serve answers publishes until the connection's end, or one subscription.
func (s *limitServer) serve(conn *net.TCPConn) error {
	in := bufio.NewReader(conn)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return conn.Close()
		}
		stream := s.stream(r.URL.Path)
		if r.Method == http.MethodGet {
			return stream.subscribe(conn, r.Header.Get("Last-Event-ID"))
		}
		events, err := readEvents(r)
		if err == nil {
			err = stream.publish(events)
		}
		if err != nil {
			return err
		}
		if _, err := conn.Write([]byte("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")); err != nil {
			return err
		}
	}
}

func (s *limitServer) stream(path string) *limitStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[path] == nil {
		s.streams[path] = &limitStream{}
	}
	return s.streams[path]
}

func (s *limitStream) publish(events []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := len(s.log)
	for _, data := range events {
		s.log = fmt.Appendf(s.log, "id: %d\ndata: %s\n\n", len(s.ends)+1, data)
		s.ends = append(s.ends, len(s.log))
	}
	for _, socket := range s.sockets {
		if err := writeAll(socket, s.log[from:]); err != nil {
			return err
		}
	}
	return nil
}

// writeAll writes to a socket that does not block.
func writeAll(socket int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(socket, p)
		switch err {
		case nil:
			p = p[n:]
		case unix.EAGAIN:
			_, err = unix.Poll([]unix.PollFd{{Fd: int32(socket), Events: unix.POLLOUT}}, 1000)
			if err != nil && err != unix.EINTR {
				return os.NewSyscallError("poll", err)
			}
		default:
			return os.NewSyscallError("write", err)
		}
	}
	return nil
}

// subscribe writes the beginning and what the client missed, and has it follow. A
// client that has its beginning misses nothing that is published then, unless it is
// during a replay, which nobody does.
func (s *limitStream) subscribe(conn *net.TCPConn, after string) error {
	const begin = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nretry: 1000\n\n"
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := conn.Write([]byte(begin)); err != nil {
		return err
	}
	if missed := s.missedLocked(after); len(missed) > 0 {
		s.mu.Unlock()
		err := writeBlocks(conn, missed)
		s.mu.Lock()
		if err != nil {
			return err
		}
	}
	s.clients = append(s.clients, conn) // which keeps the socket open
	return raw.Control(func(fd uintptr) { s.sockets = append(s.sockets, int(fd)) })
}

func (s *limitStream) missedLocked(after string) []byte {
	n, err := strconv.Atoi(after)
	switch {
	case err != nil || n >= len(s.ends):
		return nil
	case n == 0:
		return s.log
	}
	return s.log[s.ends[n-1]:]
}

func writeBlocks(conn net.Conn, p []byte) error {
	for len(p) > 0 {
		n, err := conn.Write(p[:min(len(p), 64<<10)])
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}
