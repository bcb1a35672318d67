package store

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/windows"
)

// lockShared locks the file against those that open it to write, as bbolt does. Any
// number can have the lock.
func lockShared(f *os.File, timeout time.Duration) error {
	const last = 1<<32 - 1 // bbolt locks the last byte that there can be
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0,
			&windows.Overlapped{Offset: last, OffsetHigh: last})
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, windows.ERROR_LOCK_VIOLATION):
			return err
		case time.Since(start) > timeout:
			return ErrLocked
		}
	}
}
