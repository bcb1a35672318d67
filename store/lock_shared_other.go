//go:build (!unix && !windows) || solaris || aix

package store

import (
	"os"
	"time"
)

// lockShared locks nothing: bbolt's lock here cannot be taken without bbolt.
func lockShared(*os.File, time.Duration) error { return nil }
