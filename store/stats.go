package store

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
)

// An Observer is told what a DB does, to count it. The DB waits for its methods, which
// are never called two at a time and must not call the DB.
type Observer interface {
	// Committed is called after each transaction, before anybody learns of it, and
	// after each that failed.
	Committed(Commit)
	// Answered is called before the answer to each append that was queued.
	Answered(Receipt, error)
}

// A Commit is what one transaction did.
type Commit struct {
	// Err is why it failed, as Append returns it; then all else is zero.
	Err error
	// Events is how many were appended, and Bytes what they count against
	// [Retention.Bytes].
	Events int
	Bytes  uint64
	// Evicted is how many events were evicted, by the limit that they exceeded.
	Evicted Evicted
	// Took is how long it was, and Sync how long of that its pages were written and
	// synced, which bbolt does in two steps.
	Took, Sync time.Duration
}

// Evicted counts events by why they are no longer retained: their number, bytes or
// age, or a delete.
type Evicted struct{ Number, Bytes, Age, Deleted uint64 }

// countEvicted counts the events from first up to next, which is retained or the one
// after last. They go for one reason.
func (c *commit) countEvicted(s *state, next uint64) {
	n := next - s.first
	switch r := c.db.retention; {
	case r.Events > 0 && s.last-s.first+1 > r.Events:
		c.evicted.Number += n
	case r.Bytes > 0 && s.total-s.evicted > r.Bytes:
		c.evicted.Bytes += n
	default:
		c.evicted.Age += n
	}
}

// observe tells the observer of a transaction that was synced.
func (db *DB) observe(c *commit, tx *bolt.Tx, begun time.Time) {
	if db.observer == nil {
		return
	}
	done := Commit{Evicted: c.evicted, Took: time.Since(begun)}
	stats := tx.Stats()
	done.Sync = stats.GetWriteTime()
	for name, l := range c.logs {
		done.Events += len(l.events)
		done.Bytes += l.state.total - c.before[name].total
	}
	db.observer.Committed(done)
}

// Stats is what a DB's file takes.
type Stats struct {
	// Streams is how many were ever written.
	Streams int
	// FileBytes is the size of the file, and FreeBytes how much of it is free: used
	// before it grows.
	FileBytes, FreeBytes uint64
	// DiskBytes is how much room is left on the file's disk; where that cannot be known,
	// as much as there can be.
	DiskBytes uint64
}

// Stats looks at the file. It waits for nobody.
func (db *DB) Stats() (Stats, error) {
	f, err := os.Open(db.path)
	if err != nil {
		return Stats{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Stats{}, err
	}
	s := Stats{Streams: db.StreamCount(), FileBytes: uint64(info.Size()), DiskBytes: diskBytes(filepath.Dir(db.path))}
	used, err := usedPages(f)
	if err != nil {
		return Stats{}, fmt.Errorf("%s %w", db.path, err)
	}
	s.FreeBytes = s.FileBytes - min(s.FileBytes, used*checkPageSize)
	return s, nil
}

// usedPages reads how many pages are in use. The file may be written meanwhile, and the
// free list with it: then it is read again.
func usedPages(f *os.File) (n uint64, err error) {
	for range 10 {
		var m checkMeta
		if m, err = readCheckMeta(f); err != nil {
			continue
		}
		c := &fileCheck{f: f, pages: m.pages}
		var h checkHead
		if h, err = c.readHead("free list", m.freeList, checkFreeList); err != nil {
			continue
		}
		if h.count < 0xFFFF {
			return m.pages - uint64(h.count), nil
		}
		var b [checkHeadSize + 8]byte
		if err = c.read(b[:], m.freeList); err == nil {
			return m.pages - checkOrder.Uint64(b[checkHeadSize:]), nil
		}
	}
	return 0, err
}
