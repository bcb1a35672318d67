package store

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// TestRetentionIsExactAtAnyTime reads a full log while others append to it: it always
// holds the newest events, as many as are retained, also while a commit that evicts is
// being synced.
func TestRetentionIsExactAtAnyTime(t *testing.T) {
	const retained = 100
	for name, test := range map[string]struct {
		each int // events that are appended at once
		age  time.Duration
	}{
		"a few":           {each: 7},
		"more than all":   {each: retained + 50},
		"none is too old": {each: 7, age: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := OpenForTest(t, tempFile(t), Options{Retention: Retention{Events: retained, Age: test.age}})
			l, data := db.Log("s"), make([]string, test.each)
			mustAppend(t, l, make([]string, retained)...)
			var wg sync.WaitGroup
			defer wg.Wait()
			end := make(chan struct{})
			defer close(end)
			wg.Go(func() {
				for {
					select {
					case <-end:
						return
					default:
						mustAppend(t, l, data...)
					}
				}
			})
			for n, last := 0, uint64(0); n < 200; {
				b, err := wantNewest(t, db, retained)
				must(t, err)
				if b.Last > last {
					n, last = n+1, b.Last
				}
			}
		})
	}
}

// wantNewest reads stream s, and says if it does not hold so many events.
func wantNewest(t *testing.T, db *DB, retained uint64) (Bounds, error) {
	l, next := db.Log("s"), uint64(0)
	b, err := l.Read(t.Context(), 0, func(e Event) bool {
		if next == 0 {
			next = e.Seq
		}
		if e.Seq == next {
			next++
		}
		return true
	})
	bounds, err2 := l.Bounds(t.Context())
	streams, err3 := db.Streams(t.Context())
	after, err4 := l.Before(t.Context(), time.Unix(0, 0))
	if err := errors.Join(err, err2, err3, err4); err != nil {
		return b, err
	}
	if next != b.Last+1 || len(streams) != 1 || after < b.First-1 {
		return b, fmt.Errorf("read up to %d of %+v, %d streams, all are after %d", next-1, b, len(streams), after)
	}
	for _, b := range []Bounds{b, bounds, streams[0].Bounds} {
		if n := b.Last - b.First + 1; n != retained || b.Bytes != retained*uint64(len("message")) {
			return b, fmt.Errorf("%d events are retained: %+v; want %d", n, b, retained)
		}
	}
	return b, nil
}
