package web

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// maxUnsent bounds what the kernel holds for a client that does not read, which
// would otherwise be megabytes.
const maxUnsent = 4 << 10

func limitUnsent(conn net.Conn) error {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	if err := raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, maxUnsent)
	}); err != nil {
		return err
	}
	return os.NewSyscallError("setsockopt", set)
}
