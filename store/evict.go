package store

import (
	"bytes"
	"cmp"
	"errors"

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
			c.countEvicted(s, d.seq)
			s.first, s.firstTime, s.evicted = d.seq, d.time, d.total
			if !exceeds() {
				return
			}
		}
	}
	c.countEvicted(s, s.last+1)
	s.first, s.evicted = s.last+1, s.total
}

// removeEvicted removes the blocks that hold nothing from first on, and the
// idempotency keys of what they held. What is on a page that cannot be read, or beside
// one, stays.
func (c *commit) removeEvicted(name string, s *state) error {
	s.leftover = false
	start, end := blockKey(nil, name, 0), blockKey(nil, name, s.first)
	for _, t := range []*tree{c.events, c.order} {
		for p, err := range t.places(start, end) {
			if err = cmp.Or(err, t.lookAround(p)); err != nil {
				c.db.damaged(err)
				continue
			}
			to := end
			if p.to != nil && bytes.Compare(p.to, end) < 0 {
				to = p.to
			}
			if err := c.removeRange(t, name, later(start, p.from), to); err != nil || c.removed > c.atMost {
				s.leftover = true
				return err
			}
		}
	}
	return nil
}

// removeRange removes a log's blocks, or entries of the order, from a key up to another
// in the same leaf.
func (c *commit) removeRange(t *tree, name string, from, to []byte) error {
	cur := t.Cursor()
	for {
		k, _ := cur.Seek(from)
		if k == nil || bytes.Compare(k, to) >= 0 {
			return nil
		}
		if c.removed++; c.removed > c.atMost {
			return nil
		}
		if t == c.order {
			if err := c.removeKey(name, k); err != nil {
				return err
			}
		}
		if err := cur.Delete(); err != nil {
			return err
		}
	}
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
