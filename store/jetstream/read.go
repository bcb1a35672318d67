package jetstream

import (
	"cmp"
	"context"
	"errors"
	"sort"
	"time"

	"github.com/nats-io/nats.go"

	"lastevent/store"
)

const (
	// fetchBytes and fetchCount are how much is asked for at once.
	fetchBytes = 256 << 10
	fetchCount = 1000
	// maxPlaces is how many places of a log are remembered.
	maxPlaces = 256
	// maxChunks is how many answers are kept for whoever reads on.
	maxChunks = 2
)

// A place says from which JetStream message on events are found, in one answer.
type place struct{ first, last, seq uint64 }

// places are some of a log's, in order.
type places []place

func (ps *places) add(p place) {
	s := *ps
	i := sort.Search(len(s), func(i int) bool { return s[i].first >= p.first })
	if i < len(s) && s[i].first == p.first {
		return
	}
	if len(s) == maxPlaces { // every second one is enough to find the others
		kept := s[:0]
		for j := range s {
			if j%2 == 0 {
				kept = append(kept, s[j])
			}
		}
		*ps = kept
		ps.add(p)
		return
	}
	s = append(s, place{})
	copy(s[i+1:], s[i:])
	s[i] = p
	*ps = s
}

// around returns the last place that begins at or before seq, and the first one after it.
func (ps places) around(seq uint64) (low, high place, hasLow, hasHigh bool) {
	i := sort.Search(len(ps), func(i int) bool { return ps[i].first > seq })
	if i > 0 {
		low, hasLow = ps[i-1], true
	}
	if i < len(ps) {
		high, hasHigh = ps[i], true
	}
	return low, high, hasLow, hasHigh
}

// commits returns the log's commits from a JetStream sequence up to another, which must
// be a commit's, as far as they come in one answer. None: there is none at all.
func (k *log) commits(ctx context.Context, o *origin, from, to uint64) ([]commit, error) {
	return k.fetch(ctx, o, from, to, fetchCount)
}

// fetch is commits, of so many. All are of one replica, so that none is missing between
// two of them, or before the first, that was there when the last was stored. A replica
// that has nothing so late is behind, and asked again.
func (k *log) fetch(ctx context.Context, o *origin, from, to uint64, count int) (commits []commit, err error) {
	if from > to {
		return nil, nil
	}
	ctx, cancel := k.db.within(ctx, patience/2)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		commits, later, err := k.answer(ctx, getRequest{NextFor: k.subject(o), Seq: max(from, 1), Batch: count, MaxBytes: fetchBytes}, to)
		if len(commits) > 0 || later || errors.Is(err, errFormat) {
			return commits, err
		}
		m, leaderErr := k.db.leaderNext(ctx, k.subject(o), from)
		if leaderErr == nil && m != nil {
			c, err := parseCommit(m)
			if err != nil || c.seq > to {
				return nil, err
			}
			return []commit{c}, nil
		}
		pause(ctx, wait)
		if ctx.Err() != nil {
			return nil, k.unavailable(cmp.Or(err, leaderErr, errMaybe))
		}
	}
}

// answer returns the commits of one replica's answer, up to one, and whether it has a
// later one. Each message names the one before it in the answer, of which none may be
// lost on the way.
func (k *log) answer(ctx context.Context, r getRequest, to uint64) (commits []commit, later bool, err error) {
	before := uint64(0)
	_, _, getErr := k.db.get(ctx, r, func(m *nats.Msg) bool {
		if headerNumber(m, "Nats-Last-Sequence") != before {
			return false
		}
		var c commit
		if c, err = parseCommit(m); err != nil {
			return false
		}
		before = c.seq
		if c.seq > to {
			later = true
			return false
		}
		commits = append(commits, c)
		return true
	})
	return commits, later, cmp.Or(err, getErr)
}

// find returns the JetStream sequence from which on to look for the event seq.
func (k *log) find(ctx context.Context, c commit, seq uint64) (uint64, error) {
	for {
		k.mu.Lock()
		low, high, hasLow, hasHigh := k.places.around(seq)
		k.mu.Unlock()
		if !hasLow || low.seq < c.oldest {
			low = place{c.first, c.first, c.oldest}
		}
		if hasLow && seq <= low.last {
			return low.seq, nil
		}
		if !hasHigh || high.seq > c.seq {
			high = place{c.last + 1, c.last + 1, c.seq + 1}
		}
		if high.first-low.last <= fetchCount/2 || high.seq-low.seq <= fetchCount {
			return low.seq, nil
		}
		mid := low.seq + (high.seq-low.seq)/2
		commits, err := k.fetch(ctx, c.origin, mid, c.seq, 1)
		if err != nil {
			return 0, err
		}
		if len(commits) == 0 || commits[0].seq >= high.seq { // none in the upper half
			commits, err = k.fetch(ctx, c.origin, low.seq, mid, fetchCount)
			if err != nil || len(commits) == 0 || !k.note(c.origin, commits) {
				return low.seq, err
			}
			continue
		}
		if !k.note(c.origin, commits) {
			return low.seq, nil
		}
	}
}

// note remembers where commits are, and reports whether that was new.
func (k *log) note(o *origin, commits []commit) (news bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if o != k.db.origin.Load() {
		return false
	}
	for _, c := range commits {
		if c.count == 0 {
			continue
		}
		low, _, has, _ := k.places.around(c.firstEvent())
		if has && low.first == c.firstEvent() {
			continue
		}
		k.places.add(place{c.firstEvent(), c.last, c.seq})
		news = true
	}
	return news
}

// Read calls yield with the retained events after the sequence, in order and each once,
// until there are no more or yield returns false. It returns the bounds of the moment
// that it read at. The event's Data is valid only during the call.
//
// Events that are not there, though they should be, end it. Where they are the first
// that it would have to yield, the error is a [store.CorruptError].
func (l *Log) Read(ctx context.Context, after uint64, yield func(store.Event) bool) (store.Bounds, error) {
	k := l.log()
	c, err := k.current(ctx)
	if err != nil {
		return store.Bounds{}, err
	}
	b, err := k.bounds(ctx, c)
	if err != nil || after >= b.Last {
		return b, err
	}
	start := max(after+1, b.First)
	next, hole, err := k.read(ctx, c, start, b.Last, func(_ *block, e store.Event) bool { return yield(e) })
	if err != nil || next > start || next > b.Last {
		return b, err
	}
	// The first of them is not there: it may have been evicted meanwhile.
	now, err := l.Bounds(ctx)
	if err != nil || now.First > start || now.Log != b.Log {
		return now, err
	}
	return b, &store.CorruptError{Stream: k.name, First: start, Last: min(b.Last, hole)}
}

// read yields the events from one to another, as far as they follow each other, and
// returns the one to come next; where that is missing, hole is the last that is.
func (k *log) read(ctx context.Context, c commit, next, last uint64, yield func(*block, store.Event) bool) (_, hole uint64, err error) {
	for next <= last {
		blocks, err := k.blocks(ctx, c, next)
		if err != nil || len(blocks) == 0 {
			return next, last, err
		}
		for i := range blocks {
			b := &blocks[i]
			if b.next() <= next {
				continue
			}
			if b.first > next {
				return next, b.first - 1, nil
			}
			for e := range b.events {
				if e.Seq != next {
					continue
				}
				if next++; !yield(b, e) || next > last {
					return next, 0, nil
				}
			}
			if next < b.next() { // it does not parse
				return next, b.next() - 1, nil
			}
		}
	}
	return next, 0, nil
}

// A chunk is blocks that follow each other, of one answer.
type chunk struct {
	origin *origin
	blocks []block
	after  uint64 // JetStream sequence that the next block is after
}

func (ch *chunk) first() uint64 { return ch.blocks[0].first }
func (ch *chunk) next() uint64  { return ch.blocks[len(ch.blocks)-1].next() }

// reaches reports whether the chunk has the event, or ends before it.
func (ch *chunk) reaches(next uint64) bool { return len(ch.blocks) > 0 && ch.first() <= next }

// blocks returns some of the log's blocks, with the event next, unless that is missing:
// then they begin after it, or there are none. The commit is the log's newest.
func (k *log) blocks(ctx context.Context, c commit, next uint64) ([]block, error) {
	found, from := k.recall(c.origin, next)
	if found != nil {
		return found, nil
	}
	for quick := true; ; {
		var ch chunk
		var err error
		if from == 0 {
			if from, err = k.find(ctx, c, next); err != nil {
				return nil, err
			}
		}
		if quick {
			if ch = k.quick(ctx, c.origin, from); !ch.reaches(next) {
				quick, from = false, 0
				continue
			}
		} else if ch, err = k.slow(ctx, from, c); err != nil || !ch.reaches(next) {
			return ch.blocks, err
		}
		k.remember(c.origin, ch, from)
		if ch.next() > next {
			return ch.blocks, nil
		}
		from = ch.after + 1
	}
}

// quick returns what some replica has from a JetStream sequence on, without headers, so
// that it cannot be told if messages were lost on the way before the first or after the
// last block. It may have nothing.
func (k *log) quick(ctx context.Context, o *origin, from uint64) (ch chunk) {
	request := getRequest{NextFor: k.subject(o), Seq: max(from, 1), Batch: fetchCount, MaxBytes: fetchBytes, NoHeaders: true}
	whole := true
	after, _, err := k.db.get(ctx, request, func(m *nats.Msg) bool {
		b, err := parseBlock(m.Data)
		whole = err == nil && (len(ch.blocks) == 0 || b.first == ch.next())
		ch.blocks = append(ch.blocks, b)
		return whole
	})
	if err != nil || !whole || after < from {
		return chunk{}
	}
	ch.after = after
	return ch
}

// slow returns what there is from a JetStream sequence on, for sure.
func (k *log) slow(ctx context.Context, from uint64, c commit) (ch chunk, err error) {
	commits, err := k.commits(ctx, c.origin, from, c.seq)
	for i := range commits {
		ch.blocks = append(ch.blocks, commits[i].block())
		ch.after = commits[i].seq
	}
	return ch, err
}

// remember keeps a chunk, and that its events are found from a JetStream sequence on.
func (k *log) remember(o *origin, ch chunk, from uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if o != k.db.origin.Load() {
		return
	}
	if ch.next() > ch.first() {
		k.places.add(place{ch.first(), ch.next() - 1, from})
	}
	k.readAt = time.Now()
	ch.origin = o
	k.chunks = append(k.chunks[max(0, len(k.chunks)+1-maxChunks):], ch)
}

// recall returns the blocks that are kept and have the event, or else the JetStream
// sequence from which on it may be; 0: it is not known.
func (k *log) recall(o *origin, next uint64) (blocks []block, from uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, ch := range k.chunks {
		switch {
		case ch.origin != o || next < ch.first() || next > ch.next():
		case next == ch.next():
			from = ch.after + 1
		default:
			i := sort.Search(len(ch.blocks), func(i int) bool { return ch.blocks[i].next() > next })
			return ch.blocks[i:], 0
		}
	}
	return nil, from
}

// dropChunks forgets what was read, unless that was lately.
func (k *log) dropChunks() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Since(k.readAt) > 5*time.Second {
		k.chunks = nil
	}
}

// Before returns the sequence after which the events since t begin: that of the newest
// retained event before t, else First - 1.
func (l *Log) Before(ctx context.Context, t time.Time) (after uint64, err error) {
	k := l.log()
	c, err := k.current(ctx)
	if err != nil {
		return 0, err
	}
	b, err := k.bounds(ctx, c)
	if err != nil || b.First > b.Last {
		return b.Last, err
	}
	// The event's time is its commit's, so it is enough to find the commit.
	low, high := b.First, b.Last+1 // all before low are before t, high is not
	for low < high {
		mid := low + (high-low)/2
		var found *block
		_, hole, err := k.read(ctx, c, mid, mid, func(b *block, _ store.Event) bool {
			found = b
			return false
		})
		switch {
		case err != nil:
			return 0, err
		case found == nil: // what is missing is as old as what is before it
			low = min(hole, b.Last) + 1
		case time.Unix(0, found.time).Before(t):
			low = found.next()
		default:
			high = max(found.first, low)
		}
	}
	return min(low, b.Last+1) - 1, nil
}

// Used returns the receipt of the append that the key was used for, if it was and its
// last event is retained.
func (l *Log) Used(ctx context.Context, key string, digest [32]byte) (store.Receipt, bool, error) {
	k := l.log()
	hash := hashOf(key)
	s, err := k.strict(ctx, hash)
	if err != nil {
		return store.Receipt{}, false, err
	}
	r := s.newest.closer(hash)
	if found, ok := s.receipts[hash]; ok && r == nil {
		r = &found
	}
	if r == nil || !r.valid(s.newest.state) {
		return store.Receipt{}, false, nil
	}
	return r.answer(digest)
}

// valid reports whether the receipt stands, by a state of its log.
func (r *receipt) valid(s state) bool { return r.Count == 0 || r.Last >= s.first }

// answer is what a second append with the key gets.
func (r *receipt) answer(digest [32]byte) (store.Receipt, bool, error) {
	if r.digest != digest {
		return store.Receipt{}, false, store.ErrKeyReused
	}
	answer := r.Receipt
	answer.Replayed = true
	return answer, true, nil
}
