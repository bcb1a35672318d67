// Package jetstream keeps numbered events in NATS JetStream, for any number of servers
// that append and read at the same time.
//
// A [DB] is one JetStream stream. Each log is one of its subjects, and each append, or
// several at once, one of its messages: the commit. A commit holds the log's state after
// it, is derived from the commit before it, and is stored only if that one is still the
// log's newest. Numbering, retention, closing and atomic batches are thus decided in one
// place, whoever appends, and JetStream's own sequence, which all logs share, only finds
// messages.
//
// An idempotency key has a message of its own, stored in one atomic batch with the
// commit, and only if there is none yet; both go when the events do.
//
// Live events come from JetStream's republishing, which costs a subscription for each
// log that is followed and no consumer. As it may lose a message, all followed logs are
// looked at every second.
//
// Caveats: what is acknowledged is stored by a majority of the replicas, each of which
// syncs it as its sync_interval says. Several DBs should be given the same retention, as
// each append applies that of its own. An append without a key may be stored twice if a
// leader was deposed at that moment and the log's next commit is evicted before it is
// looked at. Removals are by JetStream's sequence: in the seconds after a JetStream stream
// is created anew, those under way can hit it.
package jetstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"lastevent/store"
)

// Options are how a DB keeps its logs.
type Options struct {
	Retention store.Retention
	// MaxStreams is how many streams can be written in all, as far as this DB has heard
	// of them; 0 is no limit.
	MaxStreams int
	// LogID names the numbering where the JetStream stream is created; empty: one is drawn.
	LogID string
	// Observer is told of what this DB appends; nil: nobody.
	Observer store.Observer
	// Waiting is told, every few seconds, why Open has not succeeded yet; nil: nobody.
	Waiting func(error)
	// Connection is told why the connection is lost, and nil when it is there again; nil:
	// nobody.
	Connection func(error)
}

const (
	// patience is how long an append, or a strict read, is tried: longer than it takes to
	// elect a leader.
	patience = 20 * time.Second
	// unreadyAfter is for how long nothing could be stored when Err says so.
	unreadyAfter = 3 * time.Second
)

// A DB is the logs in one JetStream stream.
type DB struct {
	target
	options  Options
	observer observer
	nc       *nats.Conn
	offline  atomic.Bool // it is lost
	// reconnect is what is wrong with it then.
	reconnect atomic.Pointer[error]
	js        js.JetStream
	replicas  atomic.Int64
	// perSubject is how many commits of a log JetStream keeps; 0 or less is no limit.
	perSubject atomic.Int64

	ctx     context.Context // ends when the DB is closed
	cancel  context.CancelFunc
	running sync.WaitGroup
	check   chan struct{} // holds a token when the followed logs are to be looked at

	renewing sync.Mutex // serializes changes of origin
	origin   atomic.Pointer[origin]

	mu       sync.Mutex // guards what follows
	closed   bool
	logs     map[string]*log
	streams  int // as far as this DB has heard of them
	stored   time.Time
	failure  error // of the newest try to store something since
	barriers struct {
		running bool
		next    *barrierRound
		last    uint64
	}

	trash chan trash
}

func newDB(t target, o Options) *DB {
	db := &DB{
		target:   t,
		options:  o,
		observer: observer{to: o.Observer},
		check:    make(chan struct{}, 1),
		logs:     map[string]*log{},
		trash:    make(chan trash, 1<<14),
	}
	db.ctx, db.cancel = context.WithCancel(context.Background())
	return db
}

func (db *DB) start() {
	db.running.Go(db.watch)
	db.running.Go(db.probe)
	if db.options.MaxStreams > 0 {
		db.running.Go(db.count)
	}
	if db.options.Retention.Age > 0 {
		db.running.Go(db.sweep)
	}
	for range removers {
		db.running.Go(db.remove)
	}
}

// countEvery is how often streams are counted that other servers may have written.
const countEvery = 5 * time.Minute

func (db *DB) count() {
	ticker := time.NewTicker(countEvery)
	defer ticker.Stop()
	for {
		_, _ = db.Streams(db.ctx) // which counts them; later, if it fails
		select {
		case <-ticker.C:
		case <-db.ctx.Done():
			return
		}
	}
}

// spawn runs f in a goroutine that Close waits for, unless the DB is closed.
func (db *DB) spawn(f func()) bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	if !db.closed {
		db.running.Go(f)
	}
	return !db.closed
}

// Close ends the connection. Appends under way fail.
func (db *DB) Close() error {
	db.mu.Lock()
	db.closed = true
	db.mu.Unlock()
	db.cancel()
	db.nc.Close() // so that nobody waits for an answer
	db.running.Wait()
	return nil
}

// ID is the name of the numbering, [store.Bounds].Log.
func (db *DB) ID() string { return db.origin.Load().log }

// Name is the JetStream stream's.
func (db *DB) Name() string { return db.name }

// Servers are the URLs of the NATS servers, without passwords.
func (db *DB) Servers() string { return redacted(db.servers) }

// Replicas is how many servers store each event.
func (db *DB) Replicas() int { return int(db.replicas.Load()) }

// StreamCount is how many streams were ever written, as far as this DB has heard.
func (db *DB) StreamCount() int {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.streams
}

// Err returns why nothing can be stored now; nil: the last try succeeded, not long ago.
func (db *DB) Err() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if since := time.Since(db.stored); since > unreadyAfter {
		return fmt.Errorf("%w: JetStream has stored nothing for %v: %w", store.ErrUnavailable, since.Round(time.Second), cmp.Or(db.failure, errMaybe))
	}
	return nil
}

// tried notes how a try to store something went.
func (db *DB) tried(err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	switch {
	case err == nil || errors.Is(err, errConflict) || errors.Is(err, errBusy):
		if err == nil {
			db.stored = time.Now()
		}
	default:
		db.failure = err
	}
}

// An origin tells a JetStream stream from those of the same name before it. Its epoch is in
// all subjects, so that who has not yet heard that it was created anew stores nothing.
type origin struct {
	name  string // the JetStream stream's
	log   string // the numbering's, which may be the same as before
	epoch string
}

// subject joins tokens to one of the JetStream stream's subjects.
func (o *origin) subject(tokens ...string) string {
	return o.name + "." + o.epoch + "." + strings.Join(tokens, ".")
}

func (o *origin) barrier() string { return o.subject("barrier") }
func (o *origin) sweep() string   { return o.subject("sweep") }

// liveSubject is where JetStream publishes again what is stored, whatever the epoch.
func (db *DB) liveSubject(token string) string { return db.name + ".live." + token }

// token is a stream's name in a subject, where a dot would end it; : is in no name.
func token(name string) string { return strings.ReplaceAll(name, ".", ":") }

func nameOf(token string) string { return strings.ReplaceAll(token, ":", ".") }

// A Log is the events of one stream.
type Log struct {
	db   *DB
	name string
}

// Log returns a stream's log. It asks and writes nothing.
func (db *DB) Log(name string) *Log { return &Log{db, name} }

// log returns what is known of the log, which is forgotten when it is not used.
func (l *Log) log() *log { return l.db.log(l.name) }

func (db *DB) log(name string) *log {
	db.mu.Lock()
	defer db.mu.Unlock()
	k := db.logs[name]
	if k == nil {
		k = &log{db: db, name: name, newest: commit{origin: db.origin.Load()}}
		db.logs[name] = k
	}
	k.used = time.Now()
	return k
}

// A log is what this server knows of one.
type log struct {
	db   *DB
	name string
	used time.Time // guarded by DB.mu

	mu      sync.Mutex // guards what follows
	newest  commit     // that was heard of
	places  places
	chunks  []chunk // that were read last
	readAt  time.Time
	looked  bool // it was followed when all were looked at
	queue   []*request
	writing bool

	telling   sync.Mutex // serializes calls of followers, and guards them; before mu
	followers []*follower
	told      commit             // the newest that they heard of
	listeners int                // who need live
	live      *nats.Subscription // changed with mu, too

	writer // of the goroutine that writes
}

func (k *log) subject(o *origin) string { return o.subject("e", token(k.name)) }

// keySubject is that of the receipt of an idempotency key.
func (k *log) keySubject(o *origin, hash string) string { return o.subject("k", token(k.name), hash) }

// learn takes note of a commit.
func (k *log) learn(c commit) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c.origin != k.db.origin.Load() {
		return
	}
	if c.origin != k.newest.origin {
		k.newest, k.places = commit{}, nil
	}
	if c.seq >= k.newest.seq {
		k.newest = c
		k.newest.data = nil
	}
	if c.written() && c.count > 0 {
		k.places.add(place{c.firstEvent(), c.last, c.seq})
	}
}

func (k *log) known() commit {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.newest
}

// A snapshot is what one replica has of a log and of keys, all at one moment.
type snapshot struct {
	newest   commit
	receipts map[string]receipt // by the hash of the key
	reached  uint64             // JetStream sequence that the replica had come to
}

type receipt struct {
	seq    uint64
	digest [32]byte
	store.Receipt
}

// look returns what some replica has, which may be behind.
func (k *log) look(ctx context.Context, keys ...string) (s snapshot, err error) {
	db := k.db
	o := db.origin.Load()
	own := k.subject(o)
	subjects := []string{o.barrier(), own}
	for _, key := range keys {
		subjects = append(subjects, k.keySubject(o, key))
	}
	s.receipts = map[string]receipt{}
	upTo, _, getErr := db.get(ctx, getRequest{MultiLast: subjects}, func(m *nats.Msg) bool {
		seq := headerNumber(m, "Nats-Sequence")
		s.reached = max(s.reached, seq)
		switch subject := m.Header.Get("Nats-Subject"); subject {
		case subjects[0]:
		case own:
			s.newest, err = parseCommit(m)
		default:
			r := receipt{seq: seq}
			if r.digest, r.Receipt, err = parseReceipt(m.Data); err == nil {
				s.receipts[subject[strings.LastIndexByte(subject, '.')+1:]] = r
			}
		}
		return err == nil
	})
	s.reached = max(s.reached, upTo)
	if err = cmp.Or(err, getErr); err != nil {
		return s, err
	}
	if s.reached == 0 || o != db.origin.Load() { // there is always a barrier
		db.recheck()
		return s, fmt.Errorf("%w: the JetStream stream %s was created anew", errAgain, db.name)
	}
	s.newest.origin = o
	k.learn(s.newest) // a newer one has other receipts
	return s, nil
}

// strict is look, of all that was stored before the call.
func (k *log) strict(ctx context.Context, keys ...string) (snapshot, error) {
	ctx, cancel := k.db.within(ctx, patience/2)
	defer cancel()
	seq, err := k.db.strictFrom(ctx)
	for wait := time.Millisecond; err == nil; wait = min(2*wait, 100*time.Millisecond) {
		var s snapshot
		if s, err = k.look(ctx, keys...); err == nil && s.reached >= seq {
			return s, nil
		}
		if err != nil && ctx.Err() == nil {
			err = nil
		}
		pause(ctx, wait)
		err = cmp.Or(err, ctx.Err())
	}
	return snapshot{}, k.unavailable(err)
}

func (k *log) unavailable(err error) error {
	if errors.Is(err, context.Canceled) && k.db.ctx.Err() == nil {
		return err
	}
	return fmt.Errorf("stream %q: %w: %w", k.name, store.ErrUnavailable, cmp.Or(err, errMaybe))
}

// within returns a context that ends after the time, and with the DB.
func (db *DB) within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, d)
	stop := context.AfterFunc(db.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// pause waits, or until the context ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// current is the log's newest commit: as it was heard of where the log is followed, else
// as it is stored now.
func (k *log) current(ctx context.Context) (commit, error) {
	k.mu.Lock()
	c, followed := k.newest, k.live != nil
	k.mu.Unlock()
	if followed && c.written() {
		return c, nil
	}
	s, err := k.strict(ctx)
	return s.newest, err
}

// Bounds returns what the log holds, with all that was appended before the call, at
// whatever server.
func (l *Log) Bounds(ctx context.Context) (store.Bounds, error) {
	k := l.log()
	s, err := k.strict(ctx)
	if err != nil {
		return store.Bounds{}, err
	}
	return k.bounds(ctx, s.newest)
}

// bounds are those of a commit, without what is expired now.
func (k *log) bounds(ctx context.Context, c commit) (store.Bounds, error) {
	s := c.state
	if k.db.expired(s) {
		rest, err := k.unexpired(ctx, c)
		if err != nil {
			return store.Bounds{}, err
		}
		s = rest
	}
	return k.db.boundsOf(c.origin, s), nil
}

// boundsOf are a state's bounds.
func (db *DB) boundsOf(o *origin, s state) store.Bounds {
	if !s.written() {
		return store.Bounds{Log: o.log, First: 1}
	}
	b := store.Bounds{Log: o.log, First: s.first, Last: s.last, Bytes: s.total - s.evicted, Closed: s.closed}
	if age := db.options.Retention.Age; age > 0 && !s.empty() {
		b.Expires = time.Unix(0, s.firstTime).Add(age)
	}
	return b
}

func (db *DB) expired(s state) bool {
	age := db.options.Retention.Age
	return age > 0 && s.written() && !s.empty() && db.tooOld(s.firstTime)
}

func (db *DB) tooOld(nanos int64) bool {
	return !time.Now().Before(time.Unix(0, nanos).Add(db.options.Retention.Age))
}

// unexpired is the commit's state without what is expired.
func (k *log) unexpired(ctx context.Context, c commit) (state, error) {
	s := c.state
	for from := c.oldest; ; {
		commits, err := k.commits(ctx, c.origin, from, c.seq)
		if err != nil {
			return s, err
		}
		for _, o := range commits {
			from = o.seq + 1
			if o.count > 0 && !k.db.tooOld(o.time) {
				if o.firstEvent() > s.first {
					s.first, s.evicted = o.firstEvent(), o.before()
				}
				s.firstTime = o.time
				return s, nil
			}
		}
		if from > c.seq || len(commits) == 0 {
			s.first, s.evicted = s.last+1, s.total
			return s, nil
		}
	}
}

// Streams returns all streams ever written, by name, as a replica has them.
func (db *DB) Streams(ctx context.Context) (streams []store.Stream, err error) {
	ctx, cancel := db.within(ctx, time.Minute)
	defer cancel()
	o := db.origin.Load()
	if err := db.list(ctx, o, func(name string, s state) {
		streams = append(streams, store.Stream{Name: name, Bounds: db.boundsOf(o, s)})
	}); err != nil {
		return nil, fmt.Errorf("listing streams: %w: %w", store.ErrUnavailable, err)
	}
	// A log may come more than once, the newest last: when something is appended meanwhile,
	// and where it has two messages.
	slices.Reverse(streams)
	slices.SortStableFunc(streams, func(a, b store.Stream) int { return strings.Compare(a.Name, b.Name) })
	streams = slices.CompactFunc(streams, func(a, b store.Stream) bool { return a.Name == b.Name })
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.origin.Load() == o {
		db.streams = max(db.streams, len(streams)) // others may have been written meanwhile
	}
	return streams, nil
}

// list calls each with the newest state of each log.
func (db *DB) list(ctx context.Context, o *origin, each func(name string, s state)) error {
	if _, err := db.conn(); err != nil {
		return err
	}
	consumer, err := db.js.CreateConsumer(ctx, db.name, js.ConsumerConfig{
		FilterSubject:     o.subject("e", "*"),
		DeliverPolicy:     js.DeliverLastPerSubjectPolicy,
		AckPolicy:         js.AckNonePolicy,
		HeadersOnly:       true,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: time.Minute,
	})
	if err != nil {
		return err
	}
	defer db.spawn(func() { _ = db.js.DeleteConsumer(db.ctx, db.name, consumer.CachedInfo().Name) }) // it ends by itself, too
	info, got := consumer.CachedInfo(), uint64(0)
	for info.NumPending > 0 {
		batch, err := consumer.Fetch(int(min(info.NumPending, fetchCount)), js.FetchMaxWait(requestTimeout))
		if err != nil {
			return err
		}
		for m := range batch.Messages() {
			s, err := parseState(m.Headers().Get(stateHeader))
			if err != nil {
				return fmt.Errorf("JetStream message on %s %w", m.Subject(), err)
			}
			each(nameOf(strings.TrimPrefix(m.Subject(), o.subject("e")+".")), s)
			got++
		}
		if err := batch.Error(); err != nil {
			return err
		}
		if info, err = db.infoOf(ctx, consumer); err != nil {
			return err
		}
		if info.Delivered.Consumer != got {
			return fmt.Errorf("%d of %d messages came", got, info.Delivered.Consumer)
		}
	}
	return nil
}

func (db *DB) infoOf(ctx context.Context, consumer js.Consumer) (*js.ConsumerInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return consumer.Info(ctx)
}

// An observer serializes the calls of one.
type observer struct {
	mu sync.Mutex
	to store.Observer
}

func (o *observer) committed(c store.Commit) {
	if o.to != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.to.Committed(c)
	}
}

func (o *observer) answered(r store.Receipt, err error) {
	if o.to != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.to.Answered(r, err)
	}
}
