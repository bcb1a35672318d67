package stream_test

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lastevent/store"
	"lastevent/stream"
	"lastevent/stream/sse"
)

func TestBegin(t *testing.T) {
	full := newMemory(store.Retention{Events: 100})
	add(t, full, events(250, 10)...)
	never := newMemory(store.Retention{})
	emptied := newMemory(store.Retention{})
	add(t, emptied, events(10, 10)...)
	emptied.plain.first = 11
	gap := func(reason, id string, first, last int, missed string) string {
		return fmt.Sprintf("event: gap\ndata: {\"reason\":%q,\"lastEventId\":%s,\"first\":%d,\"last\":%d,\"missed\":%s}\n\n", reason, id, first, last, missed)
	}
	reset := func(s stream.Start) stream.Start { s.Log = "another"; return s }
	same := func(s stream.Start) stream.Start { s.Log = "memory"; return s }
	for _, test := range []struct {
		name  string
		log   *memory
		start stream.Start
		gap   string
		after int
	}{
		{"live", full, stream.Start{}, "", 250},
		{"live, never written", never, stream.Start{}, "", 0},
		{"live, empty", emptied, stream.Start{}, "", 10},
		{"earliest", full, stream.Start{Earliest: true}, "", 150},
		{"earliest, never written", never, stream.Start{Earliest: true}, "", 0},
		{"earliest, empty", emptied, stream.Start{Earliest: true}, "", 10},
		{"newest", full, stream.Start{Newest: 1}, "", 249},
		{"newest, all", full, stream.Start{Newest: 100}, "", 150},
		{"newest, more than there are", full, stream.Start{Newest: 101}, "", 150},
		{"newest, more than there ever were", full, stream.Start{Newest: 1<<64 - 1}, "", 150},
		{"newest, never written", never, stream.Start{Newest: 5}, "", 0},
		{"newest, empty", emptied, stream.Start{Newest: 5}, "", 10},
		{"since long ago", full, stream.Start{Since: time.Unix(1, 0)}, "", 150},
		{"since some day", full, stream.Start{Since: time.Now().Add(time.Hour)}, "", 250},

		{"resume at last", full, lastHad("250"), "", 250},
		{"resume before last", full, lastHad("249"), "", 249},
		{"resume before first", full, lastHad("150"), "", 150},
		{"resume with zeros", full, lastHad("00000000000000000200"), "", 200},
		{"resume of the same log", full, same(lastHad("200")), "", 200},
		{"resume at 0, never written", never, lastHad("0"), "", 0},
		{"resume at last, empty", emptied, lastHad("10"), "", 10},

		{"evicted", full, lastHad("20"), gap("evicted", `"20"`, 151, 250, "130"), 150},
		{"evicted, one", full, lastHad("149"), gap("evicted", `"149"`, 151, 250, "1"), 150},
		{"evicted, all", full, lastHad("0"), gap("evicted", `"0"`, 151, 250, "150"), 150},
		{"evicted, empty", emptied, lastHad("9"), gap("evicted", `"9"`, 11, 10, "1"), 10},
		{"ahead", full, lastHad("251"), gap("ahead", `"251"`, 151, 250, "null"), 150},
		{"ahead, the greatest", full, lastHad("18446744073709551615"), gap("ahead", `"18446744073709551615"`, 151, 250, "null"), 150},
		{"ahead, never written", never, lastHad("1"), gap("ahead", `"1"`, 1, 0, "null"), 0},
		{"reset", full, reset(lastHad("200")), gap("reset", `"200"`, 151, 250, "null"), 150},
		{"reset at last", full, reset(lastHad("250")), gap("reset", `"250"`, 151, 250, "null"), 150},
		{"reset, ahead", full, reset(lastHad("251")), gap("reset", `"251"`, 151, 250, "null"), 150},
		{"another log without an ID", full, reset(stream.Start{}), "", 250},
		{"unknown", full, lastHad("x"), gap("unknown", `"x"`, 151, 250, "null"), 150},
		{"unknown: empty", full, lastHad(""), gap("unknown", `""`, 151, 250, "null"), 150},
		{"unknown: too great", full, lastHad("18446744073709551616"), gap("unknown", `"18446744073709551616"`, 151, 250, "null"), 150},
		{"unknown: too long", full, lastHad("000000000000000000200"), gap("unknown", `"000000000000000000200"`, 151, 250, "null"), 150},
		{"unknown: escaped", full, lastHad("\"\n\r\x00\\"), gap("unknown", `"\"\n\r\u0000\\"`, 151, 250, "null"), 150},
		{"unknown: 128 bytes", full, lastHad(strings.Repeat("x", 128)), gap("unknown", `"`+strings.Repeat("x", 128)+`"`, 151, 250, "null"), 150},
		{"unknown: 129 bytes", full, lastHad(strings.Repeat("x", 129)), gap("unknown", `"`+strings.Repeat("x", 128)+`"`, 151, 250, "null"), 150},
	} {
		t.Run(test.name, func(t *testing.T) {
			set := test.log.set()
			c := subscribe(t, set, "x", test.start, 0)
			defer c.Close()
			want := test.gap + fmt.Sprintf(position, test.after, test.log.plain.first, test.log.plain.last())
			begin := string(c.Begin())
			first, ok := strings.CutPrefix(begin, want)
			if !ok {
				t.Errorf("(-want +got):\n%s", cmp.Diff(want, begin))
			}
			b := c.Bounds()
			if b.First != test.log.plain.first || b.Last != test.log.plain.last() || b.Log != "memory" {
				t.Errorf("bounds %+v", b)
			}
			rest, _ := collect(t, c)
			isRun(t, append(parse(t, []byte(first)), rest...), uint64(test.after)+1, b.Last)
		})
	}
}

// What a response begins with is of one moment, though the log moves on meanwhile.
func TestBeginIsOfOneMoment(t *testing.T) {
	log := newMemory(store.Retention{})
	add(t, log, events(3, 10)...)
	set := newSet(func(string) stream.Log { return &busy{log} })
	c := subscribe(t, set, "x", stream.Start{Since: time.Now().Add(time.Hour)}, 0)
	defer c.Close()
	m, err := sse.NewReader(bytes.NewReader(c.Begin()), 1000).Next()
	if err != nil {
		t.Fatal(err)
	}
	if id, _ := strconv.ParseUint(m.ID, 10, 64); id > c.Bounds().Last {
		t.Errorf("the position's ID is %s, and its last %d: %s", m.ID, c.Bounds().Last, m.Data)
	}
}

// A busy log gets an event just before each search for a time.
type busy struct{ *memory }

func (b *busy) Before(ctx context.Context, t time.Time) (uint64, error) {
	if _, err := b.Append(ctx, store.Batch{Events: events(1, 10)}); err != nil {
		return 0, err
	}
	return b.memory.Before(ctx, t)
}

func TestParseID(t *testing.T) {
	for s, want := range map[string]uint64{
		"0": 0, "1": 1, "42": 42, "007": 7, "18446744073709551615": 1<<64 - 1, "00000000000000000000": 0,
	} {
		if got, ok := stream.ParseID(s); !ok || got != want {
			t.Errorf("%q: %d, %v", s, got, ok)
		}
	}
	for _, s := range []string{"", " ", " 1", "1 ", "+1", "-1", "1_0", "1.0", "0x1", "1e3", "18446744073709551616", "99999999999999999999", "000000000000000000000", "١", "1\x00"} {
		if got, ok := stream.ParseID(s); ok {
			t.Errorf("%q is taken as %d", s, got)
		}
	}
}

// A response that is cut right after its beginning has no events in it.
func TestBeginCut(t *testing.T) {
	m := newMemory(store.Retention{Events: 3})
	m.plain.append(time.Now(), make([]store.Event, 5)...)
	for want, start := range map[string]stream.Start{
		"id: 2\n": {Earliest: true},
		"id: 4\n": {Newest: 1},
		"id: 5\n": {},
		"gap\n":   {LastEventID: new(string)},
	} {
		c, err := m.set().Subscribe(t.Context(), "x", stream.Subscription{Start: start})
		if err != nil {
			t.Fatal(err)
		}
		p := string(c.BeginCut())
		if !strings.Contains(p, want) || strings.Count(p, "\nid: ") != 1 || !strings.Contains(p, "event: position\n") {
			t.Errorf("%+v: %q, want %q", start, p, want)
		}
		c.Close()
	}
	both := []string{"x", "y"}
	c, err := m.set().SubscribeAll(t.Context(), both, stream.Subscription{Start: stream.Start{Earliest: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if p := string(c.BeginCut()); strings.Count(p, "\nid: ") != 1 || !strings.Contains(p, "id: 2.2\n") {
		t.Errorf("of several: %q", p)
	}
}
