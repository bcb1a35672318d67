//go:build !linux

package store

import "os"

// dropCache is for where it can be done.
func dropCache(*os.File) error { return nil }

func readAhead(*os.File, int64, int64) {}
