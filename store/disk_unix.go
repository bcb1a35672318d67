//go:build linux || darwin

package store

import (
	"math"

	"golang.org/x/sys/unix"
)

// diskBytes is how much room the disk of a folder has for what is not root's.
func diskBytes(dir string) uint64 {
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) != nil {
		return math.MaxUint64
	}
	return s.Bavail * uint64(s.Bsize)
}
