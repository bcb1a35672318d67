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

// A Follower is a client that resumes where it was, and checks that it misses
// nothing but what a gap tells, exactly.
type Follower struct {
	Client *http.Client
	URL    string
	Seen   *Ledger // may be nil
	Only   string  // if not empty, the only type that URL asks for

	Began   bool // has an ID
	After   uint64
	Events  int
	Gaps    int
	gap     *gap   // not yet followed by its position
	skipped []span // without an event of the type Only
}

// A span is IDs, from first to last.
type span struct{ first, last uint64 }

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
	if f.Only != "" && m.Type != "position" && m.Type != f.Only {
		return broken("%q of type %s, which was not asked for", m.Data, m.Type)
	}
	if f.Only != "" && f.gap == nil && f.Began && id > want {
		f.skipped = append(f.skipped, span{f.After + 1, id - 1})
		if m.Type == "position" {
			f.skipped[len(f.skipped)-1].last = id
		}
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

// CheckSkipped says which event a follower of one type should have got. Seen must
// have all events by now.
func (f *Follower) CheckSkipped() error {
	for _, s := range f.skipped {
		for id := s.first; id <= s.last; id++ {
			if f.Seen.has(id, f.Only) {
				return broken("ID %d, of type %s, was skipped", id, f.Only)
			}
		}
	}
	return nil
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
