package stream_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"lastevent/store"
	"lastevent/stream"
)

func TestFigures(t *testing.T) {
	log := newMemory(store.Retention{})
	set := log.set()
	add(t, log, events(3, 10)...)
	c := subscribe(t, set, "x", lastHad("1"), 0)
	defer c.Close()
	want := func(when string, want stream.Figures) {
		t.Helper()
		if diff := cmp.Diff(want, c.Figures()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	c.Begin()
	want("at its beginning", stream.Figures{Lag: 2, Resumed: true})
	collect(t, c)
	want("when it has all", stream.Figures{Delivered: 2, Replayed: 2, Live: true, Resumed: true})
	add(t, log, events(4, 10)...)
	want("when more has come", stream.Figures{Delivered: 2, Replayed: 2, Lag: 4, Live: true, Resumed: true})
	collect(t, c)
	want("when it has that", stream.Figures{Delivered: 6, Replayed: 2, Live: true, Resumed: true})
	if n := set.Clients("x"); n != 1 {
		t.Errorf("%d clients", n)
	}
	if n := set.Clients("y"); n != 0 {
		t.Errorf("%d clients of a stream that has none", n)
	}
}

// Events that a client does not want are not delivered, and it does not lag for them.
func TestFiguresOfFiltered(t *testing.T) {
	log := newMemory(store.Retention{})
	set := log.set()
	add(t, log, events(3, 10)...)
	c, err := set.Subscribe(t.Context(), "x", stream.Subscription{Start: earliest, Types: []string{"rare"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Begin()
	collect(t, c)
	add(t, log, append(events(2, 10), store.Event{Type: "rare"})...)
	collect(t, c)
	add(t, log, events(1, 10)...)
	collect(t, c)
	if diff := cmp.Diff(stream.Figures{Delivered: 1, Live: true}, c.Figures()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFiguresOfSeveral(t *testing.T) {
	logs := map[string]*memory{"a": newMemory(store.Retention{}), "b": newMemory(store.Retention{})}
	set := newSet(func(name string) stream.Log { return logs[name] })
	add(t, logs["a"], events(3, 10)...)
	add(t, logs["b"], events(5, 10)...)
	m, err := set.SubscribeAll(t.Context(), []string{"a", "b"}, stream.Subscription{Start: earliest})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	m.Begin()
	for {
		p, _, err := m.Next()
		if err != nil {
			t.Fatal(err)
		}
		if len(p) == 0 {
			break
		}
	}
	add(t, logs["a"], events(7, 10)...)
	add(t, logs["b"], events(2, 10)...)
	if diff := cmp.Diff(stream.Figures{Delivered: 8, Replayed: 8, Lag: 7, Live: true}, m.Figures()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestGaps(t *testing.T) {
	log := newMemory(store.Retention{Events: 5})
	set := log.set()
	add(t, log, events(8, 10)...)
	reset := lastHad("7")
	reset.Log = "another"
	for _, start := range []stream.Start{lastHad("1"), lastHad("9"), lastHad("x"), lastHad("y"), reset, lastHad("8"), earliest} {
		c := subscribe(t, set, "x", start, 0)
		c.Begin()
		c.Close()
	}
	live := subscribe(t, set, "x", stream.Start{}, 0)
	defer live.Close()
	live.Begin()
	add(t, log, events(9, 10)...)
	collect(t, live)
	want := map[string]stream.GapCount{
		stream.ReasonEvicted: {Gaps: 2, Missed: 2 + 4},
		stream.ReasonAhead:   {Gaps: 1},
		stream.ReasonUnknown: {Gaps: 2},
		stream.ReasonReset:   {Gaps: 1},
		stream.ReasonCorrupt: {},
	}
	if diff := cmp.Diff(want, set.Gaps()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
