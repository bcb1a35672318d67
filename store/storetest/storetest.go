// Package storetest is the suite that every engine of streams passes.
package storetest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lastevent/store"
	"lastevent/stream"
)

// Options are what a scenario asks of an engine.
type Options struct{ store.Retention }

// An Engine holds logs that nobody but the scenario appends to.
type Engine interface {
	Log(name string) stream.Log
	// Reopen closes the engine and opens another one on the same data.
	Reopen(t *testing.T) Engine
}

// Run runs the suite against the engines that open returns, each of them empty.
// An engine is closed by a clean-up of the t that it was opened with.
//
// What a scenario asserts it asserts again after the engine was reopened.
func Run(t *testing.T, open func(t *testing.T, o Options) Engine) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			e := open(t, Options{s.retention})
			check := s.run(t, e, &model{retention: s.retention})
			check(t, e)
			check(t, e.Reopen(t))
		})
	}
	t.Run("Model", func(t *testing.T) { runModel(t, open) })
}

// A scenario appends to an empty engine, and to the model of its log, and returns
// what then holds for good.
type scenario struct {
	name      string
	retention store.Retention
	run       func(*testing.T, Engine, *model) (check func(*testing.T, Engine))
}

var scenarios = []scenario{
	{"Numbering", store.Retention{}, numbering},
	{"NeverWritten", store.Retention{}, neverWritten},
	{"Concurrent", store.Retention{}, concurrent},
	{"ReadAfter", store.Retention{}, readAfter},
	{"ReadAfterEvicted", store.Retention{Events: 50}, readAfter},
	{"RetainEvents", store.Retention{Events: 5}, retain},
	{"RetainOne", store.Retention{Events: 1}, retain},
	{"RetainBytes", store.Retention{Bytes: 5000}, retain},
	{"RetainEventsAndBytes", store.Retention{Events: 4, Bytes: 5000}, retain},
	{"TooLarge", store.Retention{Bytes: 100}, tooLarge},
	{"Before", store.Retention{Events: 30}, before},
	{"Follow", store.Retention{Events: 10}, follow},
	{"FollowConcurrent", store.Retention{}, followConcurrent},
	{"FollowAfterReadable", store.Retention{Events: 10}, followAfterReadable},
	{"Unfollow", store.Retention{}, unfollow},
	{"Names", store.Retention{Events: 4}, names},
	{"Payloads", store.Retention{}, payloads},
	{"Delete", store.Retention{Events: 10}, deleteEvents},
	{"Close", store.Retention{Events: 10}, closeLog},
	{"Keys", store.Retention{Events: 5}, useKeys},
	{"KeyAtOnce", store.Retention{}, useKeyAtOnce},
	{"KeepsNoReference", store.Retention{}, keepsNoReference},
	{"Cancelled", store.Retention{}, cancelled},
}

// holds returns the check that the log of that name holds what the model does.
func holds(name string, m *model) func(*testing.T, Engine) {
	return func(t *testing.T, e Engine) {
		t.Helper()
		m.check(t, e.Log(name))
	}
}

func numbering(t *testing.T, e Engine, m *model) func(*testing.T, Engine) {
	l := e.Log("s")
	for _, n := range []int{1, 3, 0, 1, 100} {
		var events []store.Event
		for i := range n {
			events = append(events, event(fmt.Sprint(n, "/", i), 20))
		}
		m.append(t, l, events...)
		m.check(t, l)
	}
	if m.last() != 105 {
		t.Fatalf("last %d", m.last())
	}
	return func(t *testing.T, e Engine) {
		m.check(t, e.Log("s"))
		m.append(t, e.Log("s"), event("one more", 20))
		m.check(t, e.Log("s"))
	}
}

func neverWritten(t *testing.T, e Engine, m *model) func(*testing.T, Engine) {
	return func(t *testing.T, e Engine) {
		l := e.Log("never/written")
		m.check(t, l)
		for _, at := range []time.Time{{}, time.Now(), time.Now().AddDate(1000, 0, 0)} {
			if after, err := l.Before(ctx, at); after != 0 || err != nil {
				t.Fatalf("before %v: %d, %v; want 0", at, after, err)
			}
		}
		f := startFollower(t, l)
		f.stop()
		if b := f.began(); b.First != 1 || b.Last != 0 {
			t.Fatalf("follow begins with %+v", b)
		}
		m.append(t, l)
		m.check(t, l)
	}
}

// concurrent appends batches from many goroutines, while others read on from where
// they are.
func concurrent(t *testing.T, e Engine, m *model) func(*testing.T, Engine) {
	const producers, batches = 8, 25
	type batch struct {
		events  []store.Event
		receipt store.Receipt
	}
	var mu sync.Mutex
	var appended []batch
	total := uint64(0)
	for i := range producers * batches {
		total += uint64(i%7 + 1)
	}
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			for i := range batches {
				var b batch
				for j := range (p*batches+i)%7 + 1 {
					b.events = append(b.events, event(fmt.Sprint("producer ", p, " batch ", i, " event ", j), 10+i*10))
				}
				var err error
				b.receipt, err = e.Log("s").Append(ctx, store.Batch{Events: b.events})
				if err != nil {
					t.Errorf("append: %v", err)
				}
				mu.Lock()
				appended = append(appended, b)
				mu.Unlock()
			}
		})
	}
	var readers [2][]store.Event
	for i := range readers {
		wg.Go(func() {
			for last := uint64(0); last < total && !t.Failed(); runtime.Gosched() {
				b, err := e.Log("s").Read(ctx, last, func(e store.Event) bool {
					if e.Seq != last+1 {
						t.Errorf("event %d comes after event %d", e.Seq, last)
						return false
					}
					last++
					readers[i] = append(readers[i], clone(e))
					return last%5 != 0
				})
				if err != nil || b.Last < last {
					t.Errorf("read: %+v, %v, with events up to %d", b, err, last)
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	slices.SortFunc(appended, func(a, b batch) int { return cmp.Compare(a.receipt.Last, b.receipt.Last) })
	for _, b := range appended {
		for _, e := range b.events {
			m.add(e)
		}
		if b.receipt.Last != m.last() || b.receipt.Count != len(b.events) {
			t.Fatalf("receipt %+v for the %d events up to %d", b.receipt, len(b.events), m.last())
		}
	}
	for _, events := range readers {
		for _, e := range events {
			m.checkEvent(t, e)
		}
	}
	return holds("s", m)
}

func readAfter(t *testing.T, e Engine, m *model) func(*testing.T, Engine) {
	for i := range 20 {
		var events []store.Event
		for j := range 5 {
			events = append(events, event(fmt.Sprint(i, "/", j), 100+i*j*30))
		}
		m.append(t, e.Log("s"), events...)
	}
	return func(t *testing.T, e Engine) {
		for after := range m.last() + 3 {
			for _, limit := range []int{1, 2, 7, math.MaxInt} {
				m.checkRead(t, e.Log("s"), after, limit)
			}
		}
		m.check(t, e.Log("s"))
	}
}

// retain appends batches of all sizes and checks each time that exactly what the
// retention allows is left.
func retain(t *testing.T, e Engine, m *model) func(*testing.T, Engine) {
	more := func(t *testing.T, e Engine) {
		for i, n := range []int{1, 1, 2, 3, 4, 5, 6, 1, 17, 0, 1, 60} {
			var events []store.Event
			for j := range n {
				events = append(events, event(fmt.Sprint(i, "/", j), (i*37+j*411)%1300))
			}
			m.append(t, e.Log("s"), events...)
			m.check(t, e.Log("s"))
		}
		for _, size := range []int{0, 4993, 0, 1, 1950, 1949, 3000, 2000} {
			m.append(t, e.Log("s"), event("event", size))
			m.check(t, e.Log("s"))
		}
	}
	more(t, e)
	return func(t *testing.T, e Engine) {
		m.check(t, e.Log("s"))
		more(t, e)
	}
}

func tooLarge(t *testing.T, e Engine, m *model) func(*testing.T, Engine) {
	never := &model{retention: m.retention}
	return func(t *testing.T, e Engine) {
		fits, large := event("fits", 93), event("too large", 94)
		if size(fits) != 100 {
			t.Fatal("type and data of the event that just fits are", size(fits))
		}
		for _, events := range [][]store.Event{{fits}, {large}, {fits, large}, {large, fits}, {fits}} {
			m.append(t, e.Log("s"), events...)
			m.check(t, e.Log("s"))
		}
		longType := store.Event{Type: strings.Repeat("t", 101)}
		m.append(t, e.Log("s"), longType)
		never.append(t, e.Log("never"), longType)
		never.check(t, e.Log("never"))
		m.check(t, e.Log("s"))
	}
}

func before(t *testing.T, e Engine, m *model) func(*testing.T, Engine) {
	for i := range 40 {
		m.append(t, e.Log("s"), event(fmt.Sprint("a", i), 200), event(fmt.Sprint("b", i), 200))
	}
	return func(t *testing.T, e Engine) {
		l := e.Log("s")
		m.check(t, l)
		events, _ := read(t, l, 0, math.MaxInt)
		times := []time.Time{{}, time.Unix(0, 0), time.Unix(1<<40, 0)}
		for _, e := range events {
			times = append(times, e.Time.Add(-1), e.Time, e.Time.Add(1))
		}
		for _, at := range times {
			want := m.first() - 1
			for _, e := range events {
				if e.Time.Before(at) {
					want = e.Seq
				}
			}
			if after, err := l.Before(ctx, at); after != want || err != nil {
				t.Fatalf("before %v: %d, %v; want %d", at, after, err, want)
			}
		}
	}
}

// A follower keeps all that it is told.
type follower struct {
	t       *testing.T
	stop    func()
	busy    atomic.Bool
	stopped atomic.Bool
	changed chan struct{} // holds a token after a call

	mu    sync.Mutex // guards calls
	calls []call
}

type call struct {
	bounds store.Bounds
	events []store.Event
}

func startFollower(t *testing.T, l stream.Log) *follower {
	t.Helper()
	f := &follower{t: t, changed: make(chan struct{}, 1)}
	stop, err := l.Follow(ctx, f.tell)
	if err != nil {
		t.Fatalf("follow: %v", err)
	}
	f.stop = func() {
		stop()
		f.stopped.Store(true)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.calls) == 0 || len(f.calls[0].events) > 0 {
		t.Fatalf("follow returns after the calls %+v; want one with bounds alone", f.calls)
	}
	return f
}

func (f *follower) tell(b store.Bounds, events []store.Event) {
	if f.stopped.Load() {
		f.t.Errorf("told of %+v after stop", b)
	}
	if !f.busy.CompareAndSwap(false, true) {
		f.t.Errorf("told of two things at a time")
	}
	defer f.busy.Store(false)
	c := call{bounds: b}
	for _, e := range events {
		c.events = append(c.events, clone(e))
	}
	f.mu.Lock()
	f.calls = append(f.calls, c)
	f.mu.Unlock()
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// began returns the bounds that the follower began with.
func (f *follower) began() store.Bounds {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[0].bounds
}

// wait waits until the follower has heard of the sequence.
func (f *follower) wait(last uint64) {
	f.t.Helper()
	f.waitFor(func(b store.Bounds) bool { return b.Last >= last })
}

// waitFor waits until the follower has heard of such bounds.
func (f *follower) waitFor(enough func(store.Bounds) bool) {
	f.t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		f.mu.Lock()
		heard := f.calls[len(f.calls)-1].bounds
		f.mu.Unlock()
		if enough(heard) {
			return
		}
		select {
		case <-f.changed:
		case <-timeout:
			f.t.Fatalf("told of nothing after %+v", heard)
		}
	}
}

// check expects the follower to have heard of each event, each call to go on where
// the one before it ended, and of the model's bounds in the end.
func (f *follower) check(t *testing.T, m *model, now store.Bounds) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	last := f.calls[0].bounds.Last
	for _, c := range f.calls {
		b := c.bounds
		if b.Last < last {
			t.Fatalf("told of last %d after %d", b.Last, last)
		}
		next := b.Last + 1 - uint64(len(c.events))
		if next > last+1 {
			t.Fatalf("told of events %d to %d after %d", next, b.Last, last)
		}
		for _, e := range c.events {
			m.checkEvent(t, e)
			if e.Seq != next {
				t.Fatalf("told of event %d where %d should be, up to %d", e.Seq, next, b.Last)
			}
			next++
		}
		last = b.Last
	}
	if b := f.calls[len(f.calls)-1].bounds; b != now {
		t.Fatalf("last told of %+v; want %+v", b, now)
	}
}

func follow(t *testing.T, e Engine, m *model) func(*testing.T, Engine) {
	m.append(t, e.Log("s"), event("before anybody follows", 50))
	return func(t *testing.T, e Engine) {
		l := e.Log("s")
		other := startFollower(t, e.Log("s/other"))
		first := startFollower(t, l)
		var second *follower
		for _, n := range []int{1, 4, 10, 25, 1} { // the log retains 10
			var events []store.Event
			for i := range n {
				events = append(events, event(fmt.Sprint(m.last(), "+", i), 300))
			}
			m.append(t, l, events...)
			first.wait(m.last())
			if second == nil {
				second = startFollower(t, l)
			}
		}
		second.wait(m.last())
		b := m.checkBounds(t, l)
		first.check(t, m, b)
		second.check(t, m, b)
		second.stop()
		m.append(t, l, event("not for the second", 50))
		first.wait(m.last())
		second.check(t, m, b)
		first.check(t, m, m.checkBounds(t, l))
		first.stop()
		m.append(t, l, event("for nobody", 50))
		other.stop()
		for _, c := range other.calls {
			if c.bounds.Last != 0 || len(c.events) > 0 {
				t.Fatalf("told of %+v of another stream", c)
			}
		}
		m.check(t, l)
	}
}

// followConcurrent starts followers while others append: between the bounds that
// they begin with and the first events they hear of, nothing is missing.
func followConcurrent(t *testing.T, e Engine, m *model) func(*testing.T, Engine) {
	return func(t *testing.T, e Engine) {
		l := e.Log("s")
		const producers, each = 4, 50
		var wg sync.WaitGroup
		for range producers {
			wg.Go(func() {
				for range each {
					if _, err := l.Append(ctx, store.Batch{Events: []store.Event{event("event", 20), event("another", 20)}}); err != nil {
						t.Errorf("append: %v", err)
					}
				}
			})
		}
		var followers []*follower
		for range 20 {
			f := startFollower(t, l)
			defer f.stop()
			followers = append(followers, f)
			runtime.Gosched()
		}
		wg.Wait()
		for range producers * each {
			m.add(event("event", 20))
			m.add(event("another", 20))
		}
		m.check(t, l)
		for _, f := range followers {
			f.wait(m.last())
			f.check(t, m, m.checkBounds(t, l))
		}
	}
}

// followAfterReadable reads, while a follower is being told of an event, that event.
func followAfterReadable(t *testing.T, e Engine, m *model) func(*testing.T, Engine) {
	return func(t *testing.T, e Engine) {
		l := e.Log("s")
		following := false
		done := make(chan struct{}, 1)
		stop, err := l.Follow(ctx, func(told store.Bounds, _ []store.Event) {
			if !following {
				following = true
				return
			}
			read := make(chan error, 1)
			go func() {
				last := uint64(0)
				b, err := l.Read(ctx, told.Last-1, func(e store.Event) bool {
					last = e.Seq
					return true
				})
				if err == nil && (last < told.Last || b.Last < told.Last) {
					err = fmt.Errorf("told of %+v, but reading ends at %d with %+v", told, last, b)
				}
				read <- err
			}()
			select {
			case err := <-read:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(10 * time.Second):
				t.Error("a read waits for a follower")
			}
			if told.Last == m.last()+30 {
				done <- struct{}{}
			}
		})
		if err != nil {
			t.Fatalf("follow: %v", err)
		}
		defer stop()
		for i := range 30 {
			if _, err := l.Append(ctx, store.Batch{Events: []store.Event{event(fmt.Sprint(i), 700)}}); err != nil {
				t.Fatalf("append: %v", err)
			}
		}
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("not told of the last event")
		}
		stop()
		for i := range 30 {
			m.add(event(fmt.Sprint(i), 700))
		}
		m.check(t, l)
	}
}

// unfollow stops followers while others append.
func unfollow(t *testing.T, e Engine, m *model) func(*testing.T, Engine) {
	return func(t *testing.T, e Engine) {
		l := e.Log("s")
		var stopping atomic.Bool
		var wg sync.WaitGroup
		appended := make(chan int, 1)
		wg.Go(func() {
			n := 0
			for ; !stopping.Load(); n++ {
				if _, err := l.Append(ctx, store.Batch{Events: []store.Event{event("event", 20)}}); err != nil {
					t.Errorf("append: %v", err)
					break
				}
			}
			appended <- n
		})
		for range 20 {
			f := startFollower(t, l)
			f.wait(f.began().Last + 2)
			f.stop()
		}
		stopping.Store(true)
		wg.Wait()
		for range <-appended {
			m.add(event("event", 20))
		}
		m.check(t, l)
	}
}

// names writes side by side to streams whose names look alike.
func names(t *testing.T, e Engine, _ *model) func(*testing.T, Engine) {
	models := map[string]*model{}
	for _, name := range []string{
		"a", "a/b", "a/b/c", "a.b", "a-b", "a_b", "a~b", "ab", "A", "b", "0", "~", "a/a", "aa",
		strings.Repeat("n", 254), strings.Repeat("n", 255), strings.Repeat("n/", 127) + "n",
	} {
		models[name] = &model{retention: store.Retention{Events: 4}}
	}
	return func(t *testing.T, e Engine) {
		logs := map[string]bool{}
		for round := range 4 {
			for name, m := range models {
				if len(name)%4 != round { // each has another number of events
					m.append(t, e.Log(name), event(name+" alone", 300))
				}
				m.append(t, e.Log(name), event(name+" a", 300), event(name+" b", 300))
			}
			for name, m := range models {
				m.check(t, e.Log(name))
				logs[m.checkBounds(t, e.Log(name)).Log] = true
			}
		}
		if len(logs) != 1 {
			t.Fatalf("the streams' numberings have the names %v; want one", logs)
		}
	}
}

func payloads(t *testing.T, e Engine, m *model) func(*testing.T, Engine) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	l := e.Log("s")
	data := [][]byte{
		nil,
		{},
		{0},
		every,
		bytes.Repeat(every, 1<<12), // 1 MiB
		[]byte("data: a\r\n\r\nid: 7\n\n"),
		[]byte("ünï\xff\xfe"),
	}
	for _, n := range []int{127, 128, 1800, 1900, 1920, 1930, 1940, 1950, 2000, 4096, 1<<14 - 1, 1 << 14, 1 << 16} {
		data = append(data, bytes.Repeat([]byte{'x'}, n))
	}
	var all []store.Event
	for i, d := range data {
		typ := []string{"", "message", "time", "a type", "ünï", strings.Repeat("t", 255)}[i%6]
		e := store.Event{Type: typ, Data: d}
		all = append(all, e, store.Event{Type: typ})
		m.append(t, l, e)
	}
	m.append(t, l, all...)
	return holds("s", m)
}

// keepsNoReference overwrites data after it was appended.
func keepsNoReference(t *testing.T, e Engine, m *model) func(*testing.T, Engine) {
	data := []byte("data")
	events := []store.Event{{Type: "message", Data: data}}
	f := startFollower(t, e.Log("s"))
	defer f.stop()
	for range 3 {
		m.append(t, e.Log("s"), events...)
		f.wait(m.last())
		copy(data, "oops")
		events[0].Type = "oops"
		m.check(t, e.Log("s"))
	}
	f.check(t, m, m.checkBounds(t, e.Log("s")))
	return holds("s", m)
}

// cancelled appends for somebody who is gone.
func cancelled(t *testing.T, e Engine, m *model) func(*testing.T, Engine) {
	m.append(t, e.Log("s"), event("event", 20))
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if r, err := e.Log("s").Append(gone, store.Batch{Events: []store.Event{event("gone", 20)}}); !errors.Is(err, context.Canceled) {
		t.Fatalf("append for somebody who is gone: %+v, %v; want context.Canceled", r, err)
	}
	m.append(t, e.Log("s"), event("event", 20))
	return holds("s", m)
}

func deleteEvents(t *testing.T, e Engine, m *model) func(*testing.T, Engine) {
	never := &model{}
	return func(t *testing.T, e Engine) {
		l := e.Log("s")
		f := startFollower(t, l)
		defer f.stop()
		for range 2 {
			m.append(t, l, event("a", 20), event("b", 3000), event("c", 20))
			m.check(t, l)
			m.delete(t, l)
			m.check(t, l)
			f.waitFor(func(b store.Bounds) bool { return b.First > m.last() })
			m.delete(t, l)
			m.check(t, l)
		}
		f.check(t, m, m.checkBounds(t, l))
		never.delete(t, e.Log("never"))
		never.check(t, e.Log("never"))
	}
}

func closeLog(t *testing.T, e Engine, m *model) func(*testing.T, Engine) {
	l := e.Log("s")
	f := startFollower(t, l)
	defer f.stop()
	m.append(t, l, event("a", 20))
	m.appendBatch(t, l, store.Batch{Events: []store.Event{event("b", 20), event("last", 20)}, Close: true})
	f.waitFor(func(b store.Bounds) bool { return b.Closed })
	f.check(t, m, m.checkBounds(t, l))
	empty, keyed := &model{}, &model{}
	empty.appendBatch(t, e.Log("empty"), store.Batch{Close: true})
	keyed.appendBatch(t, e.Log("keyed"), store.Batch{Events: []store.Event{event("a", 20)}, Key: "key"})
	return func(t *testing.T, e Engine) {
		keyed.appendBatch(t, e.Log("keyed"), store.Batch{Close: true, Key: "key"}) // an append that was made
		keyed.check(t, e.Log("keyed"))
		keyed.appendBatch(t, e.Log("keyed"), store.Batch{Close: true, Key: "another key"})
		keyed.check(t, e.Log("keyed"))
		l := e.Log("s")
		m.check(t, l)
		m.append(t, l, event("late", 20))
		m.appendBatch(t, l, store.Batch{Events: []store.Event{event("late", 20)}, Close: true})
		m.appendBatch(t, l, store.Batch{Close: true})
		m.append(t, l)
		m.check(t, l)
		empty.append(t, e.Log("empty"), event("late", 20))
		empty.check(t, e.Log("empty"))
		m.delete(t, l)
		m.append(t, l, event("late", 20))
		m.check(t, l)
	}
}

// useKeys appends with idempotency keys: as often as it likes while the last event
// is retained, and again after that.
func useKeys(t *testing.T, e Engine, m *model) func(*testing.T, Engine) {
	another := &model{retention: m.retention}
	keyed := func(key string, digest byte, n int) store.Batch {
		b := store.Batch{Key: key, Digest: [32]byte{digest}}
		for i := range n {
			b.Events = append(b.Events, event(fmt.Sprint(key, i), 20))
		}
		return b
	}
	return func(t *testing.T, e Engine) {
		l := e.Log("s")
		for _, b := range []store.Batch{
			keyed("a", 1, 2), keyed("a", 1, 2), keyed("a", 2, 1), keyed("", 1, 3), keyed("a", 1, 2), keyed("b", 1, 0),
			keyed("", 1, 1), keyed("a", 1, 2), keyed("b", 2, 7), keyed("b", 2, 7), keyed("a", 2, 1), keyed(strings.Repeat("k", 255), 1, 1),
		} {
			m.appendBatch(t, l, b)
			m.check(t, l)
		}
		another.appendBatch(t, e.Log("another"), keyed("a", 2, 1))
		another.check(t, e.Log("another"))
		m.delete(t, l)
		m.check(t, l)
		m.appendBatch(t, l, keyed("a", 1, 1))
		m.appendBatch(t, l, keyed("a", 1, 1))
		m.check(t, l)
	}
}

// useKeyAtOnce has many append with one key at once.
func useKeyAtOnce(t *testing.T, e Engine, m *model) func(*testing.T, Engine) {
	b := store.Batch{Events: []store.Event{event("once", 20)}, Key: "key"}
	var wg sync.WaitGroup
	var appended atomic.Int64
	for range 50 {
		wg.Go(func() {
			r, err := e.Log("s").Append(ctx, store.Batch{Events: slices.Clone(b.Events), Key: b.Key})
			if err != nil || r.Last != 1 || r.Count != 1 {
				t.Errorf("append: %+v, %v", r, err)
			}
			if !r.Replayed {
				appended.Add(1)
			}
		})
	}
	wg.Wait()
	if n := appended.Load(); n != 1 {
		t.Errorf("%d of them appended", n)
	}
	if _, err := m.expect(b); err != nil {
		t.Fatal(err)
	}
	return holds("s", m)
}
