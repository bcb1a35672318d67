//go:build unix

package servetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"lastevent/stream/sse"
)

// A Subscription is the response to one GET of a stream, read as it comes.
type Subscription struct {
	*sse.Reader
	body io.Closer
}

// Subscribe subscribes with a Last-Event-ID, unless it is empty.
func Subscribe(ctx context.Context, client *http.Client, url, lastEventID string) (*Subscription, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return nil, err
	}
	if lastEventID != "" {
		req.Header.Set("Last-Event-ID", lastEventID)
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if typ := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || typ != "text/event-stream" {
		res.Body.Close()
		return nil, broken("subscribing: %s, type %q", res.Status, typ)
	}
	return &Subscription{sse.NewReader(res.Body, 1<<20), res.Body}, nil
}

// Drop closes the connection abruptly.
func (s *Subscription) Drop() { _ = s.body.Close() }

// A Ledger is what anybody saw of a stream, and what was acknowledged.
type Ledger struct {
	mu     sync.Mutex
	events map[uint64]Event
	acked  map[uint64]bool
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

// A Follower is a client that resumes where it was, and checks that it misses
// nothing but what a gap tells, exactly.
type Follower struct {
	Client *http.Client
	URL    string
	Seen   *Ledger // may be nil

	Began  bool // has an ID
	After  uint64
	Events int
	Gaps   int
	gap    *gap // not yet followed by its position
}

// gap is the data of a gap event.
type gap struct {
	Reason, LastEventID string
	First, Last         uint64
	Missed              *uint64
}

// Follow subscribes, goes on while more says so, and then drops the connection.
// An error that is ErrBroken is the server's fault, any other the connection's.
func (f *Follower) Follow(ctx context.Context, more func() bool) error {
	sub, err := f.Subscribe(ctx)
	if err != nil {
		return err
	}
	defer sub.Drop()
	return f.Read(sub, more)
}

// Resume follows, again after each failure of the connection and each drop, until it
// has the event with the ID last.
func (f *Follower) Resume(ctx context.Context, last uint64, drop func() bool) error {
	for f.After < last {
		err := f.Follow(ctx, func() bool { return f.After < last && !drop() })
		if errors.Is(err, ErrBroken) {
			return err
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// Subscribe subscribes with the ID that it has.
func (f *Follower) Subscribe(ctx context.Context) (*Subscription, error) {
	id := ""
	if f.Began {
		id = strconv.FormatUint(f.After, 10)
	}
	return Subscribe(ctx, f.Client, f.URL, id)
}

// Read goes on reading a subscription while more says so.
func (f *Follower) Read(sub *Subscription, more func() bool) error {
	for more() {
		m, err := sub.Next()
		if err == io.EOF {
			return broken("a clean end after ID %d", f.After)
		}
		if err == nil {
			err = f.Take(m)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// UpTo is for Follow: until the event with this ID.
func (f *Follower) UpTo(last uint64) func() bool {
	return func() bool { return !f.Began || f.After < last }
}

// Take checks and enters one message.
func (f *Follower) Take(m sse.Message) error {
	if m.Type == "gap" {
		return f.takeGap(m)
	}
	id, err := strconv.ParseUint(m.ID, 10, 64)
	if err != nil {
		return broken("%q has the ID %q", m.Data, m.ID)
	}
	want := f.After + 1
	switch {
	case m.Type != "position" && (!f.Began || f.gap != nil):
		return broken("ID %d where the position must be", id)
	case m.Type == "position" && f.gap != nil:
		want = f.gap.First - 1
	case m.Type == "position" && f.Began:
		want = f.After
	case m.Type == "position":
		want = id
	}
	if id != want {
		return broken("%s %d where %d must be", m.Type, id, want)
	}
	f.Began, f.After, f.gap = true, id, nil
	if m.Type == "position" {
		return nil
	}
	f.Events++
	if f.Seen == nil {
		return nil
	}
	return f.Seen.See(id, Event{m.Type, m.Data})
}

func (f *Follower) takeGap(m sse.Message) error {
	g := new(gap)
	if err := json.Unmarshal([]byte(m.Data), g); err != nil {
		return broken("gap %q", m.Data)
	}
	if g.Reason != "evicted" || g.LastEventID != fmt.Sprint(f.After) ||
		g.Missed == nil || *g.Missed == 0 || g.First != f.After+*g.Missed+1 {
		return broken("gap %q after ID %d", m.Data, f.After)
	}
	f.gap = g
	f.Gaps++
	return nil
}
