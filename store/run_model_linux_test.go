package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

// order gives each stream its steps in the order in which they took effect.
func (r *run) order(t *testing.T, steps [][]*runStep) {
	t.Helper()
	before, closed := map[string]uint64{}, map[string]bool{}
	for name, steps := range r.streams {
		before[name] = steps[len(steps)-1].last
		closed[name] = slices.ContainsFunc(steps, func(s *runStep) bool { return s.batch.Close })
	}
	for _, plan := range steps {
		last := maps.Clone(before)
		for _, s := range plan {
			switch {
			case s.done == 0:
				t.Fatalf("a step on stream %s did not end", s.stream)
			case s.refused, closed[s.stream] && !s.delete: // what is closed is only closed again
				continue
			case s.delete:
				s.last = last[s.stream]
			}
			last[s.stream] = s.last
			r.streams[s.stream] = append(r.streams[s.stream], s)
		}
	}
	for name, steps := range r.streams {
		slices.SortStableFunc(steps, func(a, b *runStep) int { return int(a.last) - int(b.last) })
		last := uint64(0)
		for _, s := range steps {
			if last += uint64(len(s.batch.Events)); s.last != last {
				t.Fatalf("stream %s: a step ended with %d; want %d", name, s.last, last)
			}
		}
	}
}

// now is the clock before a call.
func (r *run) now(call int) (now time.Time) {
	for _, c := range r.clocks {
		if c.call < call {
			now = c.now
		}
	}
	return now
}

// A want is what a log has to hold.
type want struct {
	Bounds
	events []Event
}

// wantAfter is what a stream's log holds after so many of its steps.
func wantAfter(steps []*runStep, now time.Time) (w want) {
	deleted := 0
	for _, s := range steps {
		for _, e := range s.batch.Events {
			w.Last++
			w.Bytes += uint64(e.size())
			w.events = append(w.events, Event{Seq: w.Last, Time: s.time, Type: e.Type, Data: e.Data})
		}
		w.Closed = w.Closed || s.batch.Close
		if s.delete {
			deleted = int(w.Last)
		}
	}
	for len(w.events) > 0 && (int(w.events[0].Seq) <= deleted ||
		uint64(len(w.events)) > recordedRetention.Events ||
		w.Bytes > recordedRetention.Bytes ||
		!w.events[0].Time.After(now.Add(-recordedRetention.Age))) {
		w.Bytes -= uint64(w.events[0].size())
		w.events = w.events[1:]
	}
	w.First = w.Last + 1 - uint64(len(w.events))
	return w
}

// checkLog says in what a log differs from what it has to hold when there is no call
// from the given one on: the steps that were acknowledged, and maybe some of those
// that had begun. It returns how many they are.
func (r *run) checkLog(db *DB, name string, call int) (got Bounds, n int, err error) {
	steps := r.streams[name]
	least, most := 0, 0
	for i, s := range steps {
		if s.done < call {
			least = i + 1
		}
		if s.begun < call && most == i {
			most = i + 1
		}
	}
	for n = least; n <= most; n++ {
		var diff error
		if got, diff = r.checkLogAfter(db, name, wantAfter(steps[:n], r.now(call)), n); diff == nil {
			return got, n, nil
		}
		err = errors.Join(err, fmt.Errorf("after %d of %d to %d steps: %w", n, least, most, diff))
	}
	return got, 0, err
}

func (r *run) checkLogAfter(db *DB, name string, w want, n int) (Bounds, error) {
	var diff error
	next := w.events
	got, err := db.Log(name).Read(context.Background(), 0, func(e Event) bool {
		switch {
		case len(next) == 0:
			diff = fmt.Errorf("event %d is too many", e.Seq)
		case e.Seq != next[0].Seq || !e.Time.Equal(next[0].Time) || e.Type != next[0].Type || !bytes.Equal(e.Data, next[0].Data):
			diff = fmt.Errorf("event %d at %v is %q %.40q; want event %d at %v, %q %.40q",
				e.Seq, e.Time, e.Type, e.Data, next[0].Seq, next[0].Time, next[0].Type, next[0].Data)
		default:
			next = next[1:]
		}
		return diff == nil
	})
	switch {
	case err != nil || diff != nil:
		return got, errors.Join(err, diff)
	case len(next) > 0:
		return got, fmt.Errorf("event %d is missing", next[0].Seq)
	case got.First != w.First || got.Last != w.Last || got.Bytes != w.Bytes || got.Closed != w.Closed:
		return got, fmt.Errorf("%+v; want %+v", got, w.Bounds)
	}
	return got, checkUsed(db.Log(name), r.streams[name], n, got.First)
}

// checkUsed says which idempotency key is not known as it must be after n of the steps.
func checkUsed(l *Log, steps []*runStep, n int, first uint64) error {
	for i, s := range steps {
		if s.batch.Key == "" {
			continue
		}
		want := Receipt{}
		known := i < n && (len(s.batch.Events) == 0 || s.last >= first)
		if known {
			want = Receipt{Last: s.last, Count: len(s.batch.Events), Replayed: true}
		}
		got, used, err := l.Used(context.Background(), s.batch.Key, s.batch.Digest)
		if got != want || used != known || err != nil {
			return fmt.Errorf("%s of the step that ended with %d: %+v, %t, %w; want %+v", s.batch.Key, s.last, got, used, err, want)
		}
		if _, _, err := l.Used(context.Background(), s.batch.Key, [32]byte{1}); errors.Is(err, ErrKeyReused) != known {
			return fmt.Errorf("%s for something else: %w", s.batch.Key, err)
		}
	}
	return nil
}
