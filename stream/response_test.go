package stream_test

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lastevent/store"
	"lastevent/stream"
	"lastevent/stream/sse"
)

// A response is what a client of a Cursor or a Merged has received.
type response struct {
	t      *testing.T
	source interface {
		Next() ([]byte, <-chan struct{}, error)
		Idle() []byte
		Close()
	}
	unread []byte
	ended  bool
}

// receive returns what there is now, a line a message: its type, ID and data.
func (r *response) receive() []string {
	r.t.Helper()
	for !r.ended {
		p, changed, err := r.source.Next()
		r.unread = append(r.unread, p...)
		if err == io.EOF {
			r.ended = true
		} else if err != nil {
			r.t.Fatal(err)
		}
		if len(p) == 0 && changed != nil {
			break
		}
	}
	return r.messages()
}

// messages returns what was received since the last call.
func (r *response) messages() (got []string) {
	r.t.Helper()
	reader := sse.NewReader(bytes.NewReader(r.unread), 10<<20)
	r.unread = nil
	id := ""
	for {
		m, err := reader.Next()
		if err == io.EOF {
			return got
		} else if err != nil {
			r.t.Fatal(err)
		}
		line := m.Type
		if m.ID != id {
			line += " #" + m.ID
		}
		id = m.ID
		if m.Type != stream.TypePosition {
			line += " " + m.Data
		}
		got = append(got, line)
	}
}

func (r *response) want(want ...string) {
	r.t.Helper()
	if diff := cmp.Diff(want, r.receive()); diff != "" {
		r.t.Fatalf("received (-want +got):\n%s", diff)
	}
}

// A world is a store with a set of streams on it.
type world struct {
	t   *testing.T
	db  *store.DB
	set *stream.Set
}

func newWorld(t *testing.T, retention store.Retention) *world {
	t.Helper()
	db, err := store.Open(filepath.Join(t.TempDir(), "test.db"), store.Options{Retention: retention})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{t, db, stream.NewSet(db.Log, db.Streams)}
}

// append appends events, each written as "type data".
func (w *world) append(name string, events ...string) {
	w.t.Helper()
	w.batch(name, false, events)
}

// close appends events and closes the stream.
func (w *world) close(name string, events ...string) {
	w.t.Helper()
	w.batch(name, true, events)
}

func (w *world) batch(name string, closes bool, events []string) {
	w.t.Helper()
	b := store.Batch{Close: closes}
	for _, e := range events {
		typ, data, _ := strings.Cut(e, " ")
		b.Events = append(b.Events, store.Event{Type: typ, Data: []byte(data)})
	}
	if _, err := w.db.Log(name).Append(w.t.Context(), b); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) subscribe(name string, sub stream.Subscription) (*response, *stream.Cursor) {
	w.t.Helper()
	c, err := w.set.Subscribe(w.t.Context(), name, sub)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return &response{t: w.t, source: c, unread: c.Begin()}, c
}

func (w *world) merge(names []string, sub stream.Subscription) (*response, *stream.Merged) {
	w.t.Helper()
	m, err := w.set.SubscribeAll(w.t.Context(), names, sub)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(m.Close)
	return &response{t: w.t, source: m, unread: m.Begin()}, m
}

func resume(id string) stream.Start { return stream.Start{LastEventID: &id} }

var earliest = stream.Start{Earliest: true}

// repeat is n times an event.
func repeat(n int, event string) []string {
	events := make([]string, n)
	for i := range events {
		events[i] = event
	}
	return events
}

func TestEndOfAClosedStream(t *testing.T) {
	w := newWorld(t, store.Retention{Events: 3})
	live, _ := w.subscribe("s", stream.Subscription{})
	live.want("position #0")
	w.append("s", "a 1", "a 2")
	live.want("a #1 1", "a #2 2")
	w.close("s", "a 3", "a 4")
	live.want("a #3 3", "a #4 4", `end {"last":4}`)
	if !live.ended {
		t.Error("the response goes on after the end")
	}

	late, _ := w.subscribe("s", stream.Subscription{})
	late.want("position #4", `end {"last":4}`)
	all, _ := w.subscribe("s", stream.Subscription{Start: earliest})
	all.want("position #1", "a #2 2", "a #3 3", "a #4 4", `end {"last":4}`)
	missed, _ := w.subscribe("s", stream.Subscription{Start: resume("0")})
	missed.want(`gap {"reason":"evicted","lastEventId":"0","first":2,"last":4,"missed":1}`,
		"position #1", "a #2 2", "a #3 3", "a #4 4", `end {"last":4}`)
	ahead, _ := w.subscribe("s", stream.Subscription{Start: resume("5")})
	ahead.want(`gap {"reason":"ahead","lastEventId":"5","first":2,"last":4,"missed":null}`,
		"position #1", "a #2 2", "a #3 3", "a #4 4", `end {"last":4}`)
	limited, _ := w.subscribe("s", stream.Subscription{Start: resume("3"), Limit: 1})
	limited.want("position #3", "a #4 4")

	w.delete("s")
	deleted, _ := w.subscribe("s", stream.Subscription{Start: resume("2")})
	deleted.want(`gap {"reason":"evicted","lastEventId":"2","first":5,"last":4,"missed":2}`,
		"position #4", `end {"last":4}`)
}

func (w *world) delete(name string) {
	w.t.Helper()
	if err := w.db.Log(name).Delete(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func TestFinished(t *testing.T) {
	w := newWorld(t, store.Retention{})
	w.close("s", "a 1", "a 2")
	w.close("empty")
	w.append("open", "a 1", "a 2")
	for _, test := range []struct {
		stream string
		start  stream.Start
		want   bool
	}{
		{"s", resume("2"), true},
		{"s", resume("1"), false},
		{"s", resume("3"), false},
		{"s", resume("x"), false},
		{"s", stream.Start{}, false},
		{"s", earliest, false},
		{"empty", resume("0"), true},
		{"empty", stream.Start{}, false},
		{"open", resume("2"), false},
		{"never", resume("0"), false},
	} {
		if _, c := w.subscribe(test.stream, stream.Subscription{Start: test.start}); c.Finished() != test.want {
			t.Errorf("%s from %+v: finished %v", test.stream, test.start, c.Finished())
		}
	}
}

// A start that is not by an ID has no gap, even if events are evicted before they
// are read.
func TestStartWithoutAGap(t *testing.T) {
	w := newWorld(t, store.Retention{Events: 10})
	w.append("s", repeat(10, "x")...)
	for _, start := range []stream.Start{earliest, {Newest: 7}, {Since: time.Unix(1, 0)}} {
		c, err := w.set.Subscribe(t.Context(), "s", stream.Subscription{Start: start})
		if err != nil {
			t.Fatal(err)
		}
		b, err := w.db.Log("s").Bounds(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.append("s", repeat(8, "x")...)
		r := &response{t: t, source: c, unread: c.Begin()}
		got := r.receive()
		if want := fmt.Sprintf("position #%d", b.Last-2); got[0] != want || len(got) != 11 {
			t.Errorf("%+v: %q; want %s and 10 events", start, got, want)
		}
		c.Close()
	}
}

// A page that begins later than it was to end is empty, and the next one has no gap.
func TestPageBehindWhatIsEvicted(t *testing.T) {
	w := newWorld(t, store.Retention{Events: 4})
	w.append("s", repeat(4, "x")...)
	c, err := w.set.Subscribe(t.Context(), "s", stream.Subscription{Start: earliest, Once: true, Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w.append("s", repeat(4, "x")...)
	c.Begin()
	if after, until := c.Span(); after != 4 || until < after {
		t.Errorf("the page goes from %d to %d", after, until)
	}
}

// The IDs of all merged streams hold where each of them begins, even if one of them
// moved meanwhile.
func TestMergedStartWithoutAGap(t *testing.T) {
	w := newWorld(t, store.Retention{})
	w.append("a", "x 1", "x 2")
	w.append("b", "x 1", "x 2", "x 3")
	m, err := w.set.SubscribeAll(t.Context(), []string{"a", "b"}, stream.Subscription{Start: earliest})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	w.delete("b")
	r := &response{t: t, source: m, unread: m.Begin()}
	r.want("position #0.3", "x #1.3~0 1", "x #2.3~0 2")
}

func TestDeleteUnderClients(t *testing.T) {
	w := newWorld(t, store.Retention{})
	w.append("s", "a 1", "a 2")
	behind, _ := w.subscribe("s", stream.Subscription{Start: resume("0")})
	live, _ := w.subscribe("s", stream.Subscription{})
	w.delete("s")
	w.append("s", "a 3")
	behind.want("position #0", `gap {"reason":"evicted","lastEventId":"0","first":3,"last":3,"missed":2}`, "position #2", "a #3 3")
	live.want("position #2", "a #3 3")
}

func TestFilter(t *testing.T) {
	w := newWorld(t, store.Retention{Events: 100})
	sub := stream.Subscription{Start: earliest, Types: []string{"rare", "message"}}
	w.append("s", "x 1", "rare 2", "x 3", "message 4", "rarer 5")
	r, c := w.subscribe("s", sub) // the log, and then the tail
	// A quarter of five events is one: a position follows what was filtered out.
	r.want("position #0", "rare #2 2", "message #4 4", "position #5")
	w.append("s", repeat(95, "x")...)
	r.want("position #100")
	w.append("s", repeat(20, "x")...)
	r.want()
	if got := (&response{t: t, unread: c.Idle()}).messages(); len(got) != 1 || got[0] != "position #120" {
		t.Errorf("idle: %q", got)
	}
	if c.Idle() != nil {
		t.Error("told the same position twice")
	}
	w.append("s", "rare 121", "x 122")
	r.want("rare #121 121")
	w.append("s", repeat(23, "x")...)
	r.want()
	w.append("s", "x 146")
	r.want("position #146")
	w.append("s", append(repeat(150, "x"), "rare 297")...) // larger than the ring
	r.want(`gap {"reason":"evicted","lastEventId":"146","first":198,"last":297,"missed":51}`, "position #197", "rare #297 297")
	w.close("s", "x 298")
	r.want("position #298", `end {"last":298}`)
}

func TestFilterLimitCountsWhatIsSent(t *testing.T) {
	w := newWorld(t, store.Retention{})
	w.append("s", "x 1", "a 2", "x 3", "a 4", "a 5")
	r, _ := w.subscribe("s", stream.Subscription{Start: earliest, Types: []string{"a"}, Limit: 2})
	r.want("position #0", "a #2 2", "a #4 4")
	if !r.ended {
		t.Error("goes on after its limit")
	}
}

// One event among very many is found without the others being sent.
func TestFilterFindsARareEvent(t *testing.T) {
	w := newWorld(t, store.Retention{})
	const common = 200_000
	for range 10 {
		w.append("s", repeat(common/10, "common "+strings.Repeat("x", 100))...)
	}
	w.append("s", "rare found")
	r, _ := w.subscribe("s", stream.Subscription{Start: earliest, Types: []string{"rare"}})
	got := r.receive()
	if last := got[len(got)-1]; last != fmt.Sprintf("rare #%d found", common+1) {
		t.Errorf("last is %q", last)
	}
	if len(got) > 10 {
		t.Errorf("%d messages for one event", len(got))
	}
}

func TestOnce(t *testing.T) {
	w := newWorld(t, store.Retention{})
	w.append("s", "a 1", "b 2", "a 3", "b 4")
	once := func(sub stream.Subscription) (*response, *stream.Cursor) {
		sub.Once = true
		return w.subscribe("s", sub)
	}
	all, _ := once(stream.Subscription{Start: earliest})
	w.append("s", "a 5")
	all.want("position #0", "a #1 1", "b #2 2", "a #3 3", "b #4 4")
	if !all.ended {
		t.Error("a read that is not to follow goes on")
	}
	none, _ := once(stream.Subscription{Start: resume("5")})
	none.want("position #5")
	filtered, _ := once(stream.Subscription{Start: earliest, Types: []string{"b"}})
	filtered.want("position #0", "b #2 2", "b #4 4", "position #5")

	for _, test := range []struct {
		sub   stream.Subscription
		until uint64
		want  []string
	}{
		{stream.Subscription{Start: earliest, Limit: 2}, 2, []string{"position #0", "a #1 1", "b #2 2"}},
		{stream.Subscription{Start: earliest, Limit: 9}, 5, []string{"position #0", "a #1 1", "b #2 2", "a #3 3", "b #4 4", "a #5 5"}},
		{stream.Subscription{Start: earliest, Limit: 1, Types: []string{"b"}}, 3, []string{"position #0", "b #2 2", "position #3"}},
		{stream.Subscription{Start: resume("3"), Limit: 1, Types: []string{"b"}}, 5, []string{"position #3", "b #4 4", "position #5"}},
		{stream.Subscription{Start: earliest, Limit: 1, Types: []string{"none"}}, 5, []string{"position #0", "position #5"}},
	} {
		r, c := once(test.sub)
		if _, until := c.Span(); until != test.until {
			t.Errorf("%+v ends at %d, want %d", test.sub, until, test.until)
		}
		r.want(test.want...)
	}
}

func TestMerged(t *testing.T) {
	w := newWorld(t, store.Retention{Events: 100})
	names := []string{"a", "b/c", "never"}
	w.append("a", "x 1", "x 2")
	r, _ := w.merge(names, stream.Subscription{Start: earliest})
	r.want("position #0.0.0", "x #1.0.0~0 1", "x #2.0.0~0 2")
	w.append("b/c", "message first\r\nsecond")
	r.want("message #2.1.0~1 first\nsecond")
	w.close("a", "y 3")
	r.want("y #3.1.0~0 3", `end {"stream":"a","last":3}`)

	// The index of the event's stream does not matter to a resume.
	for _, id := range []string{"2.1.0", "2.1.0~0", "2.1.0~1"} {
		again, m := w.merge(names, stream.Subscription{Start: resume(id)})
		again.want("position #2.1.0", "y #3.1.0~0 3", `end {"stream":"a","last":3}`)
		if m.Finished() {
			t.Error("finished with open streams")
		}
	}
	gone, _ := w.merge(names, stream.Subscription{Start: resume("3.7.0~1")})
	gone.want(`gap {"stream":"b/c","reason":"ahead","lastEventId":"7","first":1,"last":1,"missed":null}`,
		"position #3.0.0", `end {"stream":"a","last":3}`, "message #3.1.0~1 first\nsecond")
	for _, id := range []string{"3", "3.1", "3.1.0.0", "3.x.0", "~1", ""} {
		r, _ := w.merge(names, stream.Subscription{Start: resume(id)})
		if got := r.receive()[:4]; got[3] != "position #0.0.0" ||
			got[1] != fmt.Sprintf(`gap {"stream":"b/c","reason":"unknown","lastEventId":%q,"first":1,"last":1,"missed":null}`, id) {
			t.Errorf("resumed by %q: %q", id, got)
		}
	}

	w.close("b/c")
	w.close("never")
	r.want(`end {"stream":"b/c","last":1}`, `end {"stream":"never","last":0}`)
	if !r.ended {
		t.Error("goes on when all streams are closed")
	}
	if _, m := w.merge(names, stream.Subscription{Start: resume("3.1.0~0")}); !m.Finished() {
		t.Error("not finished with all of all streams")
	}
	if _, m := w.merge(names, stream.Subscription{Start: resume("3.0.0~0")}); m.Finished() {
		t.Error("finished with an event to come")
	}
}

func TestMergedFilterAndLimit(t *testing.T) {
	w := newWorld(t, store.Retention{})
	w.append("a", "x 1", "y 2", "x 3")
	w.append("b", "y 1", "x 2", "y 3")
	r, _ := w.merge([]string{"a", "b"}, stream.Subscription{Start: earliest, Types: []string{"x"}, Limit: 3})
	r.want("position #0.0", "x #1.0~0 1", "x #3.0~0 3", "x #3.2~1 2")
	if !r.ended {
		t.Error("goes on after its limit")
	}
}

// An idle connection is told the positions in all streams, not only in the first
// where something was filtered out.
func TestMergedIdle(t *testing.T) {
	w := newWorld(t, store.Retention{})
	w.append("a", repeat(100, "x")...)
	w.append("b", repeat(100, "x")...)
	r, m := w.merge([]string{"a", "b"}, stream.Subscription{Types: []string{"rare"}})
	w.append("a", "x 101")
	w.append("b", "x 101", "x 102")
	r.want("position #100.100")
	r.unread = m.Idle()
	r.want("position #101.102")
	if m.Idle() != nil {
		t.Error("told the same positions twice")
	}
}

func TestMergedGapWhileConnected(t *testing.T) {
	w := newWorld(t, store.Retention{Events: 2})
	r, _ := w.merge([]string{"a", "b"}, stream.Subscription{})
	w.append("b", "x 1", "x 2", "x 3")
	r.want("position #0.0", `gap {"stream":"b","reason":"evicted","lastEventId":"0","first":2,"last":3,"missed":1}`,
		"position #0.1", "x #0.2~1 2", "x #0.3~1 3")
}
