//go:build !linux

package web

import "syscall"

func limitUnsent(syscall.RawConn) error { return nil }

func waitWritable(syscall.RawConn) error { return nil }

func cork(syscall.RawConn) error { return nil }

const canWriteNow = false

func writeNow(syscall.RawConn, []byte) (int, error) { panic("not possible here") }
