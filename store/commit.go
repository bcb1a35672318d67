package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// maxCommit is about how many bytes of events are made durable in one
// transaction, unless a single append is larger.
const maxCommit = 8 << 20

// A request is an append, or a delete, on its way through the committer.
type request struct {
	name    string
	batch   Batch
	delete  bool
	receipt Receipt
	err     error
	done    chan struct{}
}

// A queue hands requests to the committer, as many at a time as have gathered.
type queue struct {
	wake chan struct{} // holds a token while there may be something to do

	mu       sync.Mutex // guards requests, closed
	requests []*request
	closed   bool
}

func newQueue() queue { return queue{wake: make(chan struct{}, 1)} }

// add reports whether the request was taken.
func (q *queue) add(r *request) bool {
	q.mu.Lock()
	taken := !q.closed
	if taken {
		q.requests = append(q.requests, r)
	}
	q.mu.Unlock()
	q.poke()
	return taken
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.poke()
}

func (q *queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// gather waits as long as more requests come from goroutines that are ready to run,
// such as those that were just answered: the more there are in a commit, the less
// each costs.
func (q *queue) gather() {
	for gathered := 0; ; {
		q.mu.Lock()
		n := len(q.requests)
		q.mu.Unlock()
		if n == gathered {
			return
		}
		gathered = n
		runtime.Gosched()
	}
}

// take removes the oldest requests, of about maxCommit bytes in all. It reports
// whether more may ever come.
func (q *queue) take() (requests []*request, open bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size := 0, 0
	for n < len(q.requests) && size < maxCommit {
		for _, e := range q.requests[n].batch.Events {
			size += e.size()
		}
		n++
	}
	requests = q.requests[:n:n]
	if q.requests = q.requests[n:]; len(q.requests) == 0 {
		q.requests = nil
	}
	return requests, !q.closed || len(requests) > 0
}

// Append numbers the batch's events and returns once they are synced, evicting
// what the retention no longer allows. It waits for no reader.
//
// It returns ErrKeyReused, ErrClosed, ErrTooLarge, ErrTooManyStreams, ErrNoSpace,
// ErrDamaged (the log's last sequence cannot be read), ErrStopped and what ctx
// says, all with nothing stored, or ErrUnknown. Closing a closed log is no error.
// Once an append is queued, which is at once, ctx no longer ends it.
func (l *Log) Append(ctx context.Context, b Batch) (Receipt, error) {
	r := &request{name: l.name, batch: b}
	err := l.db.submit(ctx, r)
	return r.receipt, err
}

// Delete removes the log's events. Its sequence and its being closed stay. A log
// never written is left so. The errors are those of Append.
func (l *Log) Delete(ctx context.Context) error {
	return l.db.submit(ctx, &request{name: l.name, delete: true})
}

// submit hands the request to the committer and waits for its answer.
func (db *DB) submit(ctx context.Context, r *request) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.done = make(chan struct{})
	if !db.queue.add(r) {
		return ErrStopped
	}
	<-r.done
	return r.err
}

// run is the committer: the only goroutine that writes to the file.
func (db *DB) run() {
	defer close(db.stopped)
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		db.queue.gather()
		requests, open := db.queue.take()
		if !open {
			// So that both meta pages say the same: bbolt takes one of them that is
			// damaged for one whose write was torn, and goes back to the other.
			_ = db.commit(func(c *commit) error { c.probe = true; return nil })
			return
		}
		db.commitAll(requests)
		// What a sweep cannot do now the next append to the log or the next tick does.
		_ = db.sweep()
		select {
		case <-tick.C: // even while there is always something to append
			_ = db.findSweeps()
			db.probe()
			continue
		default:
		}
		if len(requests) > 0 || len(db.sweeps) > 0 {
			continue
		}
		select {
		case <-db.queue.wake:
		case <-tick.C:
			_ = db.findSweeps()
			db.probe()
		}
	}
}

// probe finds out whether a full disk has room again, where nothing is appended
// because the DB says that it is full.
func (db *DB) probe() {
	if db.full.Load() {
		_ = db.commit(func(c *commit) error { c.probe = true; return nil })
	}
}

// commitAll makes the requests durable in one transaction, tells the followers,
// and answers each request.
func (db *DB) commitAll(requests []*request) {
	if len(requests) == 0 {
		return
	}
	err := db.commit(func(c *commit) error {
		for _, r := range requests {
			if r.delete {
				r.err = c.delete(r.name)
			} else {
				r.receipt, r.err = c.append(r.name, r.batch)
			}
		}
		return nil
	})
	if errors.Is(err, errUnreadable) && len(requests) > 1 { // which of them is it?
		for i := range requests {
			db.commitAll(requests[i : i+1])
		}
		return
	}
	for _, r := range requests {
		if err != nil && r.err == nil {
			r.receipt, r.err = Receipt{}, err
		}
		if db.observer != nil && !r.delete {
			db.observer.Answered(r.receipt, r.err)
		}
		close(r.done)
	}
}

// commit runs fn in a transaction. What it changed is told to the followers once
// it is synced. After an error that wraps ErrUnknown nothing is written any more.
func (db *DB) commit(fn func(*commit) error) error {
	if failure := db.failure.Load(); failure != nil {
		return *failure
	}
	if db.unwritable != nil {
		return db.unwritable
	}
	err := db.try(fn)
	if errors.Is(err, errUnreadable) {
		db.damaged(err)
	}
	if err != nil && db.observer != nil {
		db.observer.Committed(Commit{Err: err})
	}
	return err
}

// damaged says once that there are pages that cannot be read.
func (db *DB) damaged(err error) {
	if db.onDamage != nil {
		db.onDamage(err)
		db.onDamage = nil
	}
}

// errUnreadable is why a transaction was given up, with nothing written.
var errUnreadable = fmt.Errorf("%w: a page cannot be read", ErrDamaged)

func (db *DB) try(fn func(*commit) error) (err error) {
	var tx *bolt.Tx
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // as in view
	defer func() {
		if p := recover(); p != nil {
			err = db.giveUp(tx, p)
		}
	}()
	tx, err = db.bolt.Begin(true)
	if err != nil {
		return err
	}
	begun := time.Now()
	c := newCommit(db, tx)
	changed, err := c.finish(fn(c))
	if err != nil || !changed {
		return errors.Join(err, tx.Rollback())
	}
	if err := db.sync(tx, c.before); err != nil {
		return err
	}
	db.full.Store(false)
	db.streams.Add(int64(c.created))
	for name, l := range c.logs {
		if l.state.leftover {
			db.sweeps = append(db.sweeps, name)
		}
	}
	db.observe(c, tx, begun)
	db.tell(c)
	return nil
}

// giveUp ends a transaction that panicked. One that has taken no page yet has written
// none either, and can be taken back.
func (db *DB) giveUp(tx *bolt.Tx, p any) error {
	if tx != nil && tx.DB() != nil {
		if stats := tx.Stats(); stats.GetPageCount() == 0 && tx.Rollback() == nil {
			db.inFlight.Store(nil)
			return fmt.Errorf("%s: %w: %v", db.path, errUnreadable, p)
		}
	}
	db.broken = true
	return db.fail(fmt.Errorf("%w: %v", ErrDamaged, p))
}

// sync commits the transaction. Until it is known to be synced, readers see its logs as
// they were before.
func (db *DB) sync(tx *bolt.Tx, before map[string]state) error {
	f := &inFlight{id: tx.ID(), before: before, known: make(chan struct{})}
	defer close(f.known)
	db.inFlight.Store(f)
	if err := tx.Commit(); err != nil {
		return db.commitFailed(f.id, err)
	}
	db.inFlight.Store(nil)
	return nil
}

// commitFailed tells a full disk, after which all is as before, from a failure
// that leaves open what is on the disk.
func (db *DB) commitFailed(id int, err error) error {
	if !isNoSpace(err) || db.visible(id) {
		return db.fail(err)
	}
	db.inFlight.Store(nil)
	db.full.Store(true)
	return fmt.Errorf("%w: %w", ErrNoSpace, err)
}

// isNoSpace also looks at the words: bbolt does not wrap the error of growing a file.
func isNoSpace(err error) bool {
	return errors.Is(err, bolterrors.ErrMaxSizeReached) ||
		strings.Contains(err.Error(), syscall.ENOSPC.Error()) ||
		strings.Contains(err.Error(), syscall.EDQUOT.Error())
}

// visible reports whether the transaction's meta page was written.
func (db *DB) visible(id int) bool {
	tx, err := db.bolt.Begin(false)
	if err != nil {
		return true
	}
	defer tx.Rollback()
	return tx.ID() >= id
}

// fail ends writing for good. inFlight stays, so that nobody is shown what the
// failed transaction may have left in the file.
func (db *DB) fail(err error) error {
	err = fmt.Errorf("%s: %w: %w", db.path, ErrUnknown, err)
	stopped := fmt.Errorf("%w: %v", ErrStopped, err)
	if db.failure.CompareAndSwap(nil, &stopped) {
		close(db.failed)
	}
	return err
}

// A commit is the work of one transaction.
type commit struct {
	db      *DB
	now     time.Time
	states  *tree
	events  *tree
	keys    *tree
	order   *tree
	logs    map[string]*logCommit
	before  map[string]state // of the logs, before the commit
	created int              // logs that did not exist before
	removed int              // blocks and keys of what is no longer retained
	atMost  int              // of them
	probe   bool             // to be committed even if nothing changed
	evicted Evicted
	err     error // the first of put
}

// A logCommit is what a commit does to one log.
type logCommit struct {
	state   state
	exists  bool
	changed bool
	blocks  blockWriter
	events  []Event // appended, for the followers
}

func newCommit(db *DB, tx *bolt.Tx) *commit {
	db.pages.begin(tx)
	c := &commit{
		db:     db,
		now:    db.now(),
		states: db.pages.tree(tx.Bucket(stateBucket)),
		events: db.pages.tree(tx.Bucket(eventsBucket)),
		keys:   db.pages.tree(tx.Bucket(keysBucket)),
		order:  db.pages.tree(tx.Bucket(orderBucket)),
		logs:   map[string]*logCommit{},
		before: map[string]state{},
		atMost: maxRemoved,
	}
	c.events.FillPercent = 1 // a log grows at its end only
	return c
}

// log returns the log's part of the commit.
func (c *commit) log(name string) (*logCommit, error) {
	if l := c.logs[name]; l != nil {
		return l, nil
	}
	s, stored, err := loadState(c.states.Bucket, c.events.Bucket, name)
	if err != nil {
		return nil, err
	}
	l := &logCommit{state: s, exists: stored, blocks: blockWriter{name: name}}
	l.blocks.put = func(key, value []byte) { c.put(c.events, key, value) }
	c.logs[name], c.before[name] = l, s
	return l, nil
}

// put stores a pair. An error, which no request is to blame for, ends the commit.
func (c *commit) put(t *tree, key, value []byte) {
	if err := t.Put(key, value); c.err == nil {
		c.err = err
	}
}

// append does what Append promises, but for making it durable.
func (c *commit) append(name string, b Batch) (Receipt, error) {
	l, err := c.log(name)
	if err != nil {
		return Receipt{}, err
	}
	if b.Key != "" {
		r, used, err := getKey(c.keys.Bucket, name, b.Key, b.Digest, l.state.first)
		if used || err != nil {
			return r, err
		}
	}
	if err := c.refuse(l, b); err != nil {
		return Receipt{}, err
	}
	closes := b.Close && !l.state.closed
	c.add(l, b.Events)
	l.state.closed = l.state.closed || closes
	r := Receipt{Last: l.state.last, Count: len(b.Events)}
	if len(b.Events) > 0 || closes {
		l.changed = true
		if b.Key != "" {
			c.putKey(name, b.Key, b.Digest, r)
		}
	}
	return r, nil
}

// refuse says why the batch cannot be appended.
func (c *commit) refuse(l *logCommit, b Batch) error {
	if l.state.closed && len(b.Events) > 0 {
		return ErrClosed
	}
	for _, e := range b.Events {
		if limit := c.db.retention.Bytes; limit > 0 && uint64(e.size()) > limit {
			return fmt.Errorf("%w: it has %d bytes of type and data, and %d are retained", ErrTooLarge, e.size(), limit)
		}
	}
	if !l.exists && (b.Close || len(b.Events) > 0) {
		if limit := c.db.maxStreams; limit > 0 && c.db.StreamCount()+c.created >= limit {
			return fmt.Errorf("%w: there are %d, and no more are allowed", ErrTooManyStreams, limit)
		}
		l.exists = true
		c.created++
	}
	return nil
}

// add numbers the events and stores them.
func (c *commit) add(l *logCommit, events []Event) {
	s := &l.state
	at := time.Unix(0, max(c.now.UnixNano(), s.lastTime))
	for i := range events {
		e := &events[i]
		e.Seq, e.Time = s.last+1, at
		l.blocks.add(e, s.total)
		if s.empty() {
			s.firstTime, s.evicted = at.UnixNano(), s.total
		}
		s.last, s.lastTime = e.Seq, at.UnixNano()
		s.total += uint64(e.size())
	}
	l.events = append(l.events, events...)
}

// delete does what Delete promises, but for making it durable.
func (c *commit) delete(name string) error {
	l, err := c.log(name)
	if err != nil || l.state.empty() {
		return err
	}
	c.evicted.Deleted += l.state.last + 1 - l.state.first
	l.state.first, l.state.evicted = l.state.last+1, l.state.total
	l.changed = true
	return nil
}

// finish stores what is left to store of each log, unless err, the outcome of the
// work so far, is one, and evicts. It reports whether there was anything.
func (c *commit) finish(err error) (changed bool, _ error) {
	changed = c.probe
	for name, l := range c.logs {
		if err != nil || !l.changed {
			continue
		}
		changed = true
		l.blocks.flush()
		c.evict(name, &l.state)
		err = c.removeEvicted(name, &l.state)
		c.put(c.states, []byte(name), l.state.encode(name))
	}
	return changed, cmp.Or(err, c.err)
}
