//go:build unix && !solaris && !aix

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// listenUnix listens at the path, in the place of a server that is dead, but of none
// that lives.
func listenUnix(path string, mode fs.FileMode) (net.Listener, error) {
	// Who looks at a socket and removes it must be alone, or two that start together
	// could each remove the other's.
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("locking the folder: %w", err)
	}
	// The socket has its mode from the first moment on.
	defer syscall.Umask(syscall.Umask(int(^mode & fs.ModePerm)))
	l, err := net.Listen("unix", path)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return l, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return nil, errors.New("the file is there already, and is no socket")
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return nil, errors.New("another process listens there")
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("another process may listen there: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return nil, fmt.Errorf("the socket of a server that is dead cannot be removed: %w", err)
	}
	return net.Listen("unix", path)
}
