package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// state is what is stored of a log beside its blocks, under the stream's name:
//
//	CRC-32C of the name and of what follows (4)
//	flags (1)
//	first, last (8 each)
//	total, evicted: bytes of all events ever appended, of those before first (8 each)
//	firstTime, lastTime: Unix nanoseconds of the events first and last (8 each)
type state struct {
	closed              bool
	leftover            bool // blocks before first are still to be removed
	first, last         uint64
	total, evicted      uint64
	firstTime, lastTime int64
}

const (
	stateSize = 4 + 1 + 6*8

	stateClosed   = 1
	stateLeftover = 2
)

// newState is that of a log never written.
func newState(base uint64) state { return state{first: base + 1, last: base} }

func (s state) empty() bool { return s.first > s.last }

func (s state) encode(name string) []byte {
	b := make([]byte, 4, stateSize)
	var flags byte
	if s.closed {
		flags |= stateClosed
	}
	if s.leftover {
		flags |= stateLeftover
	}
	b = append(b, flags)
	for _, v := range []uint64{s.first, s.last, s.total, s.evicted, uint64(s.firstTime), uint64(s.lastTime)} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	binary.BigEndian.PutUint32(b, crcOf([]byte(name), b))
	return b
}

// loadState reads the state stored for the stream. One without blocks and without a
// state was never written.
func loadState(states, events *bolt.Bucket, name string) (s state, stored bool, err error) {
	b := states.Get([]byte(name))
	if b == nil {
		prefix := blockKey(nil, name, 0)[:len(name)+1]
		if k, _ := events.Cursor().Seek(prefix); bytes.HasPrefix(k, prefix) {
			return state{}, false, errState(name)
		}
		m := metaIn(events.Tx())
		return newState(m.base), false, m.check()
	}
	s, err = decodeState(name, b)
	return s, true, err
}

// checkStates checks that each state is where it is looked for: one that is not would
// pass for that of a stream never written, whose numbers begin again. Beside one that
// is not whole, of which the name may be another, none can be written with certainty:
// then nothing is.
func (db *DB) checkStates(tx *bolt.Tx) error {
	db.pages.begin(tx)
	t := db.pages.tree(tx.Bucket(stateBucket))
	for p, err := range t.places(nil, nil) {
		if err = cmp.Or(err, t.look(p)); err != nil {
			return fmt.Errorf("%w (it has the last sequences of streams)", err)
		}
	}
	return t.ForEach(func(k, v []byte) error {
		if _, err := decodeState(string(k), v); err != nil {
			db.unwritable = fmt.Errorf("%s %w", db.path, err)
		}
		return nil
	})
}

func errState(name string) error {
	return fmt.Errorf("%w: the state of stream %q, which holds its last sequence", ErrDamaged, name)
}

func decodeState(name string, b []byte) (state, error) {
	if len(b) != stateSize || binary.BigEndian.Uint32(b) != crcOf([]byte(name), b) {
		return state{}, errState(name)
	}
	u := func(i int) uint64 { return binary.BigEndian.Uint64(b[5+8*i:]) }
	return state{
		closed:    b[4]&stateClosed != 0,
		leftover:  b[4]&stateLeftover != 0,
		first:     u(0),
		last:      u(1),
		total:     u(2),
		evicted:   u(3),
		firstTime: int64(u(4)),
		lastTime:  int64(u(5)),
	}, nil
}

// boundsOf returns what a log in this state holds. Nothing in it has expired.
func (db *DB) boundsOf(s state) Bounds {
	b := Bounds{Log: db.id, First: s.first, Last: s.last, Bytes: s.total - s.evicted, Closed: s.closed}
	if age := db.retention.Age; age > 0 && !s.empty() {
		b.Expires = time.Unix(0, s.firstTime).Add(age)
	}
	return b
}

// exceeds reports whether the oldest event has to go.
func (r Retention) exceeds(s state, now time.Time) bool {
	return !s.empty() &&
		(r.Events > 0 && s.last-s.first+1 > r.Events ||
			r.Bytes > 0 && s.total-s.evicted > r.Bytes ||
			r.expired(s.firstTime, now))
}

// expired reports whether an event of that time is too old to be kept.
func (r Retention) expired(at int64, now time.Time) bool {
	return r.Age > 0 && at <= now.Add(-r.Age).UnixNano()
}
