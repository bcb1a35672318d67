package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// waitUnread waits until nobody reads from the pipe any more.
func waitUnread(pipe *os.File) bool {
	for {
		fds := []unix.PollFd{{Fd: int32(pipe.Fd())}} // errors are always told
		if n, err := unix.Poll(fds, -1); err != unix.EINTR {
			return n > 0
		}
	}
}
