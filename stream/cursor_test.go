package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"lastevent/store"
	"lastevent/stream"
	"lastevent/stream/sse"
)

// next is what the cursor gives next; empty where it has to wait.
func next(t testing.TB, c *stream.Cursor) []byte {
	t.Helper()
	p, _, err := c.Next()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// collect reads until there is nothing more for now, or for good.
func collect(t testing.TB, c *stream.Cursor) (got []sse.Message, ended bool) {
	t.Helper()
	for {
		p, _, err := c.Next()
		if err == io.EOF {
			return got, true
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(p) == 0 {
			return got, false
		}
		got = append(got, parse(t, p)...)
	}
}

func parse(t testing.TB, p []byte) (got []sse.Message) {
	t.Helper()
	r := sse.NewReader(bytes.NewReader(p), 1<<20)
	for m, err := r.Next(); err != io.EOF; m, err = r.Next() {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, m)
	}
	return got
}

// isRun checks that the messages are events from first to last, each once.
func isRun(t testing.TB, got []sse.Message, first, last uint64) {
	t.Helper()
	for i, m := range got {
		if m.ID != strconv.FormatUint(first+uint64(i), 10) || m.Type != "message" {
			t.Fatalf("message %d is %s of type %s; want event %d", i, m.ID, m.Type, first+uint64(i))
		}
	}
	if uint64(len(got)) != last+1-first {
		t.Fatalf("%d events from %d on, want %d", len(got), first, last+1-first)
	}
}

func TestLiveEventsAreShared(t *testing.T) {
	log := newMemory(store.Retention{})
	set := log.set()
	a := subscribe(t, set, "x", stream.Start{}, 0)
	defer a.Close()
	b := subscribe(t, set, "x", stream.Start{}, 0)
	defer b.Close()
	for n := range 20 {
		add(t, log, events(n+1, 10_000)...)
		for {
			p, q := next(t, a), next(t, b)
			if !bytes.Equal(p, q) {
				t.Fatal("two clients get different bytes")
			}
			if len(p) == 0 {
				break
			}
			if &p[0] != &q[0] {
				t.Fatal("two clients get the same bytes from different memory")
			}
		}
	}
	if log.readCount() != 0 {
		t.Error("live events were read from the log")
	}
}

// What a cursor gave stays as it is while events are added to the same block.
func TestWhatIsGivenIsNotOverwritten(t *testing.T) {
	log := newMemory(store.Retention{Events: 10})
	set := log.set()
	var given, was [][]byte
	for i := range 300 {
		c := subscribe(t, set, "x", stream.Start{}, 0)
		defer c.Close()
		add(t, log, store.Event{Type: "message", Data: []byte(strings.Repeat(strconv.Itoa(i%10), 1000))})
		p := next(t, c)
		given, was = append(given, p), append(was, bytes.Clone(p))
	}
	for i := range given {
		if len(given[i]) == 0 || !bytes.Equal(given[i], was[i]) {
			t.Fatalf("what client %d was given has changed", i)
		}
	}
}

func TestFromTheLogIntoTheTail(t *testing.T) {
	const n, size = 120, 20_000 // 2.3 MiB, of which the tail holds somewhat more than 1 MiB
	log := newMemory(store.Retention{})
	set := log.set()
	live := subscribe(t, set, "x", stream.Start{}, 0) // keeps the tail
	defer live.Close()
	add(t, log, events(n/2, size)...)
	for range n / 2 {
		add(t, log, events(1, size)...)
	}
	for after := uint64(0); after <= n; after += 6 {
		c := subscribe(t, set, "x", lastHad(strconv.FormatUint(after, 10)), 0)
		got, _ := collect(t, c)
		isRun(t, got, after+1, n)
		c.Close()
	}

	behind := subscribe(t, set, "x", stream.Start{Earliest: true}, 0)
	defer behind.Close()
	got, _ := collect(t, behind)
	isRun(t, got, 1, n)
	reads := log.readCount()
	if reads == 0 {
		t.Fatal("the log was not read: the tail holds all that there ever was")
	}
	add(t, log, events(3, size)...)
	got, _ = collect(t, behind)
	isRun(t, got, n+1, n+3)
	if log.readCount() != reads {
		t.Error("a client that has caught up reads the log")
	}
}

func TestLimit(t *testing.T) {
	const n, size = 80, 20_000 // 4 events a block
	log := newMemory(store.Retention{})
	set := log.set()
	live := subscribe(t, set, "x", stream.Start{}, 0)
	defer live.Close()
	add(t, log, events(n, size)...)
	for _, from := range []uint64{0, n - 20} { // in the log, in the tail
		for limit := uint64(1); limit <= 20; limit++ {
			c := subscribe(t, set, "x", lastHad(strconv.FormatUint(from, 10)), limit)
			got, ended := collect(t, c)
			isRun(t, got, from+1, from+limit)
			if !ended {
				t.Errorf("limit %d after %d: goes on", limit, from)
			}
			if _, _, err := c.Next(); err != io.EOF {
				t.Errorf("limit %d after %d: after the end %v, want io.EOF", limit, from, err)
			}
			c.Close()
		}
	}

	all := subscribe(t, set, "x", stream.Start{Earliest: true}, n)
	defer all.Close()
	got, ended := collect(t, all)
	isRun(t, got, 1, n)
	if !ended {
		t.Error("limit of all events: goes on")
	}

	more := subscribe(t, set, "x", stream.Start{Earliest: true}, n+1)
	defer more.Close()
	got, ended = collect(t, more)
	isRun(t, got, 1, n)
	if ended {
		t.Error("limit of one more: ended")
	}
	add(t, log, events(2, 10)...)
	got, ended = collect(t, more)
	isRun(t, got, n+1, n+1)
	if !ended {
		t.Error("limit reached live: goes on")
	}
}

// A gap is no event: it does not count.
func TestLimitOverAGap(t *testing.T) {
	log := newMemory(store.Retention{Events: 5})
	c := subscribe(t, log.set(), "x", stream.Start{}, 3)
	defer c.Close()
	add(t, log, events(10, 10)...)
	got, ended := collect(t, c)
	if len(got) != 5 || got[0].Type != "gap" || got[1].Type != "position" {
		t.Fatalf("got %+v", got)
	}
	isRun(t, got[2:], 6, 8)
	if !ended {
		t.Error("goes on")
	}
}

// However far clients fall behind, they keep no more of the tail than itself, and
// what each was given last.
func TestStalledClientsKeepLittle(t *testing.T) {
	const clients, n, size = 20, 50, 20_000
	log := newMemory(store.Retention{Events: 1})
	set := log.set()
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	one := events(1, size)
	before := heap()
	var held [][]byte
	for range clients {
		c := subscribe(t, set, "x", stream.Start{}, 0)
		defer c.Close()
		for range n {
			add(t, log, one...)
		}
		held = append(held, next(t, c)) // and never again
	}
	const most = 10 << 20 // 20 MB were appended
	if kept := int64(heap()) - int64(before); kept > most {
		t.Errorf("%d stalled clients keep %d bytes", clients, kept)
	}
	runtime.KeepAlive(held)
}

func TestTheLastToLeaveStopsFollowing(t *testing.T) {
	log := newMemory(store.Retention{})
	set := log.set()
	for range 3 {
		a := subscribe(t, set, "x", stream.Start{}, 0)
		b := subscribe(t, set, "x", stream.Start{}, 0)
		if n := log.following(); n != 1 {
			t.Fatalf("two clients follow the log %d times", n)
		}
		a.Close()
		if n := log.following(); n != 1 {
			t.Fatalf("with one client left, the log is followed %d times", n)
		}
		add(t, log, events(1, 10)...)
		if got, _ := collect(t, b); len(got) != 1 {
			t.Fatalf("the client that is left gets %d events, want 1", len(got))
		}
		b.Close()
		if n := log.following(); n != 0 {
			t.Fatalf("without a client, the log is followed %d times", n)
		}
	}
}

func TestSubscribeFails(t *testing.T) {
	broken := errors.New("broken")
	for _, method := range []string{"Follow", "Bounds", "Before"} {
		t.Run(method, func(t *testing.T) {
			log := newMemory(store.Retention{})
			set := log.set()
			log.fails[method] = broken
			start := stream.Start{Since: time.Now()}
			if _, err := set.Subscribe(context.Background(), "x", stream.Subscription{Start: start}); !errors.Is(err, broken) {
				t.Errorf("got %v", err)
			}
			if n := log.following(); n != 0 {
				t.Errorf("the log is followed %d times", n)
			}
			delete(log.fails, method)
			c := subscribe(t, set, "x", start, 0)
			add(t, log, events(1, 10)...)
			got, _ := collect(t, c)
			isRun(t, got, 1, 1)
			c.Close()
			if n := log.following(); n != 0 {
				t.Errorf("the log is followed %d times", n)
			}
		})
	}
}

func TestReadFails(t *testing.T) {
	broken := errors.New("broken")
	log := newMemory(store.Retention{})
	add(t, log, events(3, 10)...)
	c := subscribe(t, log.set(), "x", stream.Start{Earliest: true}, 0)
	defer c.Close()
	log.fails["Read"] = broken
	if p, _, err := c.Next(); !errors.Is(err, broken) || len(p) > 0 {
		t.Fatalf("got %q, %v", p, err)
	}
	delete(log.fails, "Read")
	got, _ := collect(t, c)
	isRun(t, got, 1, 3) // the failure cost none
}

// anew is a log that is lost, and begun anew, between the start of a response and its
// first read.
type anew struct{ *memory }

func (a anew) Read(ctx context.Context, after uint64, yield func(store.Event) bool) (store.Bounds, error) {
	b, err := a.memory.Read(ctx, after, yield)
	b.Log = "another"
	return b, err
}

// Events of another log have the same IDs, and are not given as if they came next.
func TestReadsOneLog(t *testing.T) {
	m := newMemory(store.Retention{})
	add(t, m, events(10, 10)...)
	set := newSet(func(string) stream.Log { return anew{m} })
	for _, once := range []bool{false, true} {
		c, err := set.Subscribe(context.Background(), "s", stream.Subscription{Start: lastHad("5"), Once: once})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if p, _, err := c.Next(); len(p) > 0 || err == nil || err == io.EOF {
			t.Errorf("once %t: %q, %v", once, p, err)
		}
	}
}

func TestWaiting(t *testing.T) {
	log := newMemory(store.Retention{})
	set := log.set()
	a := subscribe(t, set, "x", stream.Start{}, 0)
	defer a.Close()
	b := subscribe(t, set, "x", lastHad("0"), 0)
	defer b.Close()
	isClosed := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	for range 3 {
		for _, c := range []*stream.Cursor{a, b} {
			p, changed, err := c.Next()
			if len(p) > 0 || err != nil || isClosed(changed) {
				t.Fatalf("with nothing new: %q, %v", p, err)
			}
			defer func() {
				if !isClosed(changed) {
					t.Error("a waiting client was not told")
				}
			}()
		}
		add(t, log, events(1, 10)...)
		next(t, a)
		next(t, b)
	}
}

const position = "event: position\nid: %d\ndata: {\"log\":\"memory\",\"first\":%d,\"last\":%d}\n\n"

func TestGapsWhileConnected(t *testing.T) {
	const evicted = "event: gap\ndata: {\"reason\":\"evicted\",\"lastEventId\":\"%d\",\"first\":%d,\"last\":%d,\"missed\":%d}\n\n" + position
	const corrupt = "event: gap\ndata: {\"reason\":\"corrupt\",\"lastEventId\":\"%d\",\"first\":%d,\"last\":%d,\"missed\":%d}\n\n" + position
	const event = "id: %d\ndata: 0\n\n"
	one := events(1, 1)
	for _, test := range []struct {
		name string
		do   func(t *testing.T, log *memory)
		want string
	}{
		{"evicted, of the tail", func(t *testing.T, log *memory) {
			for range 5 {
				add(t, log, one...)
			}
			log.plain.first = 5
			log.tell(0)
		}, fmt.Sprintf(evicted+event, 0, 5, 5, 4, 4, 5, 5, 5)},
		{"evicted, all", func(t *testing.T, log *memory) {
			add(t, log, one...)
			log.plain.first = 2
			log.tell(0)
		}, fmt.Sprintf(evicted, 0, 2, 1, 1, 1, 2, 1)},
		{"evicted, of the log, before it is told", func(t *testing.T, log *memory) {
			log.tells = 0
			add(t, log, one...)
			add(t, log, one...)
			log.plain.first = 2
		}, fmt.Sprintf(evicted+event, 0, 2, 2, 1, 1, 2, 2, 2)},
		{"evicted, all of the log, before it is told", func(t *testing.T, log *memory) {
			log.tells = 0
			add(t, log, one...)
			log.plain.first = 2
		}, fmt.Sprintf(evicted, 0, 2, 1, 1, 1, 2, 1)},
		{"corrupt, between", func(t *testing.T, log *memory) {
			log.tells = 0
			add(t, log, events(5, 1)...)
			log.corrupt.first, log.corrupt.last = 3, 4
		}, fmt.Sprintf(event+event+corrupt+event, 1, 2, 2, 5, 5, 2, 4, 1, 5, 5)},
		{"corrupt, at first", func(t *testing.T, log *memory) {
			log.tells = 0
			add(t, log, events(2, 1)...)
			log.corrupt.first, log.corrupt.last = 1, 1
		}, fmt.Sprintf(corrupt+event, 0, 2, 2, 1, 1, 1, 2, 2)},
		{"corrupt, at last", func(t *testing.T, log *memory) {
			log.tells = 0
			add(t, log, events(2, 1)...)
			log.corrupt.first, log.corrupt.last = 2, 2
		}, fmt.Sprintf(event+corrupt, 1, 1, 3, 2, 1, 2, 1, 2)},
		{"evicted, then corrupt", func(t *testing.T, log *memory) {
			log.tells = 0
			add(t, log, events(5, 1)...)
			log.plain.first = 3
			log.corrupt.first, log.corrupt.last = 3, 4
		}, fmt.Sprintf(evicted+corrupt+event, 0, 3, 5, 2, 2, 3, 5, 2, 5, 5, 2, 4, 3, 5, 5)},
	} {
		t.Run(test.name, func(t *testing.T) {
			log := newMemory(store.Retention{})
			c := subscribe(t, log.set(), "x", stream.Start{}, 0)
			defer c.Close()
			test.do(t, log)
			var got []byte
			for p := next(t, c); len(p) > 0; p = next(t, c) {
				if bytes.Contains(p, []byte("event: gap\n")) && !bytes.Contains(p, []byte("event: position\n")) {
					t.Error("a gap without a position in the same write")
				}
				got = append(got, p...)
			}
			if diff := cmp.Diff(test.want, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			log.tells = -1
			last := log.plain.last()
			add(t, log, one...)
			if p := string(next(t, c)); p != fmt.Sprintf(event, last+1) {
				t.Errorf("goes on with %q", p)
			}
		})
	}
}

// An event that expires is no longer served, though the tail holds it and the
// store has not yet removed it.
func TestExpiredInTheTail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const age = 10 * time.Second
		db, err := store.Open(filepath.Join(t.TempDir(), "x.db"), store.Options{Retention: store.Retention{Age: age}})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		set := newSet(func(name string) stream.Log { return db.Log(name) })
		subscribe := func() *stream.Cursor { return subscribe(t, set, "x", stream.Start{}, 0) }
		a, b, c, d := subscribe(), subscribe(), subscribe(), subscribe()
		for _, c := range []*stream.Cursor{a, b, c, d} {
			defer c.Close()
		}
		add(t, db.Log("x"), events(1, 10)...)
		time.Sleep(5 * time.Second)
		add(t, db.Log("x"), events(1, 10)...)

		time.Sleep(5*time.Second - 1)
		got, _ := collect(t, a)
		isRun(t, got, 1, 2)

		time.Sleep(time.Nanosecond) // the first has expired
		got, _ = collect(t, b)
		if len(got) != 3 || got[0].Data != `{"reason":"evicted","lastEventId":"0","first":2,"last":2,"missed":1}` || got[1].ID != "1" {
			t.Fatalf("got %+v", got)
		}
		isRun(t, got[2:], 2, 2)

		time.Sleep(5 * time.Second) // the second, too
		for _, cursor := range []*stream.Cursor{c, d} {
			got, _ = collect(t, cursor)
			if len(got) != 2 || got[0].Data != `{"reason":"evicted","lastEventId":"0","first":3,"last":2,"missed":2}` || got[1].ID != "2" {
				t.Fatalf("got %+v", got)
			}
			time.Sleep(time.Minute) // removed
		}

		add(t, db.Log("x"), events(1, 10)...)
		for _, c := range []*stream.Cursor{a, b, c, d} {
			got, _ := collect(t, c)
			isRun(t, got, 3, 3)
		}
	})
}

// Clients come, read, drop and resume while others append.
func TestAtTheSameTime(t *testing.T) {
	const producers, batches, clients = 2, 60, 4
	db, err := store.Open(filepath.Join(t.TempDir(), "x.db"), store.Options{Retention: store.Retention{Events: 150}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	set := newSet(func(name string) stream.Log { return db.Log(name) })
	appended := make(chan struct{})
	var appending, reading sync.WaitGroup
	for n := range producers {
		appending.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(n)))
			for range batches {
				if _, err := db.Log("x").Append(context.Background(), store.Batch{Events: events(1+r.IntN(40), r.IntN(3000))}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for n := range clients {
		reading.Go(func() {
			r := rand.New(rand.NewPCG(2, uint64(n)))
			if err := readAndResume(set, r, appended); err != nil {
				t.Error(err)
			}
		})
	}
	appending.Wait()
	close(appended)
	reading.Wait()
}

// readAndResume reads until all is appended, dropping the connection now and then.
// It fails where the run of IDs is not contiguous and no gap says so.
func readAndResume(set *stream.Set, r *rand.Rand, appended <-chan struct{}) error {
	after, finished := uint64(0), false
	for {
		id := strconv.FormatUint(after, 10)
		c, err := set.Subscribe(context.Background(), "x", stream.Subscription{Start: lastHad(id)})
		if err != nil {
			return err
		}
		p, last, drops := c.Begin(), c.Bounds().Last, r.IntN(20)
		for ; drops >= 0; drops-- {
			if after, err = follow(after, p); err != nil {
				break
			}
			var changed <-chan struct{}
			if p, changed, err = c.Next(); err != nil {
				break
			}
			if len(p) == 0 {
				select {
				case <-appended:
					finished = true
				case <-changed:
				}
			}
		}
		if err == nil {
			after, err = follow(after, p)
		}
		c.Close()
		if err != nil {
			return err
		}
		if finished && after >= last {
			return nil
		}
	}
}

// follow returns the ID that a client has after it got p.
func follow(after uint64, p []byte) (uint64, error) {
	r := sse.NewReader(bytes.NewReader(p), 1<<20)
	for {
		m, err := r.Next()
		if err == io.EOF {
			return after, nil
		}
		if err != nil {
			return after, err
		}
		switch m.Type {
		case stream.TypeGap:
			var lost, first, last, missed uint64
			if _, err := fmt.Sscanf(m.Data, `{"reason":"evicted","lastEventId":"%d","first":%d,"last":%d,"missed":%d}`, &lost, &first, &last, &missed); err != nil {
				return after, fmt.Errorf("%w: %s", err, m.Data)
			}
			if lost != after || missed == 0 || first != after+missed+1 {
				return after, fmt.Errorf("after %d: %s", after, m.Data)
			}
			after = first - 1
		case stream.TypePosition:
			if m.ID != strconv.FormatUint(after, 10) {
				return after, fmt.Errorf("after %d: position %s", after, m.ID)
			}
		default:
			if after++; m.ID != strconv.FormatUint(after, 10) {
				return after, fmt.Errorf("event %s, want %d", m.ID, after)
			}
		}
	}
}

func TestNextAllocatesNothing(t *testing.T) {
	const n = 50
	log := newMemory(store.Retention{})
	set := log.set()
	c := subscribe(t, set, "x", stream.Start{}, 0)
	defer c.Close()
	waits := func() { next(t, c) }
	if got := testing.AllocsPerRun(n, waits); got > 0 {
		t.Errorf("with nothing new, Next allocates %v times", got)
	}
	cursors := make([]*stream.Cursor, n+1)
	for i := range cursors {
		cursors[i] = subscribe(t, set, "x", stream.Start{}, 0)
		defer cursors[i].Close()
	}
	add(t, log, events(1, 100)...)
	reads := func() {
		if p := next(t, cursors[0]); len(p) == 0 {
			t.Error("there is nothing")
		}
		cursors = cursors[1:]
	}
	if got := testing.AllocsPerRun(n, reads); got > 0 {
		t.Errorf("from the tail, Next allocates %v times", got)
	}
}

func TestReserved(t *testing.T) {
	for typ, want := range map[string]bool{
		"position": true, "gap": true, "end": true,
		"message": false, "time": false, "Gap": false, "gaps": false, "": false,
	} {
		if got := stream.Reserved(typ); got != want {
			t.Errorf("%q: %v", typ, got)
		}
	}
}
