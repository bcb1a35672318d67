package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// maxDelay is the longest pause between two tries, unless the server asks for more.
const maxDelay = 15 * time.Second

// Backoff returns the pause after so many failures in a row: twice the base at each
// more, up to 15 s, and between half of that and all, so that clients which failed
// together do not come again together.
func Backoff(base time.Duration, failures int) time.Duration {
	d := maxDelay
	if n := failures - 1; n < 10 {
		d = min(base<<n, maxDelay)
	}
	return d/2 + rand.N(d/2+1)
}

// delay is the backoff after an error, and no less than the server asks for with it.
func delay(base time.Duration, failures int, err error) time.Duration {
	d := Backoff(base, failures)
	if e, ok := errors.AsType[*Error](err); ok && e.After > 0 {
		d = max(d, e.After+rand.N(base))
	}
	return d
}

// Pause waits, or returns why the context has ended.
func Pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
