package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"sort"
	"time"

	bolt "go.etcd.io/bbolt"

	"lastevent/stream/sse"
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
func (l *Log) Read(_ context.Context, after uint64, yield func(Event) bool) (Bounds, error) {
	return l.walk(after, func(b block, next *uint64, last uint64) bool {
		for d := b.events(); d.more() && d.seq <= last; {
			if d.seq < *next {
				continue
			}
			*next++
			if !yield(d.event) {
				return false
			}
		}
		return true
	})
}

// ReadText is Read for what goes over the wire: it appends to dst the text of the
// events up to the sequence to, until dst has size bytes or somewhat more. Last is the
// sequence of the last event that it appended; after, if that is none.
func (l *Log) ReadText(_ context.Context, after, to uint64, dst []byte, size int) (text []byte, last uint64, b Bounds, err error) {
	last = after
	b, err = l.walk(after, func(b block, next *uint64, newest uint64) bool {
		end := min(b.last, newest, to)
		if *next > end {
			return false
		}
		if text := b.text(*next, end); b.form == formText && text != nil {
			dst = append(dst, text...)
			*next = end + 1
		} else {
			for d := b.events(); d.more() && d.seq <= end; {
				if d.seq == *next {
					dst = sse.AppendEvent(dst, d.event.Type, d.seq, d.event.Data)
					*next++
				}
			}
		}
		last = *next - 1
		return len(dst) < size && *next <= to
	})
	return dst, last, b, err
}

// walk calls visit with the log's blocks in turn, until it returns false. A visit is
// for the block's events from next to last, as far as the block has them, and moves
// next on.
func (l *Log) walk(after uint64, visit func(b block, next *uint64, last uint64) bool) (b Bounds, err error) {
	var start, next uint64
	err = l.db.view(func(tx *bolt.Tx) error {
		cur, s, evicting, err := l.state(tx)
		b = l.db.boundsOf(s)
		start = max(after+1, b.First)
		next = start
		if err != nil || after >= b.Last {
			return err
		}
		if evicting != nil && start < evicting.first {
			return evicting
		}
		corruptTo := b.Last
		for block := range blocks(cur, l.name, next, b.Last) {
			if block.first > next {
				corruptTo = min(block.first-1, b.Last)
				break
			}
			if !visit(block, &next, b.Last) {
				return nil
			}
		}
		if next == start && next <= b.Last {
			return &CorruptError{Stream: l.name, First: next, Last: corruptTo}
		}
		return nil
	})
	if errors.Is(err, ErrDamaged) && after < b.Last { // a page of events cannot be read
		if next > start {
			return b, nil
		}
		err = &CorruptError{Stream: l.name, First: start, Last: l.unreadableTo(start, b.Last)}
	}
	return b, err
}

// maxProbes is how many events are tried one by one to find the end of a page that
// cannot be read: more than fit on one.
const maxProbes = 4096

// unreadableTo returns the last event, from seq on, on a page that cannot be read.
func (l *Log) unreadableTo(seq, last uint64) uint64 {
	for end := seq + maxProbes; seq < last && seq < end; seq++ {
		next := last + 1
		err := l.db.view(func(tx *bolt.Tx) error {
			for b := range blocks(tx.Bucket(eventsBucket).Cursor(), l.name, seq+1, last) {
				next = b.first
				break
			}
			return nil
		})
		if err == nil {
			return max(seq, next-1)
		}
	}
	return last
}

// Before returns the sequence after which the events since t begin: that of the
// newest retained event before t, else First - 1.
func (l *Log) Before(_ context.Context, t time.Time) (after uint64, err error) {
	err = l.db.view(func(tx *bolt.Tx) error {
		cur, s, evicting, err := l.state(tx)
		switch {
		case err != nil:
			return err
		case evicting != nil:
			return evicting
		}
		after = l.since(cur, s, nanos(t)).seq - 1
		return nil
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
	cur, s, _, err := l.state(tx)
	return cur, l.db.boundsOf(s), err
}

// state returns the log's state, of what is synced and not expired, and a cursor
// over its blocks. With evicting, the transaction does not have all of these.
func (l *Log) state(tx *bolt.Tx) (cur *bolt.Cursor, s state, evicting *evictingError, err error) {
	events := tx.Bucket(eventsBucket)
	if s, _, err = loadState(tx.Bucket(stateBucket), events, l.name); err != nil {
		return nil, newState(0), nil, err
	}
	s, evicting = l.db.synced(tx, l.name, s)
	cur = events.Cursor()
	if now := l.db.now(); !s.empty() && l.db.retention.expired(s.firstTime, now) {
		if evicting != nil {
			return nil, newState(0), nil, evicting
		}
		e := l.since(cur, s, now.Add(-l.db.retention.Age).UnixNano()+1)
		s.first, s.firstTime, s.evicted = e.seq, e.time, e.total
	}
	return cur, s, evicting, nil
}

// An inFlight is a transaction that is not yet known to be synced.
type inFlight struct {
	id     int
	before map[string]state // of its logs
	known  chan struct{}    // closed when it is synced, or has failed
}

// An evictingError says that a read transaction does not have all that is retained: a
// transaction in flight, which it sees, has removed what is before first.
type evictingError struct {
	first uint64
	known <-chan struct{} // closed when it is no longer in flight
}

func (*evictingError) Error() string { return "events are being evicted" }

// synced returns a state that a read transaction sees without what is not yet known
// to be synced. It must be called after the transaction began: a commit that ended
// in between is synced. What a failed one has evicted is gone.
func (db *DB) synced(tx *bolt.Tx, name string, s state) (state, *evictingError) {
	f := db.inFlight.Load()
	if f == nil || tx.ID() < f.id {
		return s, nil
	}
	before, ok := f.before[name]
	switch {
	case !ok:
		return s, nil
	case s.first == before.first:
		return before, nil
	case db.failure.Load() != nil:
		before.first, before.evicted = min(s.first, before.last+1), min(s.evicted, before.total)
		before.firstTime = s.firstTime
		return before, nil
	}
	return before, &evictingError{s.first, f.known}
}

// An edge is an event with the bytes of all events of the log before it.
type edge struct {
	seq   uint64
	time  int64
	total uint64
}

// since returns the oldest event from first to last that is not older than at, or
// what would come after last.
func (l *Log) since(cur *bolt.Cursor, s state, at int64) edge {
	end := edge{seq: s.last + 1, total: s.total}
	find := func(seq uint64) edge {
		for b := range readable(cur, l.name, seq, s.last) {
			for d := b.events(); d.more(); {
				if d.seq >= seq {
					return edge{d.seq, d.time, d.total}
				}
			}
		}
		return end
	}
	n := sort.Search(int(s.last-s.first+1), func(i int) bool {
		e := find(s.first + uint64(i))
		return e == end || e.time >= at
	})
	return find(s.first + uint64(n))
}

// maxForeign is how many keys that are not whole blocks of a log are looked past in
// a row to find its next one: about as many as a damaged page may hold.
const maxForeign = 256

// blocks yields the log's whole blocks in order, from the one that holds seq on to
// the one that holds last. Where the key of one is damaged, it may stand anywhere.
func blocks(cur *bolt.Cursor, name string, seq, last uint64) iter.Seq[block] {
	return func(yield func(block) bool) {
		key := blockKey(nil, name, seq)
		prefix := key[:len(name)+1]
		foreign := 0
		for k, v := cur.Seek(key); k != nil && seq <= last && foreign < maxForeign; k, v = cur.Next() {
			b, err := parseBlock(k, v)
			if err != nil || !bytes.HasPrefix(k, prefix) || b.last < seq {
				foreign++
				continue
			}
			if !yield(b) {
				return
			}
			seq, foreign = b.last+1, 0
		}
	}
}

// readable is blocks, and goes past pages that cannot be read.
func readable(cur *bolt.Cursor, name string, seq, last uint64) iter.Seq[block] {
	return func(yield func(block) bool) {
		for probes := 0; seq <= last && probes < maxProbes; probes++ {
			err := guard(func() {
				for b := range blocks(cur, name, seq, last) {
					seq, probes = b.last+1, 0
					if !yield(b) {
						return
					}
				}
			})
			if err == nil {
				return
			}
			seq++
		}
	}
}

// guard runs fn and returns what bbolt, or a fault, panics with where a page cannot
// be read.
func guard(fn func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	fn()
	return nil
}
