package stream

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Figures are what a client was given, and where it is.
type Figures struct {
	// Delivered is how many events it was given, and Replayed how many of them were
	// read from the log, as they were not in the stream's tail.
	Delivered, Replayed uint64
	// Lag is how many events its position is behind the last, filtered or not; of
	// several streams, in the one where it is farthest behind. A subscription that is
	// Once has none.
	Lag uint64
	// Live: what it lacks, if anything, need not be read from a log.
	Live bool
	// Resumed: it began with the client's ID.
	Resumed bool
}

// shown is what a cursor shows of itself to other goroutines. Only its own one writes.
type shown struct{ after, given, replayed atomic.Uint64 }

// show is called once for all that the cursor gives at once.
func (c *Cursor) show() {
	if c.after == c.shown.after.Load() && c.given == c.shown.given.Load() {
		return
	}
	c.shown.after.Store(c.after)
	c.shown.given.Store(c.given)
	if c.replayed != c.shown.replayed.Load() {
		c.shown.replayed.Store(c.replayed)
	}
}

// Figures can be called at any time, by any goroutine.
func (c *Cursor) Figures() Figures {
	f := Figures{Delivered: c.shown.given.Load(), Replayed: c.shown.replayed.Load(), Resumed: c.resumes}
	if c.tail == nil {
		return f
	}
	v, after := c.tail.view.Load(), c.shown.after.Load()
	f.Lag = v.bounds.Last - min(v.bounds.Last, after)
	f.Live = !v.behind(after)
	return f
}

// Figures is [Cursor.Figures] for all streams.
func (m *Merged) Figures() Figures {
	all := Figures{Live: true}
	for _, c := range m.cursors {
		f := c.Figures()
		all.Delivered += f.Delivered
		all.Replayed += f.Replayed
		all.Lag = max(all.Lag, f.Lag)
		all.Live = all.Live && f.Live
		all.Resumed = all.Resumed || f.Resumed
	}
	return all
}

// GapCount is how many gaps clients were told of, and how many events these span, as
// far as that is known.
type GapCount struct{ Gaps, Missed uint64 }

type gapCounts struct {
	mu    sync.Mutex // guards count
	count map[string]GapCount
}

func newGapCounts() *gapCounts {
	return &gapCounts{count: map[string]GapCount{
		ReasonEvicted: {}, ReasonAhead: {}, ReasonUnknown: {}, ReasonReset: {}, ReasonCorrupt: {},
	}}
}

// appendGap tells the client of a gap.
func (c *Cursor) appendGap(p []byte, g Gap) []byte {
	counts := c.set.gaps
	counts.mu.Lock()
	n := counts.count[g.Reason]
	n.Gaps++
	if g.Missed != nil {
		n.Missed += *g.Missed
	}
	counts.count[g.Reason] = n
	counts.mu.Unlock()
	return c.format.Gap(p, g)
}

// Gaps counts the gaps so far, by reason; all reasons are there.
func (s *Set) Gaps() map[string]GapCount {
	s.gaps.mu.Lock()
	defer s.gaps.mu.Unlock()
	return maps.Clone(s.gaps.count)
}

// Clients is how many subscriptions follow the stream.
func (s *Set) Clients(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tails[name]; t != nil {
		return t.clients
	}
	return 0
}
