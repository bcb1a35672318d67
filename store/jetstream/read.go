package jetstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
)

// A place says which JetStream message holds events.
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
func (k *log) commits(ctx context.Context, from, to uint64) ([]commit, error) {
	return k.fetch(ctx, from, to, fetchCount)
}

// fetch is commits, of so many. All are of one replica, so that none is missing between
// two of them, or before the first, that was there when the last was stored. A replica
// that has nothing so late is behind, and asked again.
func (k *log) fetch(ctx context.Context, from, to uint64, count int) (commits []commit, err error) {
	if from > to {
		return nil, nil
	}
	ctx, cancel := k.db.within(ctx, patience/2)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		commits, later, err := k.answer(ctx, getRequest{NextFor: k.subject, Seq: max(from, 1), Batch: count, MaxBytes: fetchBytes}, to)
		if len(commits) > 0 || later || errors.Is(err, errFormat) {
			return commits, err
		}
		m, leaderErr := k.db.leaderNext(ctx, k.subject, from)
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
	_, getErr := k.db.get(ctx, r, func(m *nats.Msg) bool {
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
		commits, err := k.fetch(ctx, mid, c.seq, 1)
		if err != nil {
			return 0, err
		}
		if len(commits) == 0 || commits[0].seq >= high.seq { // none in the upper half
			commits, err = k.fetch(ctx, low.seq, mid, fetchCount)
			if err != nil || len(commits) == 0 || !k.note(commits) {
				return low.seq, err
			}
			continue
		}
		if !k.note(commits) {
			return low.seq, nil
		}
	}
}

// note remembers where commits are, and reports whether that was new.
func (k *log) note(commits []commit) (news bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
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
	next, hole, err := k.read(ctx, c, start, b.Last, yield)
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
func (k *log) read(ctx context.Context, c commit, next, last uint64, yield func(store.Event) bool) (_, hole uint64, err error) {
	if next > last {
		return next, 0, nil
	}
	commits := k.takeAhead(next)
	var from uint64
	if commits == nil {
		from, err = k.find(ctx, c, next)
	}
	for err == nil && next <= last {
		if commits == nil {
			if commits, err = k.commits(ctx, from, c.seq); err != nil || len(commits) == 0 {
				return next, last, err
			}
		}
		for i := range commits {
			if commits[i].count == 0 || commits[i].last < next {
				continue
			}
			if commits[i].firstEvent() > next || commits[i].log != c.log {
				return next, commits[i].firstEvent() - 1, nil
			}
			for e := range commits[i].events {
				if e.Seq != next {
					continue
				}
				if next++; !yield(e) || next > last {
					k.note(commits[i:min(i+2, len(commits))])
					k.keepAhead(next, commits[i:])
					return next, 0, nil
				}
			}
			if next <= commits[i].last { // it does not parse
				return next, commits[i].last, nil
			}
		}
		from, commits = commits[len(commits)-1].seq+1, nil
	}
	return next, 0, err
}

// An ahead is what was fetched and not read yet, for whoever reads on from next.
type ahead struct {
	next    uint64
	commits []commit
}

func (k *log) takeAhead(next uint64) []commit {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ahead.next != next {
		return nil
	}
	commits := k.ahead.commits
	k.ahead = ahead{}
	return commits
}

func (k *log) keepAhead(next uint64, commits []commit) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ahead = ahead{next, commits}
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
		var at time.Time
		var first, last uint64
		_, hole, err := k.read(ctx, c, mid, mid, func(e store.Event) bool {
			at = e.Time
			return false
		})
		if err != nil {
			return 0, err
		}
		if at.IsZero() { // what is missing is as old as what is before it
			low = min(hole, b.Last) + 1
			continue
		}
		if first, last, err = k.span(mid); err != nil {
			return 0, err
		}
		if at.Before(t) {
			low = last + 1
		} else {
			high = max(first, b.First)
			if first <= low {
				high = low
			}
		}
	}
	return min(low, b.Last+1) - 1, nil
}

// span returns the first and the last event of the commit that was just read for seq.
func (k *log) span(seq uint64) (first, last uint64, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p, _, ok, _ := k.places.around(seq)
	if !ok || seq > p.last {
		return 0, 0, fmt.Errorf("stream %q: event %d was read, but not found again", k.name, seq)
	}
	return p.first, p.last, nil
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
