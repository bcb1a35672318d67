package jetstream

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"lastevent/store"
)

const (
	// maxGroup is how many appends with keys go in one commit; JetStream takes 1,000
	// messages in a batch.
	maxGroup = 500
	// overhead is what a message needs beside its events, at most.
	overhead = 2048
	// holdFor is how long a server appends to a log without a rest, in which others get
	// their turn.
	holdFor = 50 * time.Millisecond
)

// A request is what somebody waits for.
type request struct {
	batch   store.Batch
	data    []byte // the events, encoded
	sizes   []uint32
	hash    string // of the key; empty: there is none
	replace uint64 // JetStream sequence of a receipt that does not stand any more
	looked  bool   // for a receipt
	found   *receipt
	removes bool // all events
	expires bool // what is too old

	done    chan struct{}
	receipt store.Receipt
	err     error
}

func (r *request) answer(receipt store.Receipt, err error) {
	r.receipt, r.err = receipt, err
	close(r.done)
}

// changes reports whether there is anything to store for the request.
func (r *request) changes(s *state) bool { return len(r.sizes) > 0 || r.batch.Close && !s.closed }

func hashOf(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:16])
}

// Append stores the batch and returns when JetStream has acknowledged it. It may wait
// while a leader is elected. Of the errors of package store it returns ErrClosed,
// ErrTooLarge (also where the batch does not fit in a message), ErrKeyReused,
// ErrTooManyStreams and ErrNoSpace, ErrUnavailable and the context's, all with nothing
// stored, or ErrUnknown, after which others can go on.
func (l *Log) Append(ctx context.Context, b store.Batch) (store.Receipt, error) {
	r := &request{batch: b}
	for i := range b.Events {
		e := &b.Events[i]
		r.data = appendEvent(r.data, e)
		r.sizes = append(r.sizes, uint32(size(e)))
	}
	r.batch.Events = nil
	if b.Key != "" {
		r.hash = hashOf(b.Key)
	}
	receipt, err := l.do(ctx, r)
	l.db.observer.answered(receipt, err)
	return receipt, err
}

// Delete removes all events.
func (l *Log) Delete(ctx context.Context) error {
	_, err := l.do(ctx, &request{removes: true})
	return err
}

// do has the request done in its turn.
func (l *Log) do(ctx context.Context, r *request) (store.Receipt, error) {
	if err := ctx.Err(); err != nil {
		return store.Receipt{}, err
	}
	if err := l.db.ctx.Err(); err != nil {
		return store.Receipt{}, store.ErrStopped
	}
	r.done = make(chan struct{})
	k := l.log()
	k.mu.Lock()
	k.queue = append(k.queue, r)
	idle := !k.writing
	k.writing = true
	k.mu.Unlock()
	if idle && !l.db.spawn(k.write) {
		k.write() // which says that the DB is closed
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		if k.withdraw(r) {
			return store.Receipt{}, ctx.Err()
		}
		select {
		case <-r.done:
			return r.receipt, r.err
		default:
		}
		return store.Receipt{}, fmt.Errorf("stream %q: %w: %w", k.name, store.ErrUnknown, ctx.Err())
	}
	return r.receipt, r.err
}

// withdraw takes a request back, unless it is being done.
func (k *log) withdraw(r *request) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, q := range k.queue {
		if q == r {
			k.queue = append(k.queue[:i:i], k.queue[i+1:]...)
			return true
		}
	}
	return false
}

// write does what is in the queue, and ends when it is empty.
func (k *log) write() {
	began := time.Now()
	for {
		group := k.take()
		if group == nil {
			return
		}
		begun := time.Now()
		k.commit(group)
		if time.Since(began) > holdFor {
			pause(k.db.ctx, min(2*time.Since(begun), 10*time.Millisecond))
			began = time.Now()
		}
	}
}

// take takes what goes into the next commit. A removal is alone, and no key is in it
// twice.
func (k *log) take() (group []*request) {
	limit := int(k.db.nc.MaxPayload()) - overhead // which may wait for a connection
	k.mu.Lock()
	defer k.mu.Unlock()
	bytes, keys := 0, map[string]bool{}
	for _, r := range k.queue {
		alone := r.removes || r.expires
		if len(group) > 0 && (alone || bytes+len(r.data) > limit || len(keys) == maxGroup || r.hash != "" && keys[r.hash]) {
			break
		}
		if group = append(group, r); alone {
			break
		}
		bytes += len(r.data)
		if r.hash != "" {
			keys[r.hash] = true
		}
	}
	k.queue = k.queue[len(group):]
	if len(group) == 0 {
		k.queue, k.writing = nil, false
	}
	return group
}

// commit stores what the requests ask for and answers them. It tries until that is
// stored for sure, or for sure not, or its patience ends.
func (k *log) commit(group []*request) {
	ctx, cancel := context.WithTimeout(k.db.ctx, patience)
	defer cancel()
	p, err := k.try(ctx, group)
	if err != nil {
		k.db.observer.committed(store.Commit{Err: err})
		for _, r := range group {
			r.answer(store.Receipt{}, err)
		}
		return
	}
	for _, r := range p.results {
		r.request.answer(r.receipt, r.err)
	}
}

// try returns the plan that was stored, if it had anything to store.
func (k *log) try(ctx context.Context, group []*request) (*plan, error) {
	o, base := k.db.origin.Load(), k.known()
	look := !base.written() || base.origin != o || group[0].removes
	var tried []*plan // on the base; none of them is known to be stored
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		if look {
			now, err := k.lookFor(ctx, group)
			if err != nil {
				return nil, err
			}
			if now.seq != base.seq || now.nonce != base.nonce {
				base, tried = now, nil
			}
			o = now.origin
		}
		p, err := k.plan(ctx, o, base, group)
		if errors.Is(err, errLook) {
			look = true
			continue
		}
		if err != nil || p.message == nil {
			return p, err
		}
		begun := time.Now()
		tried = append(tried, p)
		p, seq, err := k.settle(ctx, base, tried)
		if err == nil {
			k.committed(base, p, seq, time.Since(begun))
		}
		if !errors.Is(err, errConflict) {
			return p, err
		}
		look = true
		pause(ctx, rand.N(wait)+1)
	}
}

// lookFor returns the log's newest commit, and takes note of receipts for the group's
// keys.
func (k *log) lookFor(ctx context.Context, group []*request) (commit, error) {
	var keys []string
	for _, r := range group {
		if r.hash != "" {
			keys = append(keys, r.hash)
		}
	}
	s, err := k.strict(ctx, keys...)
	if err != nil {
		return commit{}, err
	}
	for _, r := range group {
		r.looked, r.found, r.replace = true, nil, 0
		if found, ok := s.receipts[r.hash]; ok {
			r.found, r.replace = &found, found.seq
		}
	}
	return s.newest, nil
}

// settle publishes the newest plan until it is known what became of it. It returns the one
// that was stored, which may be an older one, and its JetStream sequence. The error is
// errConflict where none was, as another commit came first or a key is in use.
func (k *log) settle(ctx context.Context, base commit, tried []*plan) (*plan, uint64, error) {
	p := tried[len(tried)-1]
	maybe, err := false, errMaybe
	for wait := 2 * time.Millisecond; ctx.Err() == nil; wait = min(2*wait, 250*time.Millisecond) {
		if p.origin != k.db.origin.Load() {
			if maybe {
				break
			}
			return nil, 0, errConflict
		}
		var seq uint64
		seq, err = k.db.publish(ctx, p.messages()...)
		k.db.tried(err)
		switch {
		case err == nil:
			return p, seq - uint64(len(p.receipts)), nil
		case errors.Is(err, errFull) && !maybe:
			return nil, 0, fmt.Errorf("stream %q: %w: %w", k.name, store.ErrNoSpace, err)
		case errors.Is(err, errConflict):
			// A leader that is deposed may say so while another one has stored it.
			stored, seq, outcomeErr := k.outcome(ctx, base, tried)
			switch {
			case stored != nil:
				return stored, seq, nil
			case outcomeErr == nil,
				outcomeErr == errGone && !maybe: // all but sure; and a key would still be found
				return nil, 0, errConflict
			}
			maybe = true
			if outcomeErr == errGone {
				return nil, 0, k.unknown(err)
			}
		case errors.Is(err, errMaybe), errors.Is(err, errBusy):
			maybe = true
		}
		pause(ctx, wait)
	}
	if maybe {
		return nil, 0, k.unknown(err)
	}
	return nil, 0, k.unavailable(err)
}

func (k *log) unknown(err error) error {
	return fmt.Errorf("stream %q: %w: %v", k.name, store.ErrUnknown, err)
}

// errGone: the commit that came after another is evicted already.
var errGone = errors.New("it cannot be known any more")

// outcome looks whether one of the plans was stored, of which the newest was refused once.
// The error is errGone where that will never be known.
func (k *log) outcome(ctx context.Context, base commit, tried []*plan) (stored *plan, seq uint64, err error) {
	s, err := k.strict(ctx)
	if err != nil || s.newest.seq == base.seq {
		return nil, 0, err
	}
	// Any of them would come right after the base.
	commits, err := k.fetch(ctx, s.newest.origin, base.seq+1, s.newest.seq, 1)
	if err != nil {
		return nil, 0, err
	}
	if len(commits) == 0 || commits[0].number != base.number+1 {
		return nil, 0, errGone
	}
	for _, p := range tried {
		if p.state.nonce == commits[0].nonce {
			return p, commits[0].seq, nil
		}
	}
	return nil, 0, nil
}

const expectHeader = "Nats-Expected-Last-Subject-Sequence"

// errLook: a plan needs to know whether keys are in use.
var errLook = errors.New("keys have to be looked up")

// A plan is a commit that was not stored yet, and what its requests get then.
type plan struct {
	origin   *origin
	state    state
	data     []byte
	message  *nats.Msg // nil: there is nothing to store
	receipts []*nats.Msg
	results  []result
	evicted  store.Evicted
	bytes    uint64
	sizes    []uint32
	fresh    bool    // the log's first
	dropped  []trash // what the commit evicts as a whole
	purge    bool    // or all before it
}

type result struct {
	request *request
	receipt store.Receipt
	err     error
}

// messages returns what is to be published, anew each time.
func (p *plan) messages() []*nats.Msg {
	msgs := append([]*nats.Msg{p.message}, p.receipts...)
	for _, m := range msgs {
		m.Header.Del("Nats-Batch-Commit")
	}
	return msgs
}

// plan derives the commit from the one before it.
func (k *log) plan(ctx context.Context, o *origin, base commit, group []*request) (*plan, error) {
	s := base.state
	if !s.written() {
		s = state{first: 1}
	}
	now := max(time.Now().UnixNano(), s.time)
	s.count, s.keys, s.oldest, s.nonce = 0, 0, base.oldest, rand.Uint64()
	s.number = base.number + 1
	p := &plan{origin: o, fresh: !base.written()}
	changed := false
	for _, r := range group {
		receipt, err := k.admit(base, &s, r)
		if errors.Is(err, errLook) {
			return nil, err
		}
		p.results = append(p.results, result{r, receipt, err})
		if err != nil || receipt.Replayed {
			continue
		}
		if r.changes(&s) {
			k.add(p, &s, r, receipt)
			changed = true
		}
	}
	if s.count > 0 {
		s.time = now
	}
	if err := k.evict(ctx, base, &s, p, group[0].removes); err != nil {
		return nil, err
	}
	if !changed && (p.fresh || s.first == base.first) {
		return p, nil
	}
	p.state = s
	c := commit{state: s, data: p.data}
	b := c.block()
	p.message = &nats.Msg{
		Subject: k.subject(o),
		Data:    b.encode(),
		Header: nats.Header{
			stateHeader:  {s.encode()},
			expectHeader: {strconv.FormatUint(base.seq, 10)},
		},
	}
	return p, nil
}

// admit returns the receipt that a request will get, or why it is refused. A key comes
// before any other refusal.
func (k *log) admit(base commit, s *state, r *request) (store.Receipt, error) {
	if found := cmp.Or(s.closer(r.hash), r.found); found != nil && found.valid(base.state) {
		receipt, _, err := found.answer(r.batch.Digest)
		return receipt, err
	}
	err := k.refuse(base, s, r)
	// The receipts of events are stored only if the keys are free; nothing else is.
	if r.hash != "" && !r.looked && (err != nil || len(r.sizes) == 0) {
		err = errLook
	}
	if err != nil {
		return store.Receipt{}, err
	}
	return store.Receipt{Last: s.last + uint64(len(r.sizes)), Count: len(r.sizes)}, nil
}

func (k *log) refuse(base commit, s *state, r *request) error {
	if s.closed && len(r.sizes) > 0 {
		return store.ErrClosed
	}
	limit := k.db.options.Retention.Bytes
	for _, n := range r.sizes {
		if limit > 0 && uint64(n) > limit {
			return fmt.Errorf("%w: %d bytes of type and data; %d bytes are retained", store.ErrTooLarge, n, limit)
		}
	}
	fits := int(k.db.nc.MaxPayload()) - overhead
	switch {
	case len(r.data) > fits:
		return tooLarge(len(r.data), fits)
	case !base.written() && (len(r.sizes) > 0 || r.batch.Close):
		return k.db.admitStream(k.name)
	}
	return nil
}

func tooLarge(needs, fits int) error {
	return tooLargeError{fmt.Errorf("what is appended at once takes %d bytes, and a message of these NATS servers has room for %d; publish less at once, or raise their max_payload", needs, fits)}
}

// A tooLargeError is a [store.ErrTooLarge] with words of its own.
type tooLargeError struct{ error }

func (tooLargeError) Is(err error) bool { return err == store.ErrTooLarge }

// admitStream refuses a stream that would be one too many.
func (db *DB) admitStream(name string) error {
	if most := db.options.MaxStreams; most > 0 && db.StreamCount() >= most {
		return fmt.Errorf("stream %q: %w: %d are there already", name, store.ErrTooManyStreams, most)
	}
	return nil
}

// add puts a request's events into the plan.
func (k *log) add(p *plan, s *state, r *request, receipt store.Receipt) {
	p.data = append(p.data, r.data...)
	p.sizes = append(p.sizes, r.sizes...)
	for _, n := range r.sizes {
		s.total += uint64(n)
		p.bytes += uint64(n)
	}
	s.last += uint64(len(r.sizes))
	s.count += len(r.sizes)
	s.closed = s.closed || r.batch.Close
	if r.hash == "" {
		return
	}
	if len(r.sizes) == 0 {
		s.closedBy = closedKey(r.hash, r.batch.Digest)
		return
	}
	s.keys++
	p.receipts = append(p.receipts, &nats.Msg{
		Subject: k.keySubject(p.origin, r.hash),
		Data:    encodeReceipt(r.batch.Digest, receipt),
		Header:  nats.Header{expectHeader: {strconv.FormatUint(r.replace, 10)}},
	})
}

// committed takes note of a plan that is stored, and tells followers.
func (k *log) committed(base commit, p *plan, seq uint64, took time.Duration) {
	c := commit{state: p.state, origin: p.origin, seq: seq, data: p.data}
	if c.oldest == 0 {
		c.oldest = c.seq
	}
	if p.fresh {
		k.db.mu.Lock()
		k.db.streams++
		k.db.mu.Unlock()
	}
	k.wrote(base, p, c)
	k.db.observer.committed(store.Commit{
		Events: p.state.count, Bytes: p.bytes, Evicted: p.evicted, Took: took, Sync: took,
	})
	k.heard(c)
}
