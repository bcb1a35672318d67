package web

import (
	"errors"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxUnsent bounds what the kernel holds for a client that does not read, which
// would otherwise be megabytes. For one at a unix socket it holds twice maxBuffered, of
// which it makes half a write.
const (
	maxUnsent   = 4 << 10
	maxBuffered = 16 << 10
)

func limitUnsent(raw syscall.RawConn) error {
	var set error
	err := raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, maxUnsent)
		if set != nil { // it is not of TCP
			set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, maxBuffered)
		}
	})
	return errors.Join(err, os.NewSyscallError("setsockopt", set))
}

// cork holds back what is written next until the connection is closed for writing, so
// that the client gets the end of a response and that of its connection at once, and
// does not send another request on it.
func cork(raw syscall.RawConn) error {
	var set error
	err := raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, 1) })
	return errors.Join(err, os.NewSyscallError("setsockopt", set))
}

// waitWritable waits until the kernel takes more. A write that only tries would have it
// fill up what it holds already, beyond the limit.
func waitWritable(raw syscall.RawConn) error {
	if raw == nil {
		return nil
	}
	return raw.Write(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 0)
		return n > 0 || err != nil
	})
}

// A nowWriter is one write. It is used again, as its function would cost an
// allocation a write.
type nowWriter struct {
	p     []byte
	n     int
	err   error
	write func(fd uintptr)
}

var nowWriters = sync.Pool{New: func() any {
	w := new(nowWriter)
	w.write = func(fd uintptr) { w.n, w.err = unix.Write(int(fd), w.p) }
	return w
}}

const canWriteNow = true

// writeNow writes as much of p as the kernel takes at once.
func writeNow(raw syscall.RawConn, p []byte) (int, error) {
	w := nowWriters.Get().(*nowWriter)
	defer nowWriters.Put(w)
	w.p = p
	// Control and not Write, which would heed a deadline that has passed.
	err := raw.Control(w.write)
	w.p = nil
	switch {
	case err != nil:
		return 0, err
	case w.err == unix.EAGAIN || w.err == unix.EINTR:
		return 0, nil
	case w.err != nil:
		return 0, os.NewSyscallError("write", w.err)
	}
	return w.n, nil
}
