package store

import (
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"
)

// A recorder keeps what a DB says of itself.
type recorder struct {
	mu      sync.Mutex // guards all
	commits []Commit
	answers []error
}

func (r *recorder) Committed(c Commit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commits = append(r.commits, c)
}

func (r *recorder) Answered(_ Receipt, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers = append(r.answers, err)
}

// total adds up what was committed, and counts the failures.
func (r *recorder) total() (sum Commit, failed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.commits {
		if c.Err != nil {
			failed++
		}
		sum.Events += c.Events
		sum.Bytes += c.Bytes
		sum.Evicted.Number += c.Evicted.Number
		sum.Evicted.Bytes += c.Evicted.Bytes
		sum.Evicted.Age += c.Evicted.Age
		sum.Evicted.Deleted += c.Evicted.Deleted
		sum.Took += c.Took
		sum.Sync += c.Sync
	}
	return sum, failed
}

func TestObserver(t *testing.T) {
	r := &recorder{}
	db := OpenForTest(t, tempFile(t), Options{Observer: r})
	l := db.Log("s")
	mustAppend(t, l, "a", "bc", "def")
	mustAppend(t, l, "g")
	must(t, l.Delete(t.Context()))
	sum, failed := r.total()
	if sum.Took <= 0 || sum.Sync <= 0 || sum.Sync > sum.Took {
		t.Errorf("%v of %v were syncs", sum.Sync, sum.Took)
	}
	sum.Took, sum.Sync = 0, 0
	want := Commit{Events: 4, Bytes: uint64(4*len("message") + len("abcdefg")), Evicted: Evicted{Deleted: 4}}
	if sum != want || failed != 0 || len(r.commits) != 3 {
		t.Errorf("%d commits, of which %d failed: %+v; want 3: %+v", len(r.commits), failed, sum, want)
	}
	if !slices.Equal(r.answers, []error{nil, nil}) {
		t.Errorf("the appends were answered with %v", r.answers)
	}
}

// Each event that is evicted counts for the limit that it exceeded.
func TestObserverOfEvictions(t *testing.T) {
	const size = len("message") + 1 // of an event
	for name, test := range map[string]struct {
		retention Retention
		want      Evicted
	}{
		"number": {Retention{Events: 2, Bytes: 100, Age: minute}, Evicted{Number: 3, Age: 2}},
		"bytes":  {Retention{Events: 4, Bytes: uint64(2 * size)}, Evicted{Number: 1, Bytes: 2}},
		"age":    {Retention{Age: minute}, Evicted{Age: 5}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{}
				db := OpenForTest(t, tempFile(t), Options{Retention: test.retention, Observer: r})
				mustAppend(t, db.Log("s"), "a", "b", "c", "d", "e")
				time.Sleep(2 * minute)
				synctest.Wait()
				if sum, _ := r.total(); sum.Evicted != test.want {
					t.Errorf("%+v, want %+v", sum.Evicted, test.want)
				}
			})
		})
	}
}

// What is refused or fails is not counted as appended.
func TestObserverOfFailures(t *testing.T) {
	r := &recorder{}
	db := OpenForTest(t, tempFile(t), Options{Observer: r})
	fill(t, db)
	before, failed := r.total()
	if failed == 0 || before.Events != int(mustBounds(t, db.Log("filler")).Last) {
		t.Errorf("%d commits failed, and %d events were appended", failed, before.Events)
	}
	_, err := db.Log("s").Append(t.Context(), batch(strings.Repeat("x", 1<<20)))
	after, again := r.total()
	if !errors.Is(err, ErrNoSpace) || after != before || again != failed+1 || !errors.Is(r.commits[len(r.commits)-1].Err, ErrNoSpace) {
		t.Errorf("%v; then %d failed, %+v; before, %d, %+v", err, again, after, failed, before)
	}
	if last := r.answers[len(r.answers)-1]; !errors.Is(last, ErrNoSpace) {
		t.Errorf("the append was answered with %v", last)
	}
}

func TestStats(t *testing.T) {
	path := tempFile(t)
	db := OpenForTest(t, path, Options{})
	for range 20 { // so that pages are free
		mustAppend(t, db.Log("s"), strings.Repeat("x", 100_000))
		mustAppend(t, db.Log("t"), "y")
	}
	must(t, db.Log("s").Delete(t.Context()))
	s, err := db.Stats()
	must(t, err)
	info, err := os.Stat(path)
	must(t, err)
	if s.Streams != 2 || s.FileBytes != uint64(info.Size()) {
		t.Errorf("%+v; the file has %d bytes", s, info.Size())
	}
	if want := uint64(freeIn(t, path)); s.FreeBytes != want || want < 20*100_000 || want > s.FileBytes {
		t.Errorf("%d bytes are free, want %d", s.FreeBytes, want)
	}
	if s.DiskBytes == 0 {
		t.Error("no room is left on the disk")
	}
}

// freeIn is how many bytes of a file, which may be open, bbolt takes for free.
func freeIn(t *testing.T, path string) (n int) {
	content, err := os.ReadFile(path)
	must(t, err)
	b, err := bolt.Open(writeTemp(t, content), 0o600, &bolt.Options{PreLoadFreelist: true})
	must(t, err)
	n = b.Stats().FreePageN * pageSize
	must(t, b.View(func(tx *bolt.Tx) error {
		n += len(content) - int(tx.Size()) // behind the last page
		return nil
	}))
	must(t, b.Close())
	return n
}

// Stats can be asked for at any time.
func TestStatsWhileAppending(t *testing.T) {
	db := OpenForTest(t, tempFile(t), Options{Retention: Retention{Events: 10}})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 200 {
			mustAppend(t, db.Log("s"), strings.Repeat("x", 5000))
		}
	}()
	for {
		s, err := db.Stats()
		if err != nil || s.FreeBytes >= s.FileBytes {
			t.Fatalf("%+v, %v", s, err)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}
