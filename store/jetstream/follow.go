package jetstream

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"lastevent/store"
)

const (
	// lookEvery is how often followed logs are looked at, for what was not heard of.
	lookEvery = time.Second
	// lookAtOnce is how many are looked at in one request; JetStream allows 1,024.
	lookAtOnce = 500
	// fillUp is how many JetStream sequences, at most, what was not heard of is read.
	fillUp = 1000
)

// A follower is told of one log's commits.
type follower struct {
	f func(store.Bounds, []store.Event)
}

// Follow calls f at once, before it returns, with the bounds and no events, and from
// then on with new bounds whenever they change, whoever appended, and with the newest
// events. f is never called twice at a time. It must not keep the events, must not wait,
// and must not call the DB. After stop has returned it is not called again.
func (l *Log) Follow(ctx context.Context, f func(store.Bounds, []store.Event)) (stop func(), err error) {
	k := l.log()
	if err := k.listen(); err != nil {
		return nil, err
	}
	c, err := k.start(ctx)
	if err != nil {
		k.leave(nil)
		return nil, err
	}
	b, err := k.bounds(ctx, c)
	if err != nil {
		k.leave(nil)
		return nil, err
	}
	fol := &follower{f}
	k.telling.Lock()
	defer k.telling.Unlock()
	if o := k.db.origin.Load(); c.origin != o { // created anew meanwhile
		c = commit{origin: o}
		b = k.db.boundsOf(o, c.state)
	}
	k.heardLocked(c)
	if k.told.seq > c.seq { // heard of meanwhile
		b = k.db.boundsOf(k.told.origin, k.told.state)
	}
	f(b, nil)
	k.followers = append(k.followers, fol)
	return func() { k.leave(fol) }, nil
}

// start returns what to begin to follow with.
func (k *log) start(ctx context.Context) (commit, error) {
	ctx, cancel := k.db.within(ctx, patience/2)
	defer cancel()
	for {
		_, err := k.look(ctx)
		if err == nil {
			return k.known(), nil
		}
		pause(ctx, 50*time.Millisecond)
		if ctx.Err() != nil {
			return commit{}, k.unavailable(err)
		}
	}
}

// listen subscribes to the log's commits, once for all followers. Each listen needs a
// leave.
func (k *log) listen() error {
	k.telling.Lock()
	defer k.telling.Unlock()
	k.listeners++
	if k.live != nil {
		return nil
	}
	nc, err := k.db.conn()
	var live *nats.Subscription
	if err == nil {
		live, err = nc.Subscribe(k.db.liveSubject(token(k.name)), k.hear)
	}
	if err != nil {
		k.listeners--
		return fmt.Errorf("stream %q: %w: %w", k.name, store.ErrUnavailable, err)
	}
	k.mu.Lock()
	k.live = live
	k.mu.Unlock()
	return nil
}

func (k *log) leave(fol *follower) {
	k.telling.Lock()
	defer k.telling.Unlock()
	for i, f := range k.followers {
		if f == fol {
			k.followers = append(k.followers[:i:i], k.followers[i+1:]...)
			break
		}
	}
	k.listeners--
	if k.listeners > 0 {
		return
	}
	k.mu.Lock()
	live := k.live
	k.live, k.looked = nil, false
	k.mu.Unlock()
	k.db.spawn(func() { // as it may have to wait for a connection
		_ = live.Unsubscribe() // it fails where that is closed
	})
}

// hear takes a message of the log.
func (k *log) hear(m *nats.Msg) {
	c, err := parseCommit(m)
	c.origin = k.db.origin.Load()
	switch {
	case err != nil: // whoever reads it will say so
	case m.Header.Get("Nats-Subject") != k.subject(c.origin):
		k.db.recheck()
	default:
		k.heard(c)
	}
}

// heard takes note of a commit and tells the followers.
func (k *log) heard(c commit) {
	k.telling.Lock()
	defer k.telling.Unlock()
	k.heardLocked(c)
}

// heardLocked is heard, of a commit that may come without its events.
func (k *log) heardLocked(c commit) {
	if c.origin != k.db.origin.Load() || c.seq <= k.told.seq {
		return
	}
	var events []store.Event
	if len(k.followers) > 0 {
		events = k.eventsSince(k.told, c)
	}
	k.learn(c)
	k.told = c
	k.told.data = nil
	k.tell(k.db.boundsOf(c.origin, c.state), events)
}

// eventsSince returns the events after one commit and up to another, if that is little
// to read, or those of the latter, or none.
func (k *log) eventsSince(told, c commit) []store.Event {
	b := c.block()
	own, ok := b.whole()
	if !ok {
		own = nil
	}
	missing := c.firstEvent() > told.last+1 || !ok
	if !missing || c.seq-told.seq > fillUp {
		return own
	}
	ctx, cancel := context.WithTimeout(k.db.ctx, requestTimeout)
	defer cancel()
	commits, err := k.commits(ctx, c.origin, told.seq+1, c.seq)
	if err != nil {
		return own
	}
	var events []store.Event
	next := told.last + 1
	for i := range commits {
		b := commits[i].block()
		more, ok := b.whole()
		if !ok || b.first != next {
			return own
		}
		events, next = append(events, more...), b.next()
	}
	if next != c.last+1 {
		return own
	}
	return events
}

func (k *log) tell(b store.Bounds, events []store.Event) {
	for _, fol := range k.followers {
		fol.f(b, events)
	}
}

// reset forgets what is known of a log, as the JetStream stream was created anew.
func (k *log) reset() {
	k.telling.Lock()
	defer k.telling.Unlock()
	o := k.db.origin.Load()
	k.told = commit{}
	k.tell(k.db.boundsOf(o, state{}), nil)
	k.mu.Lock()
	k.newest, k.places, k.chunks = commit{origin: o}, nil, nil
	k.mu.Unlock()
}

// recheck has the JetStream stream, and then all followed logs, looked at now.
func (db *DB) recheck() {
	select {
	case db.check <- struct{}{}:
	default:
	}
}

// watch looks at all followed logs, every second.
func (db *DB) watch() {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	looked := uint64(0)
	for {
		select {
		case <-ticker.C:
		case <-db.check:
			db.renew()
			looked = 0
		case <-db.ctx.Done():
			return
		}
		looked = db.lookAll(looked)
	}
}

// lookAll looks for what was stored of followed logs after a JetStream sequence, and
// returns the one up to which that is known. Of logs that were not followed when that was
// looked for, it looks for all.
func (db *DB) lookAll(after uint64) uint64 {
	o, old, fresh := db.origin.Load(), map[string]*log{}, map[string]*log{}
	db.mu.Lock()
	for _, k := range db.logs {
		switch followed, looked := k.followed(); {
		case !followed:
			continue
		case looked:
			old[k.subject(o)] = k
		default:
			fresh[k.subject(o)] = k
		}
		k.used = time.Now()
	}
	db.mu.Unlock()
	reached, ok := db.lookFor(old, after)
	if !ok {
		return after
	}
	reached = max(after, reached)
	if upTo, ok := db.lookFor(fresh, 0); ok && upTo >= reached {
		for _, k := range fresh {
			k.mu.Lock()
			k.looked = k.live != nil
			k.mu.Unlock()
		}
	}
	for _, k := range old {
		k.expire()
	}
	return reached
}

// lookFor looks for what was stored of logs, which are given by their subjects, after a
// JetStream sequence, and returns the one up to which that is known, unless it fails.
func (db *DB) lookFor(logs map[string]*log, after uint64) (reached uint64, ok bool) {
	for some := range slices.Chunk(slices.Collect(maps.Keys(logs)), lookAtOnce) {
		upTo := after
		for more := true; more; {
			var err error
			request := getRequest{MultiLast: append([]string{db.origin.Load().barrier()}, some...), Seq: upTo + 1}
			upTo, more, err = db.get(db.ctx, request, func(m *nats.Msg) bool {
				if k := logs[m.Header.Get("Nats-Subject")]; k != nil {
					k.hear(m)
				}
				return true
			})
			if err != nil {
				return 0, false
			}
		}
		upTo = max(upTo, after) // nothing is news
		if reached == 0 || upTo < reached {
			reached = upTo
		}
	}
	return reached, true
}

func (k *log) followed() (followed, looked bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.live != nil, k.looked
}

// expire tells the followers of events that have expired.
func (k *log) expire() {
	c := k.known()
	if !k.db.expired(c.state) {
		return
	}
	b, err := k.bounds(k.db.ctx, c)
	if err != nil {
		return
	}
	k.telling.Lock()
	defer k.telling.Unlock()
	if k.told.seq <= c.seq {
		k.tell(b, nil)
	}
}
