package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"lastevent/store"
	"lastevent/stream"
)

var ctx = context.Background()

// A model is what a log should hold: all that was ever appended, and from where on
// it is retained. Times are the log's to set; the model takes the first that it sees.
type model struct {
	retention store.Retention
	all       []store.Event
	evicted   int
	bytes     uint64 // of the retained events
	closed    bool
	keys      map[string]keyUse
}

// A keyUse is what an idempotency key was used for last.
type keyUse struct {
	digest  [32]byte
	receipt store.Receipt
}

func (m *model) last() uint64            { return uint64(len(m.all)) }
func (m *model) first() uint64           { return uint64(m.evicted) + 1 }
func (m *model) retained() []store.Event { return m.all[m.evicted:] }

// after returns the retained events after the sequence.
func (m *model) after(seq uint64) []store.Event {
	return m.all[min(max(seq, uint64(m.evicted)), m.last()):]
}

// add appends one event and evicts.
func (m *model) add(e store.Event) {
	e.Seq, e.Time = m.last()+1, time.Time{}
	e.Data = bytes.Clone(e.Data)
	m.all = append(m.all, e)
	m.bytes += size(e)
	for m.retention.Events > 0 && uint64(len(m.retained())) > m.retention.Events ||
		m.retention.Bytes > 0 && m.bytes > m.retention.Bytes {
		m.bytes -= size(m.retained()[0])
		m.evicted++
	}
}

// append appends the events to the log as one batch and expects the log to do as
// the model does.
func (m *model) append(t rapid.TB, l stream.Log, events ...store.Event) {
	t.Helper()
	m.appendBatch(t, l, store.Batch{Events: events})
}

func (m *model) appendBatch(t rapid.TB, l stream.Log, b store.Batch) {
	t.Helper()
	got, err := l.Append(ctx, b)
	want, wantErr := m.expect(b)
	if got != want || !errors.Is(err, wantErr) {
		t.Fatalf("append of %d events, close %t, key %q: %+v, %v; want %+v, %v",
			len(b.Events), b.Close, b.Key, got, err, want, wantErr)
	}
}

// expect appends the batch to the model alone.
func (m *model) expect(b store.Batch) (store.Receipt, error) {
	if r, used, err := m.used(b.Key, b.Digest); used || err != nil {
		return r, err
	}
	if m.closed && len(b.Events) > 0 {
		return store.Receipt{}, store.ErrClosed
	}
	for _, e := range b.Events {
		if m.retention.Bytes > 0 && size(e) > m.retention.Bytes {
			return store.Receipt{}, store.ErrTooLarge
		}
	}
	for _, e := range b.Events {
		m.add(e)
	}
	r := store.Receipt{Last: m.last(), Count: len(b.Events)}
	if b.Key != "" && (r.Count > 0 || b.Close && !m.closed) {
		if m.keys == nil {
			m.keys = map[string]keyUse{}
		}
		m.keys[b.Key] = keyUse{b.Digest, r}
	}
	m.closed = m.closed || b.Close
	return r, nil
}

// used returns what the log's Used should return. A key is in use while the last
// event of its append is retained, and for good if it had none.
func (m *model) used(key string, digest [32]byte) (r store.Receipt, used bool, err error) {
	u, ok := m.keys[key]
	if !ok || u.receipt.Count > 0 && u.receipt.Last < m.first() {
		return store.Receipt{}, false, nil
	}
	if u.digest != digest {
		return store.Receipt{}, false, store.ErrKeyReused
	}
	u.receipt.Replayed = true
	return u.receipt, true, nil
}

func (m *model) delete(t rapid.TB, l stream.Log) {
	t.Helper()
	if err := l.Delete(ctx); err != nil {
		t.Fatalf("delete: %v", err)
	}
	m.evicted, m.bytes = len(m.all), 0
}

// checkKeys expects the log to know each key as the model does.
func (m *model) checkKeys(t rapid.TB, l stream.Log) {
	t.Helper()
	for key := range m.keys {
		for _, digest := range [][32]byte{{}, {1}, {2}} {
			want, wantUsed, wantErr := m.used(key, digest)
			got, used, err := l.Used(ctx, key, digest)
			if got != want || used != wantUsed && err == nil || !errors.Is(err, wantErr) {
				t.Fatalf("used key %q with digest %d: %+v, %t, %v; want %+v, %t, %v",
					key, digest[0], got, used, err, want, wantUsed, wantErr)
			}
		}
	}
	if r, used, err := l.Used(ctx, "never used", [32]byte{}); r != (store.Receipt{}) || used || err != nil {
		t.Fatalf("a key never used: %+v, %t, %v", r, used, err)
	}
}

// check expects the log to hold what the model holds, wherever it is read.
func (m *model) check(t rapid.TB, l stream.Log) {
	t.Helper()
	m.checkBounds(t, l)
	m.checkKeys(t, l)
	m.checkRead(t, l, 0, math.MaxInt)
	step := 1 + m.last()/100
	for seq := uint64(0); seq <= m.last()+2; seq += step {
		m.checkRead(t, l, seq, 3)
	}
	for _, seq := range []uint64{m.first() - 1, m.first(), m.last() - 1, m.last(), m.last() + 1, 1 << 63, math.MaxUint64} {
		m.checkRead(t, l, seq, math.MaxInt)
	}
}

func (m *model) checkBounds(t rapid.TB, l stream.Log) store.Bounds {
	t.Helper()
	b, err := l.Bounds(ctx)
	if err != nil {
		t.Fatalf("bounds: %v", err)
	}
	if b.First != m.first() || b.Last != m.last() || b.Bytes != m.bytes || b.Closed != m.closed || !b.Expires.IsZero() || b.Log == "" {
		t.Fatalf("bounds %+v; want first %d, last %d, %d bytes, closed %t", b, m.first(), m.last(), m.bytes, m.closed)
	}
	return b
}

// checkRead reads up to limit events after the sequence.
func (m *model) checkRead(t rapid.TB, l stream.Log, after uint64, limit int) {
	t.Helper()
	want := m.after(after)
	got, b := read(t, l, after, limit)
	if now := m.checkBounds(t, l); b != now {
		t.Fatalf("read after %d returns bounds %+v; want %+v", after, b, now)
	}
	want = want[:min(limit, len(want))]
	if len(got) != len(want) {
		t.Fatalf("read after %d, at most %d: %d events; want %d", after, limit, len(got), len(want))
	}
	for i, e := range got {
		m.checkEvent(t, e)
		if e.Seq != want[i].Seq {
			t.Fatalf("read after %d: event %d at place %d; want event %d", after, e.Seq, i, want[i].Seq)
		}
	}
}

// checkEvent expects the event to be what was appended under its sequence.
func (m *model) checkEvent(t rapid.TB, e store.Event) {
	t.Helper()
	if e.Seq == 0 || e.Seq > m.last() {
		t.Fatalf("%s was never appended", describe(e))
	}
	want := &m.all[e.Seq-1]
	if e.Type != want.Type || !bytes.Equal(e.Data, want.Data) {
		t.Fatalf("got %s; want %s", describe(e), describe(*want))
	}
	if want.Time.IsZero() {
		want.Time = e.Time
	}
	if !e.Time.Equal(want.Time) {
		t.Fatalf("event %d has time %v; before it was %v", e.Seq, e.Time, want.Time)
	}
	if e.Seq > 1 && e.Time.Before(m.all[e.Seq-2].Time) {
		t.Fatalf("event %d has time %v; its predecessor %v", e.Seq, e.Time, m.all[e.Seq-2].Time)
	}
	if d := time.Since(e.Time); d.Abs() > time.Hour {
		t.Fatalf("event %d has time %v, which is %v ago", e.Seq, e.Time, d)
	}
}

// read returns what the log yields before it ends, or before limit events, and the
// bounds of that moment.
func read(t rapid.TB, l stream.Log, after uint64, limit int) (events []store.Event, b store.Bounds) {
	t.Helper()
	b, err := l.Read(ctx, after, func(e store.Event) bool {
		if len(events) == limit {
			t.Fatalf("read after %d goes on after yield has returned false", after)
		}
		events = append(events, clone(e))
		return len(events) < limit
	})
	if err != nil {
		t.Fatalf("read after %d: %v", after, err)
	}
	return events, b
}

func clone(e store.Event) store.Event {
	e.Data = bytes.Clone(e.Data)
	return e
}

func size(e store.Event) uint64 { return uint64(len(e.Type) + len(e.Data)) }

func describe(e store.Event) string {
	return fmt.Sprintf("event %d of type %.40q with %d bytes %.40q", e.Seq, e.Type, len(e.Data), e.Data)
}

// event returns an event of a size that holds its name.
func event(name string, size int) store.Event {
	data := bytes.Repeat([]byte(name+" "), size/(len(name)+1)+1)
	return store.Event{Type: "message", Data: data[:size]}
}

// runModel compares random appends, deletes, reads and reopens with models. There is one
// engine for each retention; the streams are new each time.
func runModel(t *testing.T, open func(t *testing.T, o Options) Engine) {
	retentions := []store.Retention{{}, {Events: 7}, {Bytes: 5000}, {Events: 20, Bytes: 50_000}}
	engines := make([]Engine, len(retentions))
	for i, r := range retentions {
		engines[i] = open(t, Options{r})
	}
	sizes := rapid.OneOf(
		rapid.IntRange(0, 40),
		rapid.IntRange(0, 40),
		rapid.IntRange(600, 2100), // about a block, or half of one
		rapid.IntRange(3900, 9000),
		rapid.IntRange(60_000, 70_000),
	)
	counts := rapid.OneOf(rapid.IntRange(0, 3), rapid.IntRange(0, 3), rapid.IntRange(4, 40))
	keys := rapid.SampledFrom([]string{"", "", "", "a", "b", "c"})
	digests := rapid.SampledFrom([][32]byte{{1}, {1}, {1}, {2}})
	oneIn := func(r *rapid.T, n int) bool { return rapid.IntRange(1, n).Draw(r, "one in") == 1 }
	types := rapid.SampledFrom([]string{"", "message", "time", "two\nlines", event("type", 255).Type})
	run := 0
	rapid.Check(t, func(r *rapid.T) {
		run++
		which := rapid.IntRange(0, len(retentions)-1).Draw(r, "engine")
		var names []string
		models := map[string]*model{}
		for _, name := range []string{"", "/b", "b"} {
			name = fmt.Sprint("run", run, name)
			names = append(names, name)
			models[name] = &model{retention: retentions[which]}
		}
		name := rapid.SampledFrom(names)
		r.Repeat(map[string]func(*rapid.T){
			"": func(r *rapid.T) {
				for name, m := range models {
					m.checkBounds(r, engines[which].Log(name))
					m.checkKeys(r, engines[which].Log(name))
				}
			},
			"append": func(r *rapid.T) {
				n := name.Draw(r, "stream")
				m := models[n]
				events := make([]store.Event, counts.Draw(r, "count"))
				for i := range events {
					events[i] = event(fmt.Sprint(n, ":", m.last(), "+", i), sizes.Draw(r, "size"))
					events[i].Type = types.Draw(r, "type")
					if d := events[i].Data; len(d) > 0 && oneIn(r, 4) {
						d[len(d)/2] = '\r'
					}
				}
				m.appendBatch(r, engines[which].Log(n), store.Batch{
					Events: events,
					Close:  oneIn(r, 50),
					Key:    keys.Draw(r, "key"),
					Digest: digests.Draw(r, "digest"),
				})
			},
			"read": func(r *rapid.T) {
				n := name.Draw(r, "stream")
				m := models[n]
				after := rapid.Uint64Range(0, m.last()+2).Draw(r, "after")
				limit := rapid.IntRange(1, 50).Draw(r, "limit")
				m.checkRead(r, engines[which].Log(n), after, limit)
			},
			"delete": func(r *rapid.T) {
				if oneIn(r, 3) {
					n := name.Draw(r, "stream")
					models[n].delete(r, engines[which].Log(n))
				}
			},
			"reopen": func(r *rapid.T) {
				if oneIn(r, 4) {
					engines[which] = engines[which].Reopen(t)
				}
			},
		})
		for name, m := range models {
			m.checkRead(r, engines[which].Log(name), 0, math.MaxInt)
		}
	})
}
