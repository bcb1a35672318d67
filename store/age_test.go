package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const minute = time.Minute

// The sweeps are at 30 s, 60 s, … after Open; what these tests look at in between is
// not yet removed from the file.

func TestExpiresToTheInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := OpenForTest(t, tempFile(t), Options{Retention: Retention{Age: minute}})
		l := db.Log("s")
		time.Sleep(3 * time.Second)
		start := time.Now()
		mustAppend(t, l, "a", "b")
		time.Sleep(10 * time.Second)
		mustAppend(t, l, "c")

		time.Sleep(50*time.Second - time.Nanosecond)
		wantRead(t, l, 0, "1 a", "2 b", "3 c")
		if b := mustBounds(t, l); b.First != 1 || b.Last != 3 || !b.Expires.Equal(start.Add(minute)) {
			t.Errorf("just before the first event expires: %+v", b)
		}
		time.Sleep(time.Nanosecond)
		wantRead(t, l, 0, "3 c")
		wantRead(t, l, 1, "3 c")
		if b := mustBounds(t, l); b.First != 3 || b.Last != 3 || !b.Expires.Equal(start.Add(70*time.Second)) {
			t.Errorf("when it expires: %+v", b)
		}
		if after, err := l.Before(t.Context(), start); after != 2 || err != nil {
			t.Errorf("before the first event: %d, %v; want 2", after, err)
		}
		time.Sleep(10 * time.Second)
		wantRead(t, l, 0)
		if b := mustBounds(t, l); b.First != 4 || b.Last != 3 || !b.Expires.IsZero() {
			t.Errorf("when the last one expires: %+v", b)
		}
		mustAppend(t, l, "d")
		wantRead(t, l, 0, "4 d")
	})
}

func TestExpiredEventsCountForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := OpenForTest(t, tempFile(t), Options{Retention: Retention{Age: minute}})
		l := db.Log("s")
		time.Sleep(3 * time.Second)
		mustAppend(t, l, "0123456789")
		time.Sleep(10 * time.Second)
		mustAppend(t, l, "01234")
		time.Sleep(50 * time.Second)
		if b := mustBounds(t, l); b.First != 2 || b.Bytes != uint64(len("message"+"01234")) {
			t.Errorf("after the first event expired: %+v; want the bytes of the second", b)
		}
		time.Sleep(10 * time.Second)
		if b := mustBounds(t, l); b.First != 3 || b.Bytes != 0 {
			t.Errorf("after both events expired: %+v; want no bytes", b)
		}
	})
}

// wantRead expects to read the events, each as "sequence data".
func wantRead(t testing.TB, l *Log, after uint64, want ...string) {
	t.Helper()
	if got := mustRead(t, l, after); !slices.Equal(got, want) {
		t.Errorf("read after %d: %q; want %q", after, got, want)
	}
}

func TestIdleStreamsAreSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const streams = 300 // more than a sweep removes in one transaction
		db := OpenForTest(t, tempFile(t), Options{Retention: Retention{Age: minute}})
		time.Sleep(7 * time.Second)
		var producers sync.WaitGroup
		for i := range streams {
			producers.Go(func() { mustAppend(t, db.Log(fmt.Sprint("s", i)), "old") })
		}
		producers.Wait()
		time.Sleep(50 * time.Second)
		mustAppend(t, db.Log("s0"), "new")
		told := make(chan Bounds, 100)
		stop, err := db.Log("s0").Follow(t.Context(), func(b Bounds, _ []Event) { told <- b })
		if err != nil {
			t.Fatal(err)
		}
		defer stop()

		for range 12 {
			time.Sleep(15 * time.Second)
			synctest.Wait()
			for name, events := range storedEvents(t, db.path) {
				for _, e := range events {
					if age := time.Since(e.Time); age > 2*minute {
						t.Errorf("event %d of stream %s is in the file %v after it expired", e.Seq, name, age-minute)
					}
				}
			}
		}
		if n := len(storedEvents(t, db.path)); n > 0 {
			t.Errorf("%d streams have events in the file", n)
		}
		var firsts []uint64
		for len(told) > 0 {
			firsts = append(firsts, (<-told).First)
		}
		if !slices.Equal(firsts, []uint64{1, 2, 3}) {
			t.Errorf("told of the first sequences %d; want 1, 2, 3", firsts)
		}
	})
}

// TestIdleStreamsAreSweptUnderLoad keeps the committer busy: whenever it looks at
// the clock, which takes it a second, the next append comes to wait for it.
func TestIdleStreamsAreSweptUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var db *DB
		var loaded atomic.Bool
		var appends sync.WaitGroup
		now := func() time.Time {
			if loaded.Load() {
				appends.Go(func() { mustAppend(t, db.Log("busy"), "event") })
				time.Sleep(time.Second)
			}
			return time.Now()
		}
		db = OpenForTest(t, tempFile(t), Options{Retention: Retention{Age: minute}, Now: now})
		mustAppend(t, db.Log("idle"), "old")
		loaded.Store(true)
		appends.Go(func() { mustAppend(t, db.Log("busy"), "event") })
		time.Sleep(2*minute + time.Second/2)
		if len(storedEvents(t, db.path)["idle"]) > 0 {
			t.Error("an event is in the file a minute after it expired")
		}
		loaded.Store(false)
		appends.Wait()
	})
}

func TestNothingIsReusedAfterAllExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := Options{Retention: Retention{Age: minute}}
		path := tempFile(t)
		for round := range uint64(4) {
			db := OpenForTest(t, path, o)
			l := db.Log("s")
			if b := mustBounds(t, l); b.First != 3*round+1 || b.Last != 3*round {
				t.Fatalf("after %d rounds: %+v", round, b)
			}
			if r := mustAppend(t, l, "a", "b", "c"); r.Last != 3*round+3 {
				t.Fatalf("round %d: appended up to %d", round, r.Last)
			}
			if round%2 == 0 { // the sweep removes them, or else the next open
				time.Sleep(2 * minute)
			}
			CloseForTest(t, db)
			time.Sleep(minute)
		}
	})
}

// TestClockJumps moves the clock back and forth by up to an hour and compares with
// a model: an event has its predecessor's time at least, and is there until the
// clock shows that time and the age.
func TestClockJumps(t *testing.T) {
	const age, jump = 3 * time.Hour, time.Hour
	start := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	elapsed, offset := time.Duration(0), time.Duration(0)
	clock := func() time.Time { return start.Add(elapsed + offset) }
	o := Options{Retention: Retention{Age: age}, Now: clock}
	path := tempFile(t)
	db := OpenForTest(t, path, o)

	var all []Event
	var appended []time.Duration // elapsed at the append
	evicted := 0                 // for good
	expired := func() int {
		n, _ := slices.BinarySearchFunc(all, clock().Add(-age), func(e Event, limit time.Time) int {
			if e.Time.After(limit) {
				return 1
			}
			return -1
		})
		return max(n, evicted)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for step := range 400 {
		elapsed += time.Duration(random.Int64N(int64(10 * minute)))
		if random.IntN(4) == 0 {
			offset = time.Duration(random.Int64N(int64(2*jump))) - jump
		}
		l := db.Log("s")
		switch n := random.IntN(20); {
		case n == 0:
			CloseForTest(t, db)
			db = OpenForTest(t, path, o)
			l = db.Log("s")
			evicted = expired()
		case n < 10:
			at := clock()
			if len(all) > 0 && at.Before(all[len(all)-1].Time) {
				at = all[len(all)-1].Time
			}
			for i := range 1 + random.IntN(3) {
				all = append(all, Event{Seq: uint64(len(all) + 1), Time: at, Data: fmt.Append(nil, step, "/", i)})
				appended = append(appended, elapsed)
			}
			var b Batch
			for i := range appended {
				if appended[i] == elapsed {
					b.Events = append(b.Events, Event{Data: all[i].Data})
				}
			}
			if r, err := l.Append(t.Context(), b); err != nil || r.Last != uint64(len(all)) {
				t.Fatalf("step %d: %+v, %v", step, r, err)
			}
			evicted = expired()
		}

		next := expired()
		for i := range next {
			if elapsed-appended[i] < age-2*jump {
				t.Fatalf("the model evicts event %d too early", i+1)
			}
		}
		if b := mustBounds(t, l); b.First != uint64(next+1) || b.Last != uint64(len(all)) {
			t.Fatalf("step %d: %+v; want %d to %d", step, b, next+1, len(all))
		}
		_, err := l.Read(t.Context(), 0, func(e Event) bool {
			if next == len(all) {
				t.Fatalf("step %d: read event %d", step, e.Seq)
			}
			if want := all[next]; e.Seq != want.Seq || !e.Time.Equal(want.Time) || string(e.Data) != string(want.Data) {
				t.Fatalf("step %d: read %+v; want %+v", step, e, want)
			}
			next++
			return true
		})
		if err != nil || next != len(all) {
			t.Fatalf("step %d: read up to %d of %d, %v", step, next, len(all), err)
		}
		if after, err := l.Before(t.Context(), clock()); err != nil || after < uint64(expired()) || after > uint64(len(all)) {
			t.Fatalf("step %d: before now: %d, %v", step, after, err)
		}
	}
	if evicted < 100 || len(all)-evicted < 2 {
		t.Errorf("%d of %d events were evicted, which tests little", evicted, len(all))
	}
}

func TestWithoutAgeNothingExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := OpenForTest(t, tempFile(t), Options{})
		mustAppend(t, db.Log("s"), "a", "b")
		time.Sleep(24 * time.Hour)
		wantRead(t, db.Log("s"), 0, "1 a", "2 b")
	})
}
