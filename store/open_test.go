package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"
)

// wantOpenError expects Open to fail with such an error, in words that name the
// path, and to leave the file as it is.
func wantOpenError(t *testing.T, path string, want error) {
	t.Helper()
	before, _ := os.ReadFile(path)
	start := time.Now()
	db, err := Open(path, Options{})
	if err == nil {
		db.Close()
	}
	if !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
		t.Errorf("open: %v; want %v, and the path", err, want)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("open takes %v", d)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("the file was changed")
	}
}

// wantOnly expects the folder to hold nothing else.
func wantOnly(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("the folder holds %q; want %q", got, names)
	}
}

func TestOpenAnotherFormat(t *testing.T) {
	path := tempFile(t)
	db := OpenForTest(t, path, Options{})
	mustAppend(t, db.Log("s"), "a")
	CloseForTest(t, db)
	for _, version := range []uint32{formatVersion - 1, formatVersion + 1} {
		edit(t, path, func(tx *bolt.Tx) error {
			return tx.Bucket(metaBucket).Put(formatKey, binary.BigEndian.AppendUint32(nil, version))
		})
		wantOpenError(t, path, ErrVersion)
	}
}

func TestOpenForeign(t *testing.T) {
	path := tempFile(t)
	b, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	must(t, b.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket([]byte("another program's"))
		return err
	}))
	must(t, b.Close())
	wantOpenError(t, path, ErrForeign)
}

func TestOpenLocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := tempFile(t)
		db := OpenForTest(t, path, Options{})
		mustAppend(t, db.Log("s"), "a")
		wantOpenError(t, path, ErrLocked)
		mustAppend(t, db.Log("s"), "b")

		time.AfterFunc(500*time.Millisecond, func() { db.Close() })
		second := OpenForTest(t, path, Options{}) // waits
		wantRead(t, second.Log("s"), 0, "1 a", "2 b")
	})
}

func TestOpenWhereItCannotBe(t *testing.T) {
	dir := t.TempDir()
	wantOpenError(t, filepath.Join(dir, "missing", "store.db"), os.ErrNotExist)
	wantOnly(t, dir)

	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for _, path := range []string{filepath.Join(file, "store.db"), dir} {
		db, err := Open(path, Options{})
		if err == nil {
			db.Close()
		}
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("open %s: %v; want an error that names it", path, err)
		}
	}
	wantOnly(t, dir, "file")
}

func TestOpenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := tempFile(t)
		var wg sync.WaitGroup
		var opened atomic.Pointer[DB]
		for range 4 {
			wg.Go(func() {
				db, err := Open(path, Options{})
				switch {
				case err == nil && !opened.CompareAndSwap(nil, db):
					t.Error("opened twice")
				case err != nil && !errors.Is(err, ErrLocked):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		wantOnly(t, filepath.Dir(path), "store.db")
		mustAppend(t, opened.Load().Log("s"), "a")
		CloseForTest(t, opened.Load())
	})
}

func TestNumberingHasOneName(t *testing.T) {
	path := tempFile(t)
	db := OpenForTest(t, path, Options{})
	id := db.ID()
	if b := mustBounds(t, db.Log("s")); b.Log != id || id == "" {
		t.Errorf("bounds %+v of the numbering %q", b, id)
	}
	CloseForTest(t, db)
	db = OpenForTest(t, path, Options{})
	if db.ID() != id {
		t.Errorf("%q after a reopen; want %q", db.ID(), id)
	}
	if other := OpenForTest(t, tempFile(t), Options{}); other.ID() == id {
		t.Errorf("two files have the numbering %q", id)
	}
}

func TestRetentionMadeSmaller(t *testing.T) {
	const eventSize = uint64(len("message") + 100)
	clock := time.Now()
	now := func() time.Time { return clock }
	tests := map[string]struct {
		retention Retention
		first     uint64
	}{
		"events":    {Retention{Events: 7}, 94},
		"bytes":     {Retention{Bytes: 12*eventSize + 1}, 89},
		"age":       {Retention{Age: 100 * time.Second}, 51},
		"no events": {Retention{Age: 20 * time.Second}, 101},
		"unchanged": {Retention{}, 1},
	}
	const streams = 300 // more than are evicted from in one transaction
	full := tempFile(t)
	db := OpenForTest(t, full, Options{Now: now})
	for range 2 {
		var wg sync.WaitGroup
		for i := range streams {
			wg.Go(func() { appendTens(t, db.Log(fmt.Sprint("s", i)), 5) })
		}
		wg.Wait()
		clock = clock.Add(50 * time.Second)
	}
	CloseForTest(t, db)
	content := readClosed(t, full)

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := writeTemp(t, content)
			db := OpenForTest(t, path, Options{Retention: test.retention, Now: now})
			for i := range streams {
				b := mustBounds(t, db.Log(fmt.Sprint("s", i)))
				if b.First != test.first || b.Last != 100 || b.Bytes != (101-test.first)*eventSize {
					t.Fatalf("stream %d: %+v; want %d to 100", i, b, test.first)
				}
			}
			if n := len(mustRead(t, db.Log("s7"), 0)); n != int(101-test.first) {
				t.Errorf("%d events are read", n)
			}
			stored := storedEvents(t, path)
			for i := range streams {
				events := stored[fmt.Sprint("s", i)]
				if excess := len(events) - int(101-test.first); excess < 0 || excess >= 20 {
					t.Fatalf("stream %d: %d events are in the file; want %d", i, len(events), 101-test.first)
				}
			}
			CloseForTest(t, db)

			db = OpenForTest(t, path, Options{Now: now})
			if b := mustBounds(t, db.Log("s7")); b.First != test.first || b.Last != 100 {
				t.Errorf("made larger again: %+v; want %d to 100", b, test.first)
			}
			if r := mustAppend(t, db.Log("s7"), "a"); r.Last != 101 {
				t.Errorf("the next append ends with %d; want 101", r.Last)
			}
		})
	}
}

// appendTens appends n batches of ten events of 100 bytes each.
func appendTens(t testing.TB, l *Log, n int) {
	data := make([]string, 10)
	for i := range data {
		data[i] = strings.Repeat("x", 100)
	}
	for range n {
		mustAppend(t, l, data...)
	}
}

func TestFileOfARingStaysSmall(t *testing.T) {
	path := tempFile(t)
	db := OpenForTest(t, path, Options{Retention: Retention{Events: 100}})
	pages := func() int { return len(readClosed(t, path)) / pageSize }
	appendTens(t, db.Log("s"), 50)
	CloseForTest(t, db)
	before := pages()
	db = OpenForTest(t, path, Options{Retention: Retention{Events: 100}})
	appendTens(t, db.Log("s"), 500)
	if n := len(storedEvents(t, path)["s"]); n < 100 || n >= 120 {
		t.Errorf("%d events are in the file; want 100 and the rest of a block", n)
	}
	CloseForTest(t, db)
	if after := pages(); after > before+20 {
		t.Errorf("the file has grown from %d to %d pages", before, after)
	}
}

func TestStoppedAfterClose(t *testing.T) {
	path := tempFile(t)
	db := OpenForTest(t, path, Options{})
	l := db.Log("s")
	mustAppend(t, l, "a")
	if err := db.Err(); err != nil {
		t.Error(err)
	}
	CloseForTest(t, db)
	must(t, db.Close())
	if r, err := l.Append(t.Context(), batch("b")); !errors.Is(err, ErrStopped) {
		t.Errorf("append: %+v, %v; want ErrStopped", r, err)
	}
	if err := db.Err(); !errors.Is(err, ErrStopped) {
		t.Errorf("Err: %v; want ErrStopped", err)
	}
	if _, err := l.Bounds(t.Context()); !errors.Is(err, ErrStopped) {
		t.Errorf("bounds: %v; want ErrStopped", err)
	}
	if _, err := l.Read(t.Context(), 0, func(Event) bool { return true }); !errors.Is(err, ErrStopped) {
		t.Errorf("read: %v; want ErrStopped", err)
	}
	if _, err := l.Follow(t.Context(), func(Bounds, []Event) {}); !errors.Is(err, ErrStopped) {
		t.Errorf("follow: %v; want ErrStopped", err)
	}
	select {
	case <-db.Failed():
		t.Error("a closed store says that it has failed")
	default:
	}
	db = OpenForTest(t, path, Options{})
	wantRead(t, db.Log("s"), 0, "1 a")
}

func TestCloseWaitsForAppends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var blocked atomic.Bool
		release := make(chan struct{})
		path := tempFile(t)
		db := OpenForTest(t, path, Options{Now: func() time.Time {
			if blocked.Load() {
				<-release
			}
			return time.Now()
		}})
		blocked.Store(true)
		var appends sync.WaitGroup
		for range 3 {
			appends.Go(func() { mustAppend(t, db.Log("s"), "a") })
			synctest.Wait() // the first is under way, the others queued
		}
		closed := make(chan error, 1)
		go func() { closed <- db.Close() }()
		synctest.Wait()
		select {
		case err := <-closed:
			t.Fatalf("Close returns %v while an append is under way", err)
		default:
		}
		if r, err := db.Log("s").Append(t.Context(), batch("late")); !errors.Is(err, ErrStopped) {
			t.Errorf("append during Close: %+v, %v; want ErrStopped", r, err)
		}
		close(release)
		appends.Wait()
		must(t, <-closed)
		checkClosed(t, path)
		db = OpenForTest(t, path, Options{})
		wantRead(t, db.Log("s"), 0, "1 a", "2 a", "3 a")
	})
}

// TestCloseAmongAppends closes while many append: what was acknowledged is there,
// and nothing else.
func TestCloseAmongAppends(t *testing.T) {
	path := tempFile(t)
	db := OpenForTest(t, path, Options{})
	var last atomic.Uint64 // acknowledged
	var count atomic.Int64
	enough := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				r, err := db.Log("s").Append(t.Context(), batch("event"))
				if err != nil {
					if !errors.Is(err, ErrStopped) {
						t.Error(err)
					}
					return
				}
				for old := last.Load(); r.Last > old && !last.CompareAndSwap(old, r.Last); old = last.Load() {
				}
				if count.Add(1) == 100 {
					close(enough)
				}
			}
		})
	}
	<-enough
	must(t, db.Close())
	wg.Wait()
	checkClosed(t, path)
	db = OpenForTest(t, path, Options{})
	if b := mustBounds(t, db.Log("s")); b.Last != last.Load() || b.Last != uint64(count.Load()) {
		t.Errorf("%+v; want the %d acknowledged events up to %d", b, count.Load(), last.Load())
	}
}

// TestNoSpace lets the file grow no further, and then again.
func TestNoSpace(t *testing.T) {
	path := tempFile(t)
	db := OpenForTest(t, path, Options{})
	l := db.Log("s")
	mustAppend(t, l, "a")
	db.bolt.MaxSize = 1
	large := strings.Repeat("x", 1<<20)
	for range 3 {
		if r, err := l.Append(t.Context(), batch("b", large)); !errors.Is(err, ErrNoSpace) || errors.Is(err, ErrUnknown) {
			t.Fatalf("append: %+v, %v; want ErrNoSpace", r, err)
		}
		if err := db.Err(); !errors.Is(err, ErrNoSpace) {
			t.Errorf("Err: %v; want ErrNoSpace", err)
		}
		wantRead(t, l, 0, "1 a")
	}
	db.bolt.MaxSize = 0
	if r := mustAppend(t, l, "c", large); r.Last != 3 {
		t.Errorf("the next append ends with %d; want 3", r.Last)
	}
	if err := db.Err(); err != nil {
		t.Errorf("Err: %v", err)
	}
	wantRead(t, l, 0, "1 a", "2 c", "3 "+large)
	CloseForTest(t, db)
	db = OpenForTest(t, path, Options{})
	wantRead(t, db.Log("s"), 0, "1 a", "2 c", "3 "+large)
}

// What a crash left of a file on its way is removed; what another put there stays.
func TestUnfinishedIsRemoved(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"x.db.123.new", "x.db.new", "x.db.old.new", "x.db.123", "y.db.123.new", "x.db..new"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("text"), 0o600))
	}
	OpenForTest(t, filepath.Join(dir, "x.db"), Options{})
	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	want := []string{"x.db", "x.db..new", "x.db.123", "x.db.new", "x.db.old.new", "y.db.123.new"}
	if !slices.Equal(names, want) {
		t.Errorf("the folder has %q; want %q", names, want)
	}
}
