//go:build unix

package servetest

import "sync"

// A Ledger is what anybody saw of a stream, and what was acknowledged.
type Ledger struct {
	mu     sync.Mutex
	events map[uint64]Event
	acked  map[uint64]bool
	last   uint64
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger { return &Ledger{events: map[uint64]Event{}, acked: map[uint64]bool{}} }

// See enters an event. It is an error if its ID had another content before.
func (l *Ledger) See(id uint64, e Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if before, ok := l.events[id]; ok && before != e {
		return broken("ID %d was %.100q and is %.100q", id, before, e)
	}
	l.events[id] = e
	l.last = max(l.last, id)
	return nil
}

// Acknowledge enters events that were published next to each other, up to the ID last.
func (l *Ledger) Acknowledge(last uint64, events ...Event) error {
	for i, e := range events {
		id := last - uint64(len(events)-1-i)
		l.mu.Lock()
		again := l.acked[id]
		l.acked[id] = true
		l.mu.Unlock()
		if again {
			return broken("ID %d was acknowledged twice", id)
		}
		if err := l.See(id, e); err != nil {
			return err
		}
	}
	return nil
}

// Len returns how many events were seen, and how many acknowledged.
func (l *Ledger) Len() (seen, acknowledged int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.events), len(l.acked)
}

// IDs returns the IDs of each event.
func (l *Ledger) IDs() map[Event][]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	ids := map[Event][]uint64{}
	for id, e := range l.events {
		ids[e] = append(ids[e], id)
	}
	return ids
}

// Last returns the greatest ID that was seen or acknowledged; 0 without any.
func (l *Ledger) Last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// CheckOnce says which event has more than one ID. It is for events that are all
// different.
func (l *Ledger) CheckOnce() error {
	for e, ids := range l.IDs() {
		if len(ids) > 1 {
			return broken("%.100q has the IDs %d", e, ids)
		}
	}
	return nil
}

// has reports whether the event with this ID is of this type.
func (l *Ledger) has(id uint64, typ string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.events[id].Type == typ
}
