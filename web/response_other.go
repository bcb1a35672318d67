//go:build !linux

package web

import "syscall"

func limitUnsent(syscall.RawConn) error { return nil }

// writeNow writes nothing, as it might have to wait.
func writeNow(syscall.RawConn, []byte) (int, error) { return 0, nil }
