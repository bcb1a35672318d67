//go:build unix

package main

import (
	"math"
	"syscall"
)

// maxDescriptors is how many descriptors the process can have, or 0 if that is not
// limited. The runtime has raised the soft limit to the hard one.
func maxDescriptors() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || uint64(limit.Cur) > math.MaxInt32 {
		return 0
	}
	return int(limit.Cur)
}
