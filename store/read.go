package store

import (
	"bytes"
	"context"
	"iter"
	"math"
	"sort"
	"time"

	bolt "go.etcd.io/bbolt"
)

// A Log is the events of one stream.
type Log struct {
	db   *DB
	name string
}

// Bounds returns what the log holds now.
func (l *Log) Bounds(context.Context) (b Bounds, err error) {
	err = l.db.view(func(tx *bolt.Tx) (err error) {
		_, b, err = l.bounds(tx)
		return err
	})
	return b, err
}

// Read calls yield with the retained events after the sequence, in order and each
// once, until there are no more or yield returns false. It returns the bounds of
// the moment that it read at: the first event is the later of after+1 and
// Bounds.First. The event's Data is valid only during the call, and yield must
// not wait for anybody.
//
// Events that are stored but not whole end it. Where they are the first that it
// would have to yield, the error is a CorruptError.
func (l *Log) Read(_ context.Context, after uint64, yield func(Event) bool) (b Bounds, err error) {
	err = l.db.view(func(tx *bolt.Tx) error {
		var cur *bolt.Cursor
		if cur, b, err = l.bounds(tx); err != nil || after >= b.Last {
			return err
		}
		start := max(after+1, b.First)
		next := start
		corruptTo := b.Last
	read:
		for block := range blocks(cur, l.name, next) {
			if block.first > next {
				corruptTo = min(block.first-1, b.Last)
				break
			}
			for e := range block.events() {
				if e.Seq < next {
					continue
				}
				if e.Seq > b.Last {
					break read
				}
				next++
				if !yield(e) {
					return nil
				}
			}
		}
		if next == start && next <= b.Last {
			return &CorruptError{Stream: l.name, First: next, Last: corruptTo}
		}
		return nil
	})
	return b, err
}

// Before returns the sequence after which the events since t begin: that of the
// newest retained event before t, else First - 1.
func (l *Log) Before(_ context.Context, t time.Time) (after uint64, err error) {
	err = l.db.view(func(tx *bolt.Tx) error {
		cur, b, err := l.bounds(tx)
		if err == nil {
			after, _ = l.since(cur, b.First, b.Last, nanos(t))
			after--
		}
		return err
	})
	return after, err
}

// nanos is t in Unix nanoseconds, or the nearest that there is.
func nanos(t time.Time) int64 {
	switch {
	case t.Year() < 1700:
		return math.MinInt64
	case t.Year() > 2200:
		return math.MaxInt64
	}
	return t.UnixNano()
}

// bounds returns the log's bounds, and a cursor over its blocks.
func (l *Log) bounds(tx *bolt.Tx) (*bolt.Cursor, Bounds, error) {
	events := tx.Bucket(eventsBucket)
	s, _, err := loadState(tx.Bucket(stateBucket), events, l.name)
	if err != nil {
		return nil, Bounds{}, err
	}
	s = l.db.synced(l.name, s)
	cur := events.Cursor()
	if now := l.db.now(); !s.empty() && l.db.retention.expired(s.firstTime, now) {
		s.first, s.firstTime = l.since(cur, s.first, s.last, now.Add(-l.db.retention.Age).UnixNano()+1)
	}
	return cur, l.db.boundsOf(s), nil
}

// synced returns a state that a read transaction sees without what is not yet known
// to be synced. It must be called after the transaction began: a commit that ended
// in between is synced.
func (db *DB) synced(name string, s state) state {
	if inFlight := db.inFlight.Load(); inFlight != nil {
		if before, ok := (*inFlight)[name]; ok {
			s.last, s.total = min(s.last, before.last), min(s.total, before.total)
			s.first, s.evicted = min(s.first, s.last+1), min(s.evicted, s.total)
			s.closed = s.closed && before.closed
		}
	}
	return s
}

// since returns the sequence and the time of the oldest event from first to last
// that is not older than at, or last + 1.
func (l *Log) since(cur *bolt.Cursor, first, last uint64, at int64) (uint64, int64) {
	timeOf := func(seq uint64) (at int64, ok bool) {
		for b := range blocks(cur, l.name, seq) {
			for e := range b.events() {
				if e.Seq >= seq {
					return e.Time.UnixNano(), true
				}
			}
		}
		return 0, false
	}
	n := sort.Search(int(last-first+1), func(i int) bool {
		t, ok := timeOf(first + uint64(i))
		return !ok || t >= at
	})
	seq := first + uint64(n)
	t, _ := timeOf(seq)
	return seq, t
}

// blocks yields the log's whole blocks in order, from the one that holds seq on.
func blocks(cur *bolt.Cursor, name string, seq uint64) iter.Seq[block] {
	return func(yield func(block) bool) {
		key := blockKey(nil, name, seq)
		prefix := key[:len(name)+1]
		for k, v := cur.Seek(key); bytes.HasPrefix(k, prefix); k, v = cur.Next() {
			b, err := parseBlock(k, v)
			if err != nil || b.last < seq {
				continue
			}
			if !yield(b) {
				return
			}
			seq = b.last + 1
		}
	}
}
