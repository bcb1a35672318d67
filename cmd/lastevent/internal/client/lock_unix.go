//go:build unix

package client

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockFile locks a file as long as it is open.
func lockFile(f *os.File) error {
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}
