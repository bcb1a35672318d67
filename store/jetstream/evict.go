package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// maxRing is how many commits the writer of a log remembers.
	maxRing = 4096
	// removers is how many messages are removed at a time.
	removers = 8
	// sweepEvery is how often what is expired is removed, by one of the servers.
	sweepEvery = 20 * time.Second
)

// A writer remembers the log's oldest commits, which are evicted next.
type writer struct {
	ring    []kept // one after the other
	cleaned bool   // what others have left before it was looked for
}

// A kept is what eviction needs to know of a commit.
type kept struct {
	seq    uint64
	number uint64
	first  uint64
	keys   int
	time   int64
	sizes  []uint32
}

// next is the sequence after the commit's last event.
func (o *kept) next() uint64 { return o.first + uint64(len(o.sizes)) }

func keep(c *commit) kept {
	o := kept{seq: c.seq, number: c.number, first: c.firstEvent(), keys: c.keys, time: c.time}
	for e := range c.events {
		o.sizes = append(o.sizes, uint32(size(&e)))
	}
	return o
}

// trash is messages to remove: a commit and the receipts after it.
type trash struct {
	log    string // of the numbering; JetStream's sequences begin anew with another
	seq    uint64
	number uint64
	keys   int
}

// over reports whether the state exceeds what is retained by number or bytes.
func (db *DB) over(s *state) (number, bytes bool) {
	r := db.options.Retention
	return r.Events > 0 && s.last+1-s.first > r.Events, r.Bytes > 0 && s.total-s.evicted > r.Bytes
}

// evict moves the state's first event on to what is retained.
func (k *log) evict(ctx context.Context, base commit, s *state, p *plan, all bool) error {
	if !base.written() {
		base.first, base.last = 1, 0
	}
	if all {
		p.evicted.Deleted += s.last + 1 - s.first
		s.first, s.evicted = s.last+1, s.total
	} else if own := uint64(len(p.sizes)); k.onlyOwn(own, p.bytes) && s.first <= base.last {
		p.evicted.Number += base.last + 1 - s.first
		s.first, s.evicted, p.purge = base.last+1, s.total-p.bytes, true
	}
	if len(k.ring) > 0 && k.ring[0].first > s.first {
		k.ring = nil // another server has evicted less than this one wanted to
	}
	for s.first <= s.last {
		number, bytes := k.db.over(s)
		var n uint32
		switch {
		case s.first > base.last:
			if !number && !bytes {
				k.settleOldest(base, s, p)
				return nil
			}
			n = p.sizes[s.first-base.last-1]
		default:
			age := k.db.options.Retention.Age > 0
			if !number && !bytes && !age {
				k.settleOldest(base, s, p)
				return nil
			}
			o, err := k.oldestKept(ctx, base, s, p)
			if err != nil {
				return err
			}
			if o == nil { // all of the older ones are gone
				continue
			}
			if !number && !bytes && !k.db.tooOld(o.time) {
				k.settleOldest(base, s, p)
				return nil
			}
			n = o.sizes[s.first-o.first]
		}
		switch {
		case number:
			p.evicted.Number++
		case bytes:
			p.evicted.Bytes++
		default:
			p.evicted.Age++
		}
		s.evicted += uint64(n)
		s.first++
	}
	k.settleOldest(base, s, p)
	return nil
}

// onlyOwn reports whether new events leave no room for older ones.
func (k *log) onlyOwn(events, bytes uint64) bool {
	r := k.db.options.Retention
	return r.Events > 0 && events >= r.Events || r.Bytes > 0 && bytes > r.Bytes
}

// settleOldest says in the state where its first event is, and drops what is older.
func (k *log) settleOldest(base commit, s *state, p *plan) {
	if s.first > base.last {
		s.oldest, s.firstTime, p.purge = 0, s.time, true
		return
	}
	for len(k.ring) > 0 && k.ring[0].next() <= s.first {
		k.drop(base, p)
	}
	if s.first == base.first {
		s.oldest, s.firstTime = base.oldest, base.firstTime
	}
	if len(k.ring) > 0 && k.ring[0].first <= s.first {
		s.oldest, s.firstTime = k.ring[0].seq, k.ring[0].time
	}
}

func (k *log) drop(base commit, p *plan) {
	p.dropped = append(p.dropped, trash{base.log, k.ring[0].seq, k.ring[0].number, k.ring[0].keys})
	k.ring = k.ring[1:]
}

// oldestKept returns the commit that holds the state's first event. Where that is gone,
// it moves the state on; nil: to after base.
func (k *log) oldestKept(ctx context.Context, base commit, s *state, p *plan) (*kept, error) {
	for {
		for len(k.ring) > 0 && k.ring[0].next() <= s.first {
			if len(k.ring) == 1 && k.ring[0].next() <= base.last {
				if err := k.load(ctx, base, k.ring[0].seq+1); err != nil {
					return nil, err
				}
			}
			k.drop(base, p)
		}
		if len(k.ring) == 0 {
			if err := k.load(ctx, base, base.oldest); err != nil {
				return nil, err
			}
			if len(k.ring) > 0 && k.ring[0].next() <= s.first {
				continue
			}
		}
		if len(k.ring) == 0 {
			s.evicted += base.total - s.evicted
			s.first = base.last + 1
			return nil, nil
		}
		o := &k.ring[0]
		if o.first > s.first { // removed as expired, or lost
			s.evicted = base.total
			for i := range k.ring {
				for _, n := range k.ring[i].sizes {
					s.evicted -= uint64(n)
				}
			}
			if err := k.evictedBefore(ctx, o, s); err != nil {
				return nil, err
			}
			s.first = o.first
		}
		return o, nil
	}
}

// evictedBefore sets the bytes of all events before a commit.
func (k *log) evictedBefore(ctx context.Context, o *kept, s *state) error {
	commits, err := k.fetch(ctx, o.seq, o.seq, 1)
	if err == nil && len(commits) > 0 {
		s.evicted = commits[0].before()
	}
	return err
}

// load adds commits from a JetStream sequence on to the ring.
func (k *log) load(ctx context.Context, base commit, from uint64) error {
	commits, err := k.commits(ctx, from, base.seq)
	for i := range commits {
		if commits[i].count > 0 {
			k.ring = append(k.ring, keep(&commits[i]))
		}
	}
	return err
}

// wrote notes a commit that was stored, and has removed what it evicts.
func (k *log) wrote(p *plan, c commit) {
	before := c.firstEvent() - 1
	complete := len(k.ring) > 0 && k.ring[len(k.ring)-1].next() == before+1 || c.first > before
	if c.first > before {
		k.ring = nil
	}
	if complete && c.count > 0 && len(k.ring) < maxRing {
		k.ring = append(k.ring, kept{c.seq, c.number, c.firstEvent(), c.keys, c.time, p.sizes})
	}
	if p.fresh {
		k.cleaned = true
	}
	if p.purge && !p.fresh {
		k.db.running.Go(func() { k.purge(c.log, c.oldest) })
		k.cleaned = true
		return
	}
	most := uint64(max(k.db.perSubject.Load(), 0))
	for _, t := range p.dropped {
		if t.keys == 0 && most > 0 && c.number-t.number >= most {
			continue // JetStream has removed it
		}
		select {
		case k.db.trash <- t:
		default:
			k.cleaned = false // later, all at once
		}
	}
	if !k.cleaned {
		k.cleaned = true
		k.db.running.Go(func() { k.clean(c.log, c.oldest) })
	}
}

// clean removes what is before the oldest commit, if anything was left there.
func (k *log) clean(id string, oldest uint64) {
	left, err := k.fetch(k.db.ctx, 1, oldest-1, 1)
	if err == nil && len(left) > 0 {
		k.purge(id, oldest)
	}
}

// purge removes all of the log with that numbering before a JetStream sequence.
func (k *log) purge(id string, before uint64) {
	for _, subject := range []string{k.subject, k.db.subject("k", token(k.name), "*")} {
		if id != k.db.ID() {
			return
		}
		body, _ := json.Marshal(struct { // of such there is none that fails
			Filter string `json:"filter"`
			Seq    uint64 `json:"seq"`
		}{subject, before})
		k.db.ask("$JS.API.STREAM.PURGE."+k.db.name, body)
	}
}

// remove removes messages one by one, which costs less than to purge them: a purge reads
// all blocks of the file that hold any of the subject.
func (db *DB) remove() {
	for {
		select {
		case t := <-db.trash:
			for i := range t.keys + 1 {
				if t.log != db.ID() {
					break
				}
				seq := strconv.FormatUint(t.seq+uint64(i), 10)
				db.ask("$JS.API.STREAM.MSG.DELETE."+db.name, []byte(`{"seq":`+seq+`,"no_erase":true}`))
			}
		case <-db.ctx.Done():
			return
		}
	}
}

// ask makes a request until it is answered, a few times. What is not removed by it is
// removed later, and meanwhile seen by nobody.
func (db *DB) ask(subject string, body []byte) {
	for range 5 {
		ctx, cancel := context.WithTimeout(db.ctx, requestTimeout)
		_, err := db.nc.RequestWithContext(ctx, subject, body)
		cancel()
		if err == nil || db.ctx.Err() != nil {
			return
		}
		pause(db.ctx, 200*time.Millisecond)
	}
}

// sweep removes what is expired, from time to time, if no other server has just done so.
func (db *DB) sweep() {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-db.ctx.Done():
			return
		}
		if db.claimSweep() {
			db.sweepAll()
		}
	}
}

// claimSweep reports whether the turn is this server's.
func (db *DB) claimSweep() bool {
	var seq uint64
	var at time.Time
	_, err := db.get(db.ctx, getRequest{MultiLast: []string{db.sweepSubject()}}, func(m *nats.Msg) bool {
		seq = headerNumber(m, "Nats-Sequence")
		at, _ = time.Parse(time.RFC3339Nano, m.Header.Get("Nats-Time-Stamp"))
		return true
	})
	if err != nil || time.Since(at) < sweepEvery-time.Second {
		return false
	}
	_, err = db.publish(db.ctx, &nats.Msg{Subject: db.sweepSubject(), Header: nats.Header{
		expectHeader:  {strconv.FormatUint(seq, 10)},
		"Nats-Rollup": {"sub"},
	}})
	return err == nil
}

func (db *DB) sweepAll() {
	streams, err := db.Streams(db.ctx)
	if err != nil {
		return // the next turn comes
	}
	for _, s := range streams {
		if !s.Expires.IsZero() && !time.Now().Before(s.Expires) {
			_, err := db.Log(s.Name).do(db.ctx, &request{expires: true})
			if errors.Is(err, context.Canceled) {
				return
			}
		}
	}
}
