//go:build unix && !solaris && !aix

package store

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// lockFile takes the lock that bbolt will take, on the same descriptor, so that
// the file can be looked at before bbolt opens it.
func lockFile(f *os.File, timeout time.Duration) error {
	return flock(f, syscall.LOCK_EX, timeout)
}

// lockShared locks the file against those that open it to write. Any number can have
// the lock.
func lockShared(f *os.File, timeout time.Duration) error {
	return flock(f, syscall.LOCK_SH, timeout)
}

func flock(f *os.File, how int, timeout time.Duration) error {
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return err
		case time.Since(start) > timeout:
			return ErrLocked
		}
	}
}
