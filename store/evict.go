package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sort"

	bolt "go.etcd.io/bbolt"
)

const (
	// maxRemoved is about how many blocks and keys are removed in one transaction.
	// What is evicted beyond that is no longer served, and is removed later.
	maxRemoved = 8192
	// maxSwept is how many logs are swept in one transaction.
	maxSwept = 256
	// maxCaution is by how much both are divided on a full disk, at most.
	maxCaution = maxRemoved / 8
)

// A removal is what a commit removes of what is evicted.
type removal int

const (
	removeAll    removal = iota
	removeBeyond         // what is behind the last page that cannot be read
	removeNone
)

// evict moves first to the oldest event that the retention allows. Events in its way
// that are corrupt, or on a page that cannot be read, go too.
func (c *commit) evict(name string, s *state) {
	exceeds := func() bool { return c.db.retention.exceeds(*s, c.now) }
	if !exceeds() {
		return
	}
	for b := range readable(c.events.Cursor(), name, s.first, s.last) {
		for d := b.events(); d.more(); {
			if d.seq <= s.first {
				continue
			}
			s.first, s.firstTime, s.evicted = d.seq, d.time, d.total
			if !exceeds() {
				return
			}
		}
	}
	s.first, s.evicted = s.last+1, s.total
}

// removeEvicted removes the blocks that hold nothing from first on, and the
// idempotency keys of what they held. What is on a page that cannot be read stays.
func (c *commit) removeEvicted(name string, s *state) error {
	end := blockKey(nil, name, s.first)
	s.leftover = c.remove == removeNone
	if s.leftover {
		return nil
	}
	for _, bucket := range []*bolt.Bucket{c.events, c.order} {
		cur := bucket.Cursor()
		start := blockKey(nil, name, 0)
		if c.remove == removeBeyond {
			start = blockKey(nil, name, beyondUnreadable(cur, name, s.first))
		}
		for {
			k, _ := cur.Seek(start)
			if k == nil || bytes.Compare(k, end) >= 0 {
				break
			}
			if c.removed++; c.removed > c.atMost {
				s.leftover = true
				return nil
			}
			if bucket == c.order {
				if err := c.removeKey(name, k); err != nil {
					return err
				}
			}
			if err := cur.Delete(); err != nil {
				return err
			}
		}
	}
	return nil
}

// beyondUnreadable returns a sequence, first at most, after which all that is evicted
// of the log is on pages that can be read.
func beyondUnreadable(cur *bolt.Cursor, name string, first uint64) (seq uint64) {
	end := blockKey(nil, name, first)
	for seq < first {
		from := seq
		err := guard(func() {
			for k, _ := cur.Seek(blockKey(nil, name, seq)); k != nil && bytes.Compare(k, end) < 0; k, _ = cur.Next() {
				from = max(from, binary.BigEndian.Uint64(k[len(name)+1:])+1)
			}
		})
		if err == nil {
			return seq
		}
		// The page ends where seeking succeeds again.
		seq = from
		seq += uint64(sort.Search(int(first-from), func(i int) bool {
			return guard(func() { cur.Seek(blockKey(nil, name, from+uint64(i))) }) == nil
		}))
	}
	return first
}

// findSweeps finds the logs that hold what is to be evicted or removed. It also
// counts the streams.
func (db *DB) findSweeps() error {
	now := db.now()
	db.sweeps = nil
	streams := int64(0)
	err := db.view(func(tx *bolt.Tx) error {
		return tx.Bucket(stateBucket).ForEach(func(k, v []byte) error {
			streams++
			s, err := decodeState(string(k), v)
			if err == nil && (s.leftover || db.retention.exceeds(s, now)) {
				db.sweeps = append(db.sweeps, string(k))
			}
			return nil
		})
	})
	db.streams.Store(streams)
	return err
}

// sweep evicts and removes what it is time for, of a few of the logs. It takes pages to
// give pages back: where a full disk has too few, it tries with less at a time.
func (db *DB) sweep() error {
	if len(db.sweeps) == 0 {
		return nil
	}
	n := min(max(1, maxSwept/db.caution), len(db.sweeps))
	if db.remove != removeAll {
		n = 1 // as none is removed of where one cannot be
	}
	names := db.sweeps[:n]
	db.sweeps = db.sweeps[n:]
	err := db.commit(func(c *commit) error {
		c.atMost /= db.caution
		for _, name := range names {
			l, err := c.log(name)
			if err != nil {
				return err
			}
			l.changed = true
		}
		return nil
	})
	switch {
	case err == nil:
		db.caution = max(1, db.caution/2)
	case errors.Is(err, ErrNoSpace) && db.caution < maxCaution:
		db.caution *= 4
		db.sweeps = append(names, db.sweeps...)
	}
	return err
}
