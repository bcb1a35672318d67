package stream_test

import (
	"context"
	"errors"
	"flag"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lastevent/store"
	"lastevent/stream"
)

func TestMain(m *testing.M) {
	// Few but long runs: opening the store costs more than a step.
	for name, value := range map[string]string{"rapid.checks": "20", "rapid.steps": "60"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

// A plain is a log as simple as it can be: all events that there ever were, and
// the sequence of the oldest that is retained.
type plain struct {
	retention store.Retention
	events    []store.Event
	first     uint64
	closed    bool
}

func (p *plain) last() uint64 { return uint64(len(p.events)) }

func (p *plain) at(seq uint64) store.Event { return p.events[seq-1] }

// append appends at a time, which must not be before the last one's, and evicts.
func (p *plain) append(now time.Time, events ...store.Event) {
	for _, e := range events {
		e.Seq, e.Time = p.last()+1, now
		p.events = append(p.events, e)
	}
	p.evict(now)
}

func (p *plain) evict(now time.Time) {
	p.first = max(p.first, 1)
	r := p.retention
	if r.Events > 0 && p.last() > r.Events {
		p.first = max(p.first, p.last()-r.Events+1)
	}
	for r.Age > 0 && p.first <= p.last() && !p.at(p.first).Time.After(now.Add(-r.Age)) {
		p.first++
	}
	size := uint64(0)
	for seq := p.last(); r.Bytes > 0 && seq >= p.first; seq-- {
		if size += uint64(len(p.at(seq).Type) + len(p.at(seq).Data)); size > r.Bytes {
			p.first = seq + 1
		}
	}
}

// before is the sequence after which the events since t begin.
func (p *plain) before(t time.Time) uint64 {
	after := p.first - 1
	for after < p.last() && p.at(after+1).Time.Before(t) {
		after++
	}
	return after
}

// A memory is an engine of one log that is a plain slice. What it tells its
// followers, and when, can be less than the store tells.
type memory struct {
	stream.Log // whatever else a log can do, this one cannot

	mu        sync.Mutex // guards all that follows
	plain     plain
	followers map[int]func(store.Bounds, []store.Event)
	followed  int // how often Follow was called
	reads     int // how often Read was called

	silent  bool // followers are told only by tell
	tells   int  // so many of the newest events are told; -1: those that are new
	corrupt struct{ first, last uint64 }
	fails   map[string]error // by method
}

func newMemory(r store.Retention) *memory {
	return &memory{
		plain:     plain{retention: r, first: 1},
		followers: map[int]func(store.Bounds, []store.Event){},
		tells:     -1,
		fails:     map[string]error{},
	}
}

// set returns the streams of an engine that has this one log, whatever its name.
func (m *memory) set() *stream.Set {
	return newSet(func(string) stream.Log { return m })
}

func newSet(open func(name string) stream.Log) *stream.Set {
	return stream.NewSet(open, nil)
}

func (m *memory) boundsLocked() store.Bounds {
	return store.Bounds{Log: "memory", First: m.plain.first, Last: m.plain.last(), Closed: m.plain.closed}
}

func (m *memory) tellLocked(events int) {
	n := min(events, len(m.plain.events))
	for _, f := range m.followers {
		f(m.boundsLocked(), m.plain.events[len(m.plain.events)-n:])
	}
}

// tell tells the followers of so many of the newest events.
func (m *memory) tell(events int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tellLocked(events)
}

func (m *memory) Bounds(ctx context.Context) (store.Bounds, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.boundsLocked(), errors.Join(m.fails["Bounds"], ctx.Err())
}

func (m *memory) Read(ctx context.Context, after uint64, yield func(store.Event) bool) (store.Bounds, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	b := m.boundsLocked()
	if err := errors.Join(m.fails["Read"], ctx.Err()); err != nil {
		return b, err
	}
	start := max(after+1, b.First)
	for seq := start; seq <= b.Last; seq++ {
		if c := m.corrupt; c.first <= seq && seq <= c.last {
			if seq > start {
				break
			}
			return b, &store.CorruptError{First: seq, Last: c.last}
		}
		if !yield(m.plain.at(seq)) {
			break
		}
	}
	return b, nil
}

func (m *memory) Before(ctx context.Context, t time.Time) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.plain.before(t), errors.Join(m.fails["Before"], ctx.Err())
}

func (m *memory) Append(ctx context.Context, b store.Batch) (store.Receipt, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := errors.Join(m.fails["Append"], ctx.Err()); err != nil {
		return store.Receipt{}, err
	}
	m.plain.append(time.Now(), b.Events...)
	if !m.silent {
		n := m.tells
		if n < 0 {
			n = len(b.Events)
		}
		m.tellLocked(n)
	}
	return store.Receipt{Last: m.plain.last(), Count: len(b.Events)}, nil
}

func (m *memory) Follow(ctx context.Context, f func(store.Bounds, []store.Event)) (func(), error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := errors.Join(m.fails["Follow"], ctx.Err()); err != nil {
		return nil, err
	}
	m.followed++
	id := m.followed
	m.followers[id] = f
	f(m.boundsLocked(), nil)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.followers, id)
	}, nil
}

// following is how many follow the log now.
func (m *memory) following() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.followers)
}

func (m *memory) readCount() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reads
}

// add appends events, and fails the test if that fails.
func add(t testing.TB, log stream.Log, events ...store.Event) {
	t.Helper()
	if _, err := log.Append(context.Background(), store.Batch{Events: events}); err != nil {
		t.Fatal(err)
	}
}

// events are so many, each of that size.
func events(n, size int) []store.Event {
	data := make([]byte, size)
	for i := range data {
		data[i] = "0123456789abcdef"[i%16]
	}
	list := make([]store.Event, n)
	for i := range list {
		list[i] = store.Event{Type: "message", Data: data}
	}
	return list
}

// subscribe subscribes, and fails the test if that fails.
func subscribe(t testing.TB, set *stream.Set, name string, start stream.Start, limit uint64) *stream.Cursor {
	t.Helper()
	c, err := set.Subscribe(context.Background(), name, stream.Subscription{Start: start, Limit: limit})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// lastHad is the start of a client that had the event with this ID last.
func lastHad(id string) stream.Start { return stream.Start{LastEventID: &id} }
