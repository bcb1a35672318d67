package jetstream

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"lastevent/store"
)

// stateHeader holds a log's state in each of its messages.
const stateHeader = "Lastevent-State"

// A state is what a log holds after a commit. Each commit is derived from the one before
// it, and only stored if that is still the newest: so numbers are contiguous, retention
// is exact, and what was closed stays closed, however many servers append.
type state struct {
	first, last uint64
	oldest      uint64 // JetStream sequence of the message with the event first; 0: of this one
	evicted     uint64 // bytes of all events before first
	total       uint64 // bytes of all events up to last
	time        int64  // of the newest event; Unix nanoseconds
	firstTime   int64  // of the event first
	closed      bool
	count       int    // events in this message
	keys        int    // receipts right after it
	nonce       uint64 // tells this commit from another that was tried on the same state
	number      uint64 // of this commit in its log, from 1
	// closedBy is the key that closed the log without an event, which it would go with: its
	// hash and its digest; empty: there is none.
	closedBy string
}

func (s *state) empty() bool { return s.first > s.last }

// written reports whether the log was ever written.
func (s *state) written() bool { return s.number > 0 }

func (s *state) encode() string {
	return fmt.Sprintf("1 %d %d %d %d %d %d %d %t %d %d %x %d %s", s.first, s.last, s.oldest,
		s.evicted, s.total, s.time, s.firstTime, s.closed, s.count, s.keys, s.nonce, s.number, cmp.Or(s.closedBy, "-"))
}

// closedKey is what closedBy says of a key.
func closedKey(hash string, digest [32]byte) string { return fmt.Sprintf("%s:%x", hash, digest) }

// closer returns the receipt of the key that closed the log without an event, if that is
// the one.
func (s *state) closer(hash string) *receipt {
	key, digest, _ := strings.Cut(s.closedBy, ":")
	if hash == "" || key != hash {
		return nil
	}
	r := &receipt{Receipt: store.Receipt{Last: s.last}}
	_, _ = hex.Decode(r.digest[:], []byte(digest)) // what is not a digest is nobody's
	return r
}

var errFormat = errors.New("is not a commit of lastevent")

func parseState(text string) (s state, err error) {
	f := strings.Split(text, " ")
	if len(f) != 14 || f[0] != "1" {
		return s, errFormat
	}
	number := func(i, base int) uint64 {
		n, e := strconv.ParseUint(f[i], base, 64)
		if e != nil {
			err = errFormat
		}
		return n
	}
	s = state{
		first:     number(1, 10),
		last:      number(2, 10),
		oldest:    number(3, 10),
		evicted:   number(4, 10),
		total:     number(5, 10),
		time:      int64(number(6, 10)),
		firstTime: int64(number(7, 10)),
		closed:    f[8] == "true",
		count:     int(number(9, 10)),
		keys:      int(number(10, 10)),
		nonce:     number(11, 16),
		number:    number(12, 10),
		closedBy:  f[13],
	}
	if s.closedBy == "-" {
		s.closedBy = ""
	}
	if f[13] == "" || f[8] != strconv.FormatBool(s.closed) || !s.sound() {
		err = errFormat
	}
	return s, err
}

// sound reports whether a state can be that of a log.
func (s *state) sound() bool {
	return s.number > 0 &&
		s.first > 0 && s.last < math.MaxUint64 && s.first <= s.last+1 &&
		s.evicted <= s.total &&
		s.time >= 0 && s.firstTime >= 0 &&
		s.keys >= 0 && s.count >= 0 && uint64(s.count) <= s.last
}

// A commit is a message as it is stored.
type commit struct {
	state
	origin *origin
	seq    uint64 // JetStream's
	data   []byte // its events, encoded
}

// firstEvent is the sequence of the commit's first event, or of the one after it.
func (c *commit) firstEvent() uint64 { return c.last + 1 - uint64(c.count) }

// block is what the commit's message holds beside the state.
func (c *commit) block() block { return block{c.firstEvent(), c.count, c.time, c.data} }

// before is the bytes of all events before the commit's.
func (c *commit) before() uint64 {
	total := c.total
	b := c.block()
	for e := range b.events {
		total -= size(&e)
	}
	return total
}

// A block is the events of a commit with what it takes to read them. It is the payload of
// the message, as an answer without the headers costs JetStream half.
type block struct {
	first uint64 // or the one after them, if there are none
	count int
	time  int64 // Unix nanoseconds
	data  []byte
}

// next is the sequence after the block's last event.
func (b *block) next() uint64 { return b.first + uint64(b.count) }

func (b *block) encode() []byte {
	p := make([]byte, 0, 3*binary.MaxVarintLen64+len(b.data))
	p = binary.AppendUvarint(p, b.first)
	p = binary.AppendUvarint(p, uint64(b.count))
	p = binary.AppendUvarint(p, uint64(b.time))
	return append(p, b.data...)
}

func parseBlock(p []byte) (b block, err error) {
	var numbers [3]uint64
	for i := range numbers {
		n, size := binary.Uvarint(p)
		if size <= 0 {
			return b, errFormat
		}
		numbers[i], p = n, p[size:]
	}
	// An event takes at least two bytes.
	if numbers[0] == 0 || numbers[0] >= math.MaxUint64-uint64(len(p)) || numbers[1] > uint64(len(p)/2) || numbers[2] > math.MaxInt64 {
		return b, errFormat
	}
	return block{numbers[0], int(numbers[1]), int64(numbers[2]), p}, nil
}

// events yields the block's events. What does not parse ends it early.
func (b *block) events(yield func(store.Event) bool) {
	rest, at := b.data, time.Unix(0, b.time)
	for seq := b.first; seq < b.next(); seq++ {
		e := store.Event{Seq: seq, Time: at}
		var typ []byte
		var ok bool
		if typ, rest, ok = field(rest); !ok {
			return
		}
		if e.Data, rest, ok = field(rest); !ok {
			return
		}
		e.Type = string(typ)
		if !yield(e) {
			return
		}
	}
}

// whole returns the block's events, if all of them parse.
func (b *block) whole() ([]store.Event, bool) {
	events := make([]store.Event, 0, b.count)
	for e := range b.events {
		events = append(events, e)
	}
	return events, len(events) == b.count
}

// An event in a message is its type and its data, with the length of each before it.
func appendEvent(dst []byte, e *store.Event) []byte {
	dst = append(binary.AppendUvarint(dst, uint64(len(e.Type))), e.Type...)
	return append(binary.AppendUvarint(dst, uint64(len(e.Data))), e.Data...)
}

func field(p []byte) (value, rest []byte, ok bool) {
	n, size := binary.Uvarint(p)
	if size <= 0 || n > uint64(len(p)-size) {
		return nil, nil, false
	}
	p = p[size:]
	return p[:n:n], p[n:], true
}

// size is what an event counts against the bytes retained.
func size(e *store.Event) uint64 { return uint64(len(e.Type) + len(e.Data)) }

// encodeReceipt is what is stored under an idempotency key.
func encodeReceipt(digest [32]byte, r store.Receipt) []byte {
	return fmt.Appendf(nil, "%x %d %d", digest, r.Last, r.Count)
}

func parseReceipt(p []byte) (digest [32]byte, r store.Receipt, err error) {
	f := strings.Split(string(p), " ")
	if len(f) != 3 {
		return digest, r, errFormat
	}
	raw, err1 := hex.DecodeString(f[0])
	last, err2 := strconv.ParseUint(f[1], 10, 64)
	count, err3 := strconv.Atoi(f[2])
	if err1 != nil || err2 != nil || err3 != nil || len(raw) != len(digest) {
		return digest, r, errFormat
	}
	return [32]byte(raw), store.Receipt{Last: last, Count: count}, nil
}
