package web

import (
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A watcher sees clients hang up, all of them in one goroutine. Without it, one that
// waits for events is found gone only by the second heartbeat.
type watcher struct {
	fd   int
	file *os.File // of fd, for the runtime to wait on

	mu      sync.Mutex          // guards clients, and fd against being closed
	clients map[int32]hangUpper // nil once the watcher is closed
}

func newWatcher() (*watcher, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return nil, fmt.Errorf("web: watching connections: %w", err)
	}
	w := &watcher{fd: fd, file: os.NewFile(uintptr(fd), "epoll"), clients: map[int32]hangUpper{}}
	raw, err := w.file.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("web: watching connections: %w", err)
	}
	go w.run(raw)
	return w, nil
}

// run ends when the watcher is closed.
func (w *watcher) run(raw syscall.RawConn) {
	var events [128]unix.EpollEvent
	for {
		var n int
		err := raw.Read(func(fd uintptr) bool {
			n, _ = unix.EpollWait(int(fd), events[:], 0)
			return n > 0
		})
		if err != nil {
			return
		}
		w.mu.Lock()
		for _, e := range events[:n] {
			if c := w.clients[e.Fd]; c != nil {
				c.hungUp()
			}
		}
		w.mu.Unlock()
	}
}

// watch tells the client when it has closed its side of the connection, and when the
// connection is reset. It returns a name for the connection, or 0 where
// that cannot be seen.
func (w *watcher) watch(raw syscall.RawConn, c hangUpper) int32 {
	e := unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLET}
	_ = raw.Control(func(fd uintptr) { // fails on a closed connection, as a write will
		e.Fd = int32(fd)
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.clients == nil {
			return
		}
		w.clients[e.Fd] = c
		_ = unix.EpollCtl(w.fd, unix.EPOLL_CTL_ADD, int(fd), &e)
	})
	return e.Fd
}

// forget takes the name that watch returned. Another connection may have it already.
func (w *watcher) forget(name int32, c hangUpper) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.clients[name] == c {
		delete(w.clients, name)
	}
}

func (w *watcher) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clients = nil
	_ = w.file.Close() // nothing was written to it
}
