package store

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"
)

// backUp takes a backup of the DB into a file of its own.
func backUp(t *testing.T, db *DB) (path string, r *Report) {
	t.Helper()
	b, size, err := db.Backup(t.Context())
	must(t, err)
	path = tempFile(t)
	r, err = SaveBackup(path, b)
	must(t, errors.Join(err, b.Close()))
	if r.Size != size || r.Path != path || r.Backup.IsZero() || r.Log != db.ID() {
		t.Errorf("report %+v of a backup of %d bytes of log %s", r, size, db.ID())
	}
	wantWhole(t, r)
	wantOnly(t, filepath.Dir(path), filepath.Base(path))
	return path, r
}

// TestBackupUnderLoad takes backups while others append: what was acknowledged before is
// in them, and what is retained is contiguous.
func TestBackupUnderLoad(t *testing.T) {
	path := tempFile(t)
	db := OpenForTest(t, path, Options{Retention: Retention{Events: 300}})
	var mu sync.Mutex // guards acknowledged
	acknowledged := map[string]uint64{}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			name := fmt.Sprint("s", i)
			for n := 1; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				r, err := db.Log(name).Append(t.Context(), batch(fmt.Sprint(2*n-1), fmt.Sprint(2*n)))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acknowledged[name] = r.Last
				mu.Unlock()
			}
		})
	}
	backups := 5
	if long {
		backups = 100
	}
	for range backups {
		before := map[string]uint64{}
		for len(before) < 4 || before["s0"] < 20 {
			mu.Lock()
			for name, last := range acknowledged {
				before[name] = last
			}
			mu.Unlock()
		}
		copied, _ := backUp(t, db)
		restored := OpenForTest(t, copied, Options{})
		for name, last := range before {
			c := contents(t, restored)[name]
			if c.Bounds.Last < last+renumberBy || len(c.Events) == 0 {
				t.Fatalf("stream %s: %+v; want at least to %d", name, c.Bounds, last)
			}
			for i, e := range c.Events {
				if e.Seq != c.Bounds.First+uint64(i) || string(e.Data) != fmt.Sprint(e.Seq-renumberBy) {
					t.Fatalf("stream %s: event %d is %q", name, e.Seq, e.Data)
				}
			}
		}
		CloseForTest(t, restored)
	}
	close(stop)
	wg.Wait()
	CloseForTest(t, db)
	wantWhole(t, mustInspect(t, path))
	wantOnly(t, filepath.Dir(path), filepath.Base(path))
}

func TestRestore(t *testing.T) {
	path := tempFile(t)
	want := variedFile(t, path, true)
	o := Options{Retention: Retention{Events: 40}}
	db := OpenForTest(t, path, o)
	copied, _ := backUp(t, db)
	mustAppend(t, db.Log("ring"), "after the backup")
	mustAppend(t, db.Log("new"), "after the backup")
	second := writeTemp(t, readFile(t, copied))

	restored := OpenForTest(t, copied, o)
	wantOnly(t, filepath.Dir(copied), filepath.Base(copied))
	if restored.BackupOf() != db.ID() || restored.ID() == db.ID() {
		t.Errorf("log %s is a backup of %s; want of %s", restored.ID(), restored.BackupOf(), db.ID())
	}
	if err := compareRepaired(want, contents(t, restored), restored.BackupOf(), CorruptError{}); err != nil {
		t.Error(err)
	}
	// What is appended gets IDs of its own, also where there was no stream.
	if r := mustAppend(t, restored.Log("ring"), "restored"); r.Last != renumberBy+121 {
		t.Errorf("the next event is %d", r.Last)
	}
	if b := mustBounds(t, restored.Log("new")); b.First != renumberBy+1 || b.Last != renumberBy || b.Bytes != 0 {
		t.Errorf("a stream that is not in the backup: %+v", b)
	}
	if r := mustAppend(t, restored.Log("new"), "restored"); r.Last != renumberBy+1 {
		t.Errorf("the first event of a stream that is not in the backup is %d", r.Last)
	}
	b := batch("event 59", "two\nlines"+strings.Repeat("x", 20*59))
	b.Key, b.Digest = "key 59", [32]byte{59}
	if r, err := restored.Log("ring").Append(t.Context(), b); err != nil || !r.Replayed || r.Last != renumberBy+120 || r.Count != 2 {
		t.Errorf("a key used before the backup: %+v, %v", r, err)
	}
	if _, err := restored.Log("closed").Append(t.Context(), batch("more")); !errors.Is(err, ErrClosed) {
		t.Errorf("append to a closed stream: %v", err)
	}
	CloseForTest(t, restored)
	id := restored.ID()
	wantWhole(t, mustInspect(t, copied))
	restored = OpenForTest(t, copied, o)
	if restored.ID() != id || restored.BackupOf() != "" {
		t.Errorf("log %s, backup of %q, when opened again; was %s", restored.ID(), restored.BackupOf(), id)
	}
	third, _ := backUp(t, restored)
	if other := OpenForTest(t, second, o); other.ID() == id || other.ID() == db.ID() {
		t.Errorf("two copies have the same log %s", id)
	}
	again := OpenForTest(t, third, o)
	if r := mustAppend(t, again.Log("ring"), "restored twice"); r.Last != 2*renumberBy+122 {
		t.Errorf("the next event is %d", r.Last)
	}
	if r := mustAppend(t, again.Log("newer"), "restored twice"); r.Last != 2*renumberBy+1 {
		t.Errorf("the first event of a stream is %d", r.Last)
	}
}

// TestOpenReplaced replaces a file while another waits for its lock, as who restores a
// backup does.
func TestOpenReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, other := tempFile(t), tempFile(t)
		CloseForTest(t, OpenForTest(t, other, Options{}))
		db := OpenForTest(t, path, Options{})
		time.AfterFunc(500*time.Millisecond, func() {
			if err := errors.Join(os.Rename(other, path), db.Close()); err != nil {
				t.Error(err)
			}
		})
		if second, err := Open(path, Options{}); !errors.Is(err, ErrLocked) {
			t.Errorf("open: %v, %v; want ErrLocked, as the file is another", second, err)
		}
	})
}

// TestRestoreThatCannotBe leaves the backup as it is.
func TestRestoreThatCannotBe(t *testing.T) {
	path := tempFile(t)
	variedFile(t, path, false)
	db := OpenForTest(t, path, Options{})
	good, _ := backUp(t, db)
	content := readFile(t, good)

	high := writeTemp(t, content)
	edit(t, high, func(tx *bolt.Tx) error {
		s := state{first: math.MaxUint64 - renumberBy + 1, last: math.MaxUint64 - renumberBy}
		return tx.Bucket(stateBucket).Put([]byte("high"), s.encode("high"))
	})
	damaged := writeTemp(t, bytes.ReplaceAll(content, []byte("closed empty"), []byte("closed umpty")))
	inTheWay := writeTemp(t, content)
	must(t, os.MkdirAll(inTheWay+".restored.new/x", 0o700))
	for path, words := range map[string]string{high: `stream "high"`, damaged: "--repair NEW", inTheWay: ".restored.new"} {
		before := readFile(t, path)
		for range 2 {
			if db, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), words) || !strings.Contains(err.Error(), path) {
				t.Errorf("open: %v, %v; want %q", db, err, words)
			}
		}
		if !bytes.Equal(readFile(t, path), before) {
			t.Error("the backup was changed")
		}
		if path != inTheWay {
			wantOnly(t, filepath.Dir(path), filepath.Base(path))
		}
	}
	if _, err := SaveBackup(good, bytes.NewReader(content)); !errors.Is(err, os.ErrExist) {
		t.Errorf("saving onto a file: %v", err)
	}
	for name, what := range map[string][]byte{"part": content[:len(content)/2], "none": readFile(t, path), "text": []byte("text")} {
		to := tempFile(t)
		r, err := SaveBackup(to, bytes.NewReader(what))
		if err == nil && (name != "part" || r.Whole()) {
			t.Errorf("%s: saved as %+v", name, r)
		}
	}
}
