//go:build unix

package servetest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
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

// commandWith prepares the program with files that it inherits, as systemd passes them.
// Which process they are for only the process itself knows.
func commandWith(files []*os.File, args ...string) *exec.Cmd {
	cmd := exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, binary}, args...)...)
	cmd.ExtraFiles, cmd.Env = files, []string{fmt.Sprint("LISTEN_FDS=", len(files))}
	return cmd
}

// RunPassed is Run with a file passed to the program as systemd passes sockets.
func RunPassed(t *testing.T, dir string, file *os.File, args ...string) (status int, stderr string) {
	t.Helper()
	cmd := commandWith([]*os.File{file}, args...)
	cmd.Env = environment(cmd.Env...)
	return runIn(t, dir, cmd)
}

// StartPassed is Start with sockets that the test listens at and passes to each of the
// server's processes, as systemd does: one for each network, which is tcp or unix. The
// server's Addr is the first.
func StartPassed(t *testing.T, networks ...string) *Server {
	t.Helper()
	var files []*os.File
	var addrs, serves []string
	for _, network := range networks {
		addr, prefix := FreeAddr(t), "http://"
		if network == "unix" {
			addr, prefix = socketPath(t), unixPrefix
		}
		serves = append(serves, prefix+addr)
		addrs = append(addrs, strings.TrimPrefix(prefix, "http://")+addr)
		files = append(files, listening(t, network, addr))
	}
	s := prepare(t, addrs[0])
	s.args[2] = "127.0.0.1:1" // of --listen, in whose place they are
	s.passed, s.serves = files, strings.Join(serves, " ")
	s.Restart()
	return s
}

// listening is a socket that stays open, and listens, as long as the test.
func listening(t *testing.T, network, addr string) *os.File {
	t.Helper()
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
	return file
}

// Served is where the server says that it serves, in the first line of its log.
func (s *Server) Served() []string { return strings.Fields(s.serves) }

// dial connects to the server, whatever address the client has in mind.
func (s *Server) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if path, ok := strings.CutPrefix(s.Addr, unixPrefix); ok {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", s.Addr)
}
