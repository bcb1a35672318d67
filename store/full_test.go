package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fill makes the file as if the disk were full: it takes no more pages than it has. It
// appends until not even a small append finds room.
func fill(t *testing.T, db *DB) {
	t.Helper()
	db.bolt.MaxSize = 1
	for size := 1 << 20; size > 0; size /= 2 {
		for {
			_, err := db.Log("filler").Append(t.Context(), batch(strings.Repeat("x", size)))
			if errors.Is(err, ErrNoSpace) {
				break
			}
			must(t, err)
		}
	}
	if err := db.Err(); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("on a full disk Err is %v", err)
	}
}

// TestFullDiskHasRoomAgain: where nobody appends, as the DB says that the disk is full,
// it finds out by itself.
func TestFullDiskHasRoomAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := OpenForTest(t, tempFile(t), Options{})
		mustAppend(t, db.Log("s"), "a")
		fill(t, db)
		db.bolt.MaxSize = 0
		time.Sleep(sweepEvery - time.Second)
		if err := db.Err(); !errors.Is(err, ErrNoSpace) {
			t.Errorf("before anybody has looked, Err is %v", err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if err := db.Err(); err != nil {
			t.Errorf("when there is room again, Err is %v", err)
		}
		mustAppend(t, db.Log("s"), "b")
		wantRead(t, db.Log("s"), 0, "1 a", "2 b")
	})
}

// TestRetentionOnAFullDisk: what expires is removed, although that takes pages before it
// gives any back, and nothing can be appended.
func TestRetentionOnAFullDisk(t *testing.T) {
	for _, test := range []struct {
		name            string
		streams, events int
		size            int // of an event
	}{
		{"one event of two in each of many pages", 600, 1, 900},
		{"one large log", 1, 3000, 1800},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := OpenForTest(t, tempFile(t), Options{Retention: Retention{Age: 10 * minute}})
				data := slices.Repeat([]string{strings.Repeat("x", test.size)}, test.events)
				appendToEach := func(data []string) {
					for i := range test.streams {
						mustAppend(t, db.Log(fmt.Sprint("s", i)), data...)
					}
				}
				time.Sleep(7 * time.Second)
				appendToEach(data)
				time.Sleep(5 * minute)
				appendToEach(data[:1])
				fill(t, db)
				time.Sleep(6 * minute)
				synctest.Wait()
				stored := storedEvents(t, db.path)
				for i := range test.streams {
					events := stored[fmt.Sprint("s", i)]
					if n := len(events); n != 1 || events[0].Seq != uint64(test.events+1) {
						t.Fatalf("stream %d has %d events in the file, from %d on, when all but the last expired a minute ago", i, n, events[0].Seq)
					}
				}
				if err := db.Err(); err != nil {
					t.Errorf("what was removed has made room, and Err is %v", err)
				}
				db.bolt.MaxSize = 0 // for the file's check when it is closed
			})
		})
	}
}
