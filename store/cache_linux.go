package store

import (
	"os"

	"golang.org/x/sys/unix"
)

// dropCache makes what is read of the file come from the disk: after a failed sync the
// page cache may hold, as if it were clean, what never got there.
func dropCache(f *os.File) error {
	return os.NewSyscallError("fadvise", unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
}

// readAhead has a part of the file read in the background. It is no more than a hint.
func readAhead(f *os.File, offset, length int64) {
	_ = unix.Fadvise(int(f.Fd()), offset, length, unix.FADV_WILLNEED)
}
