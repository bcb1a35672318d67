//go:build !linux

package main

import "os"

// waitUnread cannot tell here. The next write will.
func waitUnread(*os.File) bool { return false }
