package store

import (
	"sync/atomic"
	"testing"
	"time"
)

// TestFollowFromTheBoundsOn appends after Follow has read the bounds and before it
// returns: the follower hears of that too.
func TestFollowFromTheBoundsOn(t *testing.T) {
	var l *Log
	var following atomic.Bool
	appended := make(chan struct{})
	db := OpenForTest(t, tempFile(t), Options{Now: func() time.Time {
		if following.CompareAndSwap(true, false) {
			go func() {
				defer close(appended)
				mustAppend(t, l, "a")
			}()
			select {
			case <-appended:
			case <-time.After(50 * time.Millisecond): // it waits for Follow, rightly
			}
		}
		return time.Now()
	}})
	l = db.Log("s")
	following.Store(true)
	var heard atomic.Uint64
	stop, err := l.Follow(t.Context(), func(b Bounds, _ []Event) { heard.Store(b.Last) })
	must(t, err)
	defer stop()
	<-appended
	if heard.Load() != 1 {
		t.Errorf("heard of the last sequence %d; want 1", heard.Load())
	}
}
