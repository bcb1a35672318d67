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
	origin  *origin
	ring    []kept // one after the other
	cleaned bool   // what others have left before it was looked for
}

// A kept is what eviction needs to know of a commit.
type kept struct {
	seq    uint64
	number uint64
	first  uint64
	before uint64 // bytes of all events before it
	keys   int
	time   int64
	sizes  []uint32
}

// next is the sequence after the commit's last event.
func (o *kept) next() uint64 { return o.first + uint64(len(o.sizes)) }

func keep(c *commit) kept {
	o := kept{seq: c.seq, number: c.number, first: c.firstEvent(), before: c.total, keys: c.keys, time: c.time}
	b := c.block()
	for e := range b.events {
		o.sizes = append(o.sizes, uint32(size(&e)))
		o.before -= size(&e)
	}
	return o
}

// trash is messages to remove: a commit and the receipts after it.
type trash struct {
	origin *origin // JetStream's sequences begin anew with another
	seq    uint64
	number uint64
	keys   int
}

// evict moves the state's first event on to what is retained.
func (k *log) evict(ctx context.Context, base commit, s *state, p *plan, all bool) error {
	if !base.written() {
		base.first, base.last = 1, 0
	}
	if k.origin != p.origin {
		k.writer = writer{origin: p.origin}
	}
	if len(k.ring) > 0 && k.ring[0].first > s.first {
		k.ring = nil // another server has evicted less than this one wanted to
	}
	switch {
	case all:
		p.evicted.Deleted += s.last + 1 - s.first
		s.first, s.evicted, p.purge = s.last+1, s.total, true
	case k.fills(p) && !(k.complete(base) && len(k.ring) < removers):
		p.evicted.Number += base.last + 1 - s.first
		s.first, s.evicted, p.purge = base.last+1, s.total-p.bytes, true
	}
	for more := true; more && s.first <= s.last; {
		var err error
		if more, err = k.evictOne(ctx, base, s, p); err != nil {
			return err
		}
	}
	for len(k.ring) > 0 && k.ring[0].next() <= s.first {
		k.drop(base, p)
	}
	switch {
	case s.first > base.last:
		s.oldest, s.firstTime = 0, s.time
	case len(k.ring) > 0:
		s.oldest, s.firstTime = k.ring[0].seq, k.ring[0].time
	}
	return nil
}

// fills reports whether new events leave no room for older ones.
func (k *log) fills(p *plan) bool {
	r := k.db.options.Retention
	return r.Events > 0 && uint64(len(p.sizes)) >= r.Events || r.Bytes > 0 && p.bytes > r.Bytes
}

// evictOne evicts the state's first event, if it is not to be retained, or says that
// there is no more to evict.
func (k *log) evictOne(ctx context.Context, base commit, s *state, p *plan) (more bool, err error) {
	r := k.db.options.Retention
	number := r.Events > 0 && s.last+1-s.first > r.Events
	bytes := r.Bytes > 0 && s.total-s.evicted > r.Bytes
	age := r.Age > 0 && s.first <= base.last
	if !number && !bytes && !age {
		return false, nil
	}
	var size uint32
	if s.first > base.last {
		size = p.sizes[s.first-base.last-1]
	} else {
		o, err := k.oldestKept(ctx, base, s, p)
		if err != nil || o == nil {
			return o == nil, err
		}
		if !number && !bytes && !k.db.tooOld(o.time) {
			return false, nil
		}
		size = o.sizes[s.first-o.first]
	}
	switch {
	case number:
		p.evicted.Number++
	case bytes:
		p.evicted.Bytes++
	default:
		p.evicted.Age++
	}
	s.evicted += uint64(size)
	s.first++
	return true, nil
}

func (k *log) drop(base commit, p *plan) {
	p.dropped = append(p.dropped, trash{p.origin, k.ring[0].seq, k.ring[0].number, k.ring[0].keys})
	k.ring = k.ring[1:]
}

// oldestKept returns the commit that holds the state's first event. Where that is gone,
// it moves the state on; nil: to after base.
func (k *log) oldestKept(ctx context.Context, base commit, s *state, p *plan) (*kept, error) {
	for from := base.oldest; ; {
		for len(k.ring) > 0 && k.ring[0].next() <= s.first {
			from = k.ring[0].seq + 1
			k.drop(base, p)
		}
		if len(k.ring) > 0 {
			break
		}
		commits, err := k.commits(ctx, base.origin, from, base.seq)
		if err != nil {
			return nil, err
		}
		if len(commits) == 0 {
			s.first, s.evicted, p.purge = base.last+1, base.total, true
			return nil, nil
		}
		for i := range commits {
			k.ring = append(k.ring, keep(&commits[i]))
		}
	}
	o := &k.ring[0]
	if o.first > s.first { // what is before it was removed as expired, or is lost
		s.first, s.evicted = o.first, o.before
	}
	return o, nil
}

// complete reports whether the ring holds all of a log that is retained.
func (k *log) complete(newest commit) bool {
	return !newest.written() || newest.empty() || len(k.ring) > 0 && k.ring[len(k.ring)-1].next() == newest.last+1
}

// wrote notes a commit that was stored on the base, and has removed what it evicts.
func (k *log) wrote(base commit, p *plan, c commit) {
	if k.complete(base) && len(k.ring) < maxRing {
		k.ring = append(k.ring, keep(&c))
	}
	switch {
	case p.fresh:
	case p.purge:
		k.db.spawn(func() { k.purge(p.origin, c.oldest) })
	case !k.cleaned:
		k.db.spawn(func() { k.clean(p.origin, c.oldest) })
	}
	k.cleaned = true
	most := uint64(max(k.db.perSubject.Load(), 0))
	for _, t := range p.dropped {
		if p.purge || t.keys == 0 && most > 0 && c.number-t.number >= most {
			continue // it is gone, or JetStream has removed it
		}
		select {
		case k.db.trash <- t:
		default:
			k.cleaned = false // later, all at once
		}
	}
}

// clean removes what is before the oldest commit, if anything was left there.
func (k *log) clean(o *origin, oldest uint64) {
	left, err := k.fetch(k.db.ctx, o, 1, oldest-1, 1)
	if err == nil && len(left) > 0 {
		k.purge(o, oldest)
	}
}

// purge removes all of the log before a JetStream sequence.
func (k *log) purge(o *origin, before uint64) {
	for _, subject := range []string{k.subject(o), k.keySubject(o, "*")} {
		body, _ := json.Marshal(struct { // of such there is none that fails
			Filter string `json:"filter"`
			Seq    uint64 `json:"seq"`
		}{subject, before})
		k.db.ask(o, "$JS.API.STREAM.PURGE."+k.db.name, body)
	}
}

// remove removes messages one by one, which costs less than to purge them: a purge reads
// all blocks of the file that hold any of the subject.
func (db *DB) remove() {
	for {
		select {
		case t := <-db.trash:
			for i := range t.keys + 1 {
				seq := strconv.FormatUint(t.seq+uint64(i), 10)
				db.ask(t.origin, "$JS.API.STREAM.MSG.DELETE."+db.name, []byte(`{"seq":`+seq+`,"no_erase":true}`))
			}
		case <-db.ctx.Done():
			return
		}
	}
}

// ask makes a request to a JetStream stream until it is answered, a few times. What is not
// removed by it is removed later, and meanwhile seen by nobody.
func (db *DB) ask(o *origin, subject string, body []byte) {
	for range 5 {
		if o != db.origin.Load() {
			return
		}
		ctx, cancel := context.WithTimeout(db.ctx, requestTimeout)
		nc, err := db.conn()
		if err == nil {
			_, err = nc.RequestWithContext(ctx, subject, body)
		}
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
	_, _, err := db.get(db.ctx, getRequest{MultiLast: []string{db.origin.Load().sweep()}}, func(m *nats.Msg) bool {
		seq = headerNumber(m, "Nats-Sequence")
		at, _ = time.Parse(time.RFC3339Nano, m.Header.Get("Nats-Time-Stamp"))
		return true
	})
	if err != nil || time.Since(at) < sweepEvery-time.Second {
		return false
	}
	_, err = db.publish(db.ctx, &nats.Msg{Subject: db.origin.Load().sweep(), Header: nats.Header{
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
