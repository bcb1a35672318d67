// Package stream serves the logs of an engine to any number of clients.
//
// A [Set] is the streams of an engine, each of them a [Log]. [Set.Subscribe]
// returns a [Cursor], one client's moving position in a log. The cursor finds what
// comes after its position in the stream's tail, which holds the newest events as
// they go over the wire, encoded once for all clients; what is older it reads from
// the log. Replay and live are thus one loop, with no seam between them, and a
// stream has no list of clients to send to: whoever appends waits for nobody.
//
// A cursor never skips an event silently. What it cannot give any more it calls a
// gap, and says how much is missing.
package stream

import (
	"context"
	"sync"
	"time"

	"lastevent/store"
)

// Log is what a stream needs of the engine that stores it. [store.Log] is one, and
// says what the methods promise.
type Log interface {
	// Bounds returns what the log holds now, with all that was appended before the call,
	// whoever did.
	Bounds(context.Context) (store.Bounds, error)
	// Read yields the retained events after a sequence, in order, and returns the
	// bounds of the moment that it read at.
	Read(ctx context.Context, after uint64, yield func(store.Event) bool) (store.Bounds, error)
	// Before returns the sequence after which the events since t begin.
	Before(ctx context.Context, t time.Time) (after uint64, err error)
	// Append makes a batch durable.
	Append(context.Context, store.Batch) (store.Receipt, error)
	// Used returns the receipt of the append that an idempotency key was used for.
	Used(ctx context.Context, key string, digest [32]byte) (r store.Receipt, used bool, err error)
	// Delete removes all events.
	Delete(context.Context) error
	// Follow calls f, never twice at a time: at once with the bounds, then with new
	// bounds whenever they change, whoever appended. The events, if there are any,
	// are the newest ones, contiguous up to Bounds.Last. Where others append, it may be
	// called late. Another Bounds.Log says that the log was lost and begun anew. After
	// stop f is not called.
	Follow(ctx context.Context, f func(store.Bounds, []store.Event)) (stop func(), err error)
}

// A Set is the streams of one engine.
type Set struct {
	open func(name string) Log
	list func(context.Context) ([]store.Stream, error)

	mu    sync.Mutex // guards tails and the clients of each
	tails map[string]*tail

	gaps *gapCounts
}

// NewSet returns the streams whose logs open returns, and which list lists. Open is
// called with the names that clients give, and must write nothing.
func NewSet[L Log](open func(name string) L, list func(context.Context) ([]store.Stream, error)) *Set {
	return &Set{
		open:  func(name string) Log { return open(name) },
		list:  list,
		tails: map[string]*tail{},
		gaps:  newGapCounts(),
	}
}

// Log returns the log of a stream.
func (s *Set) Log(name string) Log { return s.open(name) }

// Info is what a stream holds, and how many clients it has.
type Info struct {
	store.Stream
	Clients int
}

// List returns all streams ever written.
func (s *Set) List(ctx context.Context) ([]Info, error) {
	streams, err := s.list(ctx)
	infos := make([]Info, len(streams))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, st := range streams {
		infos[i].Stream = st
		if t := s.tails[st.Name]; t != nil {
			infos[i].Clients = t.clients
		}
	}
	return infos, err
}

// join returns the stream's tail, for one more client; the first one starts it.
func (s *Set) join(ctx context.Context, name string) (*tail, error) {
	s.mu.Lock()
	t := s.tails[name]
	if t == nil {
		t = &tail{log: s.open(name)}
		s.tails[name] = t
	}
	t.clients++
	s.mu.Unlock()
	if err := t.start(ctx); err != nil {
		s.leave(name, t)
		return nil, err
	}
	return t, nil
}

// leave gives up what join returned; the last client stops the tail.
func (s *Set) leave(name string, t *tail) {
	s.mu.Lock()
	t.clients--
	last := t.clients == 0
	if last {
		delete(s.tails, name)
	}
	s.mu.Unlock()
	if last {
		t.stop()
	}
}
