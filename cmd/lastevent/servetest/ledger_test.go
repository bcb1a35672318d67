//go:build unix

package servetest

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"lastevent/stream/sse"
)

// history is what a client has of a stream with a gap.
const history = `
event: position
id: 0
data: {}

id: 1
data: a

id: 2
data: b

event: even
id: 3
data: c

event: gap
data: {"reason":"evicted","lastEventId":"3","first":6,"last":8,"missed":2}

event: position
id: 5
data: {}

id: 6
data: f

event: even
id: 7
data: g

id: 8
data: h

`

// A doctored history has one text in the place of another.
type doctored struct {
	name, was, is string
	honest        bool
}

// TestDoctoredHistories: followers and ledger find what they are there to find.
func TestDoctoredHistories(t *testing.T) {
	position := "event: position\nid: 5\ndata: {}\n\n"
	gap := history[strings.Index(history, "event: gap"):strings.Index(history, position)]
	test := func(t *testing.T, history, only string, tests []doctored) {
		for _, d := range tests {
			t.Run(d.name, func(t *testing.T) {
				if !strings.Contains(history, d.was) {
					t.Fatalf("%q is not in the history", d.was)
				}
				err := follow(t, strings.Replace(history, d.was, d.is, 1), only)
				if (err == nil) != d.honest || err != nil && !errors.Is(err, ErrBroken) {
					t.Errorf("%v; honest: %t", err, d.honest)
				}
			})
		}
	}
	test(t, history, "", []doctored{
		{name: "nothing is wrong", honest: true},
		{name: "an event is removed", was: "id: 2\ndata: b\n\n"},
		{name: "the last event is removed", was: "id: 8\ndata: h\n\n"},
		{name: "an ID has another event", was: "data: a", is: "data: b"},
		{name: "an ID has another type", was: "event: even\nid: 7", is: "id: 7"},
		{name: "an ID is used again", was: "data: h\n\n", is: "data: h\n\nid: 8\ndata: i\n\n"},
		{name: "an event comes twice", was: "data: a\n\n", is: "data: a\n\nid: 1\ndata: a\n\n"},
		{name: "an event has two IDs", was: "data: h\n\n", is: "data: h\n\nid: 9\ndata: h\n\n"},
		{name: "two events are swapped", was: "id: 1\ndata: a\n\nid: 2\ndata: b\n\n", is: "id: 2\ndata: b\n\nid: 1\ndata: a\n\n"},
		{name: "events are missing without a gap", was: gap + position},
		{name: "a position leaves a hole", was: gap},
		{name: "a gap counts too few", was: `"missed":2`, is: `"missed":1`},
		{name: "a gap ends too late", was: `"first":6`, is: `"first":7`},
		{name: "a gap after another ID", was: `"lastEventId":"3"`, is: `"lastEventId":"2"`},
		{name: "a gap for another reason", was: `"evicted"`, is: `"ahead"`},
		{name: "no position follows a gap", was: position},
		{name: "a position goes back", was: "id: 5", is: "id: 4"},
	})

	filtered := ""
	for _, block := range strings.SplitAfter(history, "\n\n") {
		if strings.Contains(block, "event: ") {
			filtered += block
		}
	}
	filtered += "event: position\nid: 8\ndata: {}\n\n"
	test(t, filtered, "even", []doctored{
		{name: "nothing is wrong with one type", honest: true},
		{name: "a position in between", was: "event: even\nid: 7", is: "event: position\nid: 6\ndata: {}\n\nevent: even\nid: 7", honest: true},
		{name: "one of the type is removed", was: "event: even\nid: 7\ndata: g\n\n"},
		{name: "a position in the place of one", was: "event: even\nid: 3\ndata: c\n\n", is: "event: position\nid: 3\ndata: {}\n\n"},
		{name: "one of another type", was: "event: even\nid: 7", is: "id: 6\ndata: f\n\nevent: even\nid: 7"},
		{name: "a position is too far", was: "event: even\nid: 7", is: "event: position\nid: 7\ndata: {}\n\nevent: even\nid: 7"},
		{name: "an ID goes back", was: "id: 7", is: "id: 5"},
		{name: "a gap of one type counts too few", was: `"missed":2`, is: `"missed":1`},
	})
}

// follow has a follower take a history. The ledger has all that was acknowledged.
func follow(t *testing.T, history, only string) error {
	t.Helper()
	f := &Follower{Seen: NewLedger(), Only: only}
	for i, data := range strings.Split("abcdefgh", "") {
		e := Event{"message", data}
		if i == 2 || i == 6 {
			e.Type = "even"
		}
		if err := f.Seen.Acknowledge(uint64(i+1), e); err != nil {
			t.Fatal(err)
		}
	}
	messages := sse.NewReader(strings.NewReader(history), 1<<10)
	for {
		m, err := messages.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Take(m); err != nil {
			return err
		}
	}
	if err := errors.Join(f.CheckSkipped(), f.Seen.CheckOnce()); err != nil {
		return err
	}
	if f.After != f.Seen.Last() {
		return broken("the client is at %d and %d is acknowledged", f.After, f.Seen.Last())
	}
	return nil
}

func TestLedgerFindsReuse(t *testing.T) {
	l := NewLedger()
	a, b := Event{"message", "a"}, Event{"message", "b"}
	for i, test := range []struct {
		err    error
		broken bool
	}{
		{l.See(1, a), false},
		{l.Acknowledge(1, a), false},
		{l.Acknowledge(1, a), true},
		{l.See(1, b), true},
		{l.Acknowledge(3, b, b), false},
		{l.CheckOnce(), true},
	} {
		if errors.Is(test.err, ErrBroken) != test.broken {
			t.Errorf("%s: %v", fmt.Sprint("step ", i), test.err)
		}
	}
}
