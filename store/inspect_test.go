package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
)

// variedFile writes a file with all that there can be in one, and on branch pages as
// well as inline where large says so. It returns what can be read of it.
func variedFile(t testing.TB, path string, large bool) map[string]stored {
	t.Helper()
	db := OpenForTest(t, path, Options{Retention: Retention{Events: 40}})
	streams, events := 3, 8
	if large {
		streams, events = 60, 60
	}
	for i := range streams {
		mustAppend(t, db.Log(fmt.Sprintf("many/%02d", i)), "a", "b")
	}
	for i := range events {
		b := batch(fmt.Sprintf("event %d", i), "two\nlines")
		b.Events[1].Data = append(b.Events[1].Data, strings.Repeat("x", 20*i)...)
		b.Key, b.Digest = fmt.Sprint("key ", i), [32]byte{byte(i)}
		_, err := db.Log("ring").Append(t.Context(), b)
		must(t, err)
	}
	if large {
		mustAppend(t, db.Log("large"), strings.Repeat("y", 10_000), "small", strings.Repeat("z", 5000))
	}
	mustAppend(t, db.Log("deleted"), "a", "b", "c")
	must(t, db.Log("deleted").Delete(t.Context()))
	_, err := db.Log("closed").Append(t.Context(), Batch{Events: batch("the last\rone").Events, Close: true, Key: "close"})
	must(t, err)
	_, err = db.Log("closed empty").Append(t.Context(), Batch{Close: true, Key: "close"})
	must(t, err)
	all := contents(t, db)
	CloseForTest(t, db)
	return all
}

// stored is what a log holds.
type stored struct {
	Bounds Bounds
	Events []Event
}

// contents reads all logs, past what is corrupt.
func contents(t testing.TB, db *DB) map[string]stored {
	t.Helper()
	streams, err := db.Streams(t.Context())
	must(t, err)
	all := map[string]stored{}
	for _, s := range streams {
		c := stored{Bounds: s.Bounds}
		for after := s.First - 1; after < s.Last; {
			_, err := db.Log(s.Name).Read(t.Context(), after, func(e Event) bool {
				e.Data = slices.Clone(e.Data)
				c.Events = append(c.Events, e)
				after = e.Seq
				return true
			})
			var corrupt *CorruptError
			if errors.As(err, &corrupt) {
				after = corrupt.Last
			} else {
				must(t, err)
			}
		}
		all[s.Name] = c
	}
	return all
}

func mustInspect(t testing.TB, path string) *Report {
	t.Helper()
	r, err := Inspect(path)
	must(t, err)
	return r
}

// wantWhole expects a report without damage.
func wantWhole(t testing.TB, r *Report) {
	t.Helper()
	if !r.Whole() {
		t.Errorf("%s is not whole: %q, %+v", r.Path, r.Damage, corruptOf(r))
	}
}

func corruptOf(r *Report) map[string][]Span {
	corrupt := map[string][]Span{}
	for _, s := range r.Streams {
		if s.Corrupt != nil {
			corrupt[s.Name] = s.Corrupt
		}
	}
	return corrupt
}

func TestInspectWhole(t *testing.T) {
	for _, large := range []bool{false, true} {
		path := tempFile(t)
		want := variedFile(t, path, large)
		before := readFile(t, path)
		r := mustInspect(t, path)
		wantWhole(t, r)
		if string(readFile(t, path)) != string(before) {
			t.Error("the file was changed")
		}
		if r.Format != formatVersion || r.Log != want["ring"].Bounds.Log || r.Size != int64(len(before)) || r.FreePages == 0 || !r.Backup.IsZero() {
			t.Errorf("report %+v", r)
		}
		if len(r.Streams) != len(want) {
			t.Errorf("%d streams; want %d", len(r.Streams), len(want))
		}
		for _, s := range r.Streams {
			b := want[s.Name].Bounds
			if s.First != b.First || s.Last != b.Last || s.Events != b.Last-b.First+1 || s.Bytes != b.Bytes || s.Closed != b.Closed || (s.Stored > s.Bytes) != (s.Events > 0) {
				t.Errorf("%+v; want %+v", s, b)
			}
		}
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

func TestInspectLocked(t *testing.T) {
	path := tempFile(t)
	db := OpenForTest(t, path, Options{})
	start := time.Now()
	if _, err := Inspect(path); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path) || time.Since(start) > 2*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
	CloseForTest(t, db)
	wantWhole(t, mustInspect(t, path))
}

func TestInspectWhatIsNone(t *testing.T) {
	good := tempFile(t)
	variedFile(t, good, false)
	content := readClosed(t, good)
	for name, test := range map[string]struct {
		content []byte
		want    error
	}{
		"empty":         {nil, ErrForeign},
		"text":          {[]byte(strings.Repeat("text ", 10_000)), ErrForeign},
		"one byte":      {content[:1], ErrForeign},
		"cut in a meta": {content[:50], ErrDamaged},
		"zeros":         {make([]byte, 1<<16), ErrForeign},
	} {
		path := tempFile(t)
		must(t, os.WriteFile(path, test.content, 0o600))
		if _, err := Inspect(path); !errors.Is(err, test.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v; want %v", name, err, test.want)
		}
		to := tempFile(t)
		if _, _, err := Repair(path, to); !errors.Is(err, test.want) {
			t.Errorf("%s: repair: %v", name, err)
		}
		wantOnly(t, filepath.Dir(to))
	}
	if _, err := Inspect(t.TempDir()); err == nil {
		t.Error("a folder is inspected")
	}
	if _, err := Inspect(good + ".not"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	for size := 2 * pageSize; size < len(content); size += pageSize { // truncated
		path := tempFile(t)
		must(t, os.WriteFile(path, content[:size], 0o600))
		r, err := Inspect(path)
		if err != nil || r.Whole() {
			t.Errorf("cut to %d bytes: %v, %+v", size, err, r)
		}
		if _, _, err := Repair(path, tempFile(t)); err != nil {
			t.Errorf("cut to %d bytes: %v", size, err)
		}
	}
}

// TestRepairWhole copies what is whole: it is the same afterwards.
func TestRepairWhole(t *testing.T) {
	path, to := tempFile(t), tempFile(t)
	want := variedFile(t, path, true)
	before := readFile(t, path)
	old, repaired, err := Repair(path, to)
	must(t, err)
	wantWhole(t, old)
	wantWhole(t, repaired)
	if string(readFile(t, path)) != string(before) {
		t.Error("the old file was changed")
	}
	if _, _, err := Repair(path, to); !errors.Is(err, os.ErrExist) {
		t.Errorf("onto a file that is there: %v", err)
	}
	wantOnly(t, filepath.Dir(to), filepath.Base(to))
	db := OpenForTest(t, to, Options{Retention: Retention{Events: 40}})
	if diff := cmp.Diff(want, contents(t, db)); diff != "" {
		t.Error(diff)
	}
	r, err := db.Log("ring").Append(t.Context(), Batch{Events: batch("event 59", "").Events, Key: "key 59", Digest: [32]byte{59}})
	if err != nil || !r.Replayed || r.Last != 120 {
		t.Errorf("a key used: %+v, %v", r, err)
	}
	if r := mustAppend(t, db.Log("deleted"), "d"); r.Last != 4 {
		t.Errorf("the next of a deleted log: %+v", r)
	}
}

// TestInspectSees damages what has no checksum of its own.
func TestInspectSees(t *testing.T) {
	path := tempFile(t)
	variedFile(t, path, true)
	content := readClosed(t, path)
	var blocks [2][]byte // of two streams, of the same size
	var entry []byte
	look(t, path, func(tx *bolt.Tx) error {
		for i := range blocks {
			b := storedBlocks(tx, fmt.Sprintf("many/%02d", 10+i))[0]
			blocks[i] = slices.Concat(b.key, b.value)
		}
		k, _ := tx.Bucket(orderBucket).Cursor().Last()
		entry = slices.Clone(k)
		return nil
	})
	swapped := slices.Clone(content)
	first, second := bytes.Index(swapped, blocks[0]), bytes.Index(swapped, blocks[1])
	copy(swapped[first:], blocks[1])
	copy(swapped[second:], blocks[0])
	other := slices.Clone(entry)
	other[len(other)-1] ^= 1
	for words, content := range map[string][]byte{
		"out of order": swapped,
		`"ring" has 20 receipts of idempotency keys`: bytes.ReplaceAll(content, entry, other),
	} {
		r := mustInspect(t, writeTemp(t, content))
		if !strings.Contains(strings.Join(r.Damage, "\n"), words) {
			t.Errorf("%q; want %q", r.Damage, words)
		}
	}
}

// TestRepairBringsNothingBack repairs a file without the states of streams that were
// deleted and evicted from: what free pages hold of them must not come back.
func TestRepairBringsNothingBack(t *testing.T) {
	path, to := tempFile(t), tempFile(t)
	db := OpenForTest(t, path, Options{Retention: Retention{Events: 10}})
	appendTens(t, db.Log("ring"), 100)
	appendTens(t, db.Log("deleted"), 1)
	mustAppend(t, db.Log("deleted"), strings.Repeat("x", 100_000))
	must(t, db.Log("deleted").Delete(t.Context()))
	mustAppend(t, db.Log("other"), "a")
	CloseForTest(t, db)
	edit(t, path, func(tx *bolt.Tx) error {
		return errors.Join(tx.Bucket(stateBucket).Delete([]byte("ring")), tx.Bucket(stateBucket).Delete([]byte("deleted")))
	})
	old, repaired, err := Repair(path, to)
	must(t, err)
	if old.Whole() || repaired.Backup.IsZero() || !repaired.Whole() || len(repaired.Streams) != 2 {
		t.Errorf("%+v, then %+v", old, repaired)
	}
	if s := repaired.Streams[1]; s.Name != "ring" || s.Last != 1000 || s.First < 980 {
		t.Errorf("%+v; want what was retained", s)
	}
}

// TestRepairLeftOver repairs a file from which evicted events are still to be removed.
func TestRepairLeftOver(t *testing.T) {
	path, to := tempFile(t), tempFile(t)
	db := OpenForTest(t, path, Options{})
	for _, data := range []string{"a", "b", "c"} {
		mustAppend(t, db.Log("s"), data)
	}
	events := contents(t, db)["s"].Events
	CloseForTest(t, db)
	edit(t, path, func(tx *bolt.Tx) error {
		s, err := decodeState("s", tx.Bucket(stateBucket).Get([]byte("s")))
		s.first, s.leftover = 2, true
		s.evicted, s.firstTime = uint64(events[0].size()), events[1].Time.UnixNano()
		return errors.Join(err, tx.Bucket(stateBucket).Put([]byte("s"), s.encode("s")))
	})
	wantWhole(t, mustInspect(t, path))
	_, _, err := Repair(path, to)
	must(t, err)
	if got := storedEvents(t, to)["s"]; !cmp.Equal(got, events[1:]) {
		t.Errorf("the new file has %+v", got)
	}
}
