//go:build unix

package servetest

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// unixPrefix begins the Addr of a server at a socket.
const unixPrefix = "unix:"

// StartUnix is Start at a socket in a folder of its own.
func StartUnix(t *testing.T, flags ...string) *Server {
	t.Helper()
	return StartAt(t, unixPrefix+socketPath(t), flags...)
}

// socketPath is short enough for a socket, as a path below t.TempDir need not be.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lastevent-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "x.sock")
}

// withSockets has the program find the sockets that it inherits. Which process they are
// for only the process itself knows.
const withSockets = `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@"`

// StartPassed is Start with a socket that the test listens at and passes to each of the
// server's processes, as systemd does. It is of TCP, or of the unix domain.
func StartPassed(t *testing.T, network string, flags ...string) *Server {
	t.Helper()
	addr, prefix := freeAddr(t), ""
	if network == "unix" {
		addr, prefix = socketPath(t), unixPrefix
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	file, err := l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	s := prepare(t, prefix+addr, flags...)
	s.args[2] = "127.0.0.1:1" // of --listen, in whose place the socket is
	s.passed = []*os.File{file}
	s.Restart()
	return s
}

// dial connects to the server, whatever address the client has in mind.
func (s *Server) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if path, ok := strings.CutPrefix(s.Addr, unixPrefix); ok {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", s.Addr)
}
