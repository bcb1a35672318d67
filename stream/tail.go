package stream

import (
	"context"
	"sort"
	"sync"
	"sync/atomic"

	"lastevent/store"
)

const (
	// blockSize is about how much is written to a client at once. With the event that
	// exceeds it, which is a small one as a rule, it fits in a chunk of 64 KiB.
	blockSize = 62 << 10
	// tailBlocks is how many full blocks a tail keeps beside the open one.
	tailBlocks = 16
)

// A tail holds the newest events of a stream as they go over the wire.
//
// All that its readers see is in one immutable view behind an atomic pointer. The
// log's follower, the only writer, replaces it, and closes the old one's changed.
// Nothing is overwritten: a new view's blocks share the memory of the old one's,
// and a reader looks only at what its own view says is there.
type tail struct {
	log     Log
	clients int // guarded by Set.mu

	startMu  sync.Mutex // guards started
	started  bool
	unfollow func()

	view atomic.Pointer[view]
}

// A view is a tail at one moment.
type view struct {
	bounds  store.Bounds
	full    []*block
	open    block         // the newest events; follows the full ones
	changed chan struct{} // closed once there is a newer view
}

// A block is consecutive events, encoded.
type block struct {
	first uint64
	buf   []byte
	ends  []uint32 // where in buf each event ends
}

// next is the sequence after the block's last.
func (b *block) next() uint64 { return b.first + uint64(len(b.ends)) }

// after returns the encoded events after the sequence, at most limit of them, and
// the sequence of the last one.
func (b *block) after(seq, limit uint64) ([]byte, uint64) {
	start := uint32(0)
	if seq >= b.first {
		start = b.ends[seq-b.first]
	}
	last := b.next() - 1
	if last-seq > limit {
		last = seq + limit
	}
	return b.buf[start:b.ends[last-b.first]], last
}

// event returns one encoded event.
func (b *block) event(seq uint64) []byte {
	p, _ := b.after(seq-1, 1)
	return p
}

func (b *block) add(e store.Event) {
	b.buf = SSE.Event(b.buf, e)
	b.ends = append(b.ends, uint32(len(b.buf)))
}

// first is the sequence of the oldest event that the view holds, or the one after
// the newest.
func (v *view) first() uint64 {
	if len(v.full) > 0 {
		return v.full[0].first
	}
	return v.open.first
}

// behind reports whether the event after seq is retained, but not in the view.
func (v *view) behind(seq uint64) bool {
	return seq < v.bounds.Last && seq+1 >= v.bounds.First && seq+1 < v.first()
}

// block returns the one that holds the event after seq, which must be in the view.
func (v *view) block(seq uint64) *block {
	if seq+1 >= v.open.first {
		return &v.open
	}
	i := sort.Search(len(v.full), func(i int) bool { return v.full[i].next() > seq+1 })
	return v.full[i]
}

// start makes the tail follow its log, unless it does already.
func (t *tail) start(ctx context.Context) error {
	t.startMu.Lock()
	defer t.startMu.Unlock()
	if t.started {
		return nil
	}
	stop, err := t.log.Follow(ctx, t.update)
	if err == nil {
		t.started, t.unfollow = true, stop
	}
	return err
}

func (t *tail) stop() {
	t.startMu.Lock()
	defer t.startMu.Unlock()
	if t.started {
		t.unfollow()
	}
}

// update replaces the view. Events that it has are skipped; where it misses some,
// it begins anew after them, and its readers get them from the log.
func (t *tail) update(b store.Bounds, events []store.Event) {
	old := t.view.Load()
	if old == nil {
		t.view.Store(&view{bounds: b, open: block{first: b.Last + 1}, changed: make(chan struct{})})
		return
	}
	v := &view{bounds: b, full: old.full, open: old.open, changed: make(chan struct{})}
	if b.Log != old.bounds.Log {
		v.full, v.open = nil, block{first: b.Last + 1 - uint64(len(events))}
	}
	for _, e := range events {
		if e.Seq < v.open.next() {
			continue
		}
		if e.Seq > v.open.next() {
			v.full, v.open = nil, block{first: e.Seq}
		}
		v.add(e)
	}
	if v.open.next() != b.Last+1 {
		v.full, v.open = nil, block{first: b.Last + 1}
	}
	t.view.Store(v)
	close(old.changed)
}

// add appends an event to the open block, and begins a new one when it is full.
func (v *view) add(e store.Event) {
	v.open.add(e)
	if len(v.open.buf) < blockSize {
		return
	}
	full := v.open
	keep := v.full[max(0, len(v.full)-tailBlocks+1):]
	v.full = append(keep[:len(keep):len(keep)], &full)
	v.open = block{first: full.next(), buf: make([]byte, 0, blockSize+blockSize/8)}
}
