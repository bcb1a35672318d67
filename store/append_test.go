package store_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lastevent/store"
)

// A logFile is a DB that a test can close and open again.
type logFile struct {
	*store.DB
	t    *testing.T
	path string
	o    store.Options
}

func newLogFile(t *testing.T, o store.Options) *logFile {
	f := &logFile{t: t, path: filepath.Join(t.TempDir(), "test.db"), o: o}
	f.open()
	t.Cleanup(func() { f.close() })
	return f
}

func (f *logFile) open() {
	f.t.Helper()
	db, err := store.Open(f.path, f.o)
	if err != nil {
		f.t.Fatal(err)
	}
	f.DB = db
}

func (f *logFile) close() {
	f.t.Helper()
	if err := f.DB.Close(); err != nil {
		f.t.Error(err)
	}
}

func (f *logFile) reopen() {
	f.t.Helper()
	f.close()
	f.open()
}

// append appends one event for each data and expects the receipt.
func (f *logFile) append(stream string, b store.Batch, data []string, want store.Receipt) {
	f.t.Helper()
	got, err := f.tryAppend(stream, b, data)
	if err != nil {
		f.t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		f.t.Fatalf("receipt (-want +got):\n%s", diff)
	}
}

func (f *logFile) refused(stream string, b store.Batch, data []string, want error) {
	f.t.Helper()
	before := f.bounds(stream)
	if _, err := f.tryAppend(stream, b, data); !errors.Is(err, want) {
		f.t.Fatalf("error %v, want %v", err, want)
	}
	if diff := cmp.Diff(before, f.bounds(stream)); diff != "" {
		f.t.Fatalf("a refused append changed the log (-before +after):\n%s", diff)
	}
}

func (f *logFile) tryAppend(stream string, b store.Batch, data []string) (store.Receipt, error) {
	for _, d := range data {
		b.Events = append(b.Events, store.Event{Type: "t", Data: []byte(d)})
	}
	b.Digest = sha256.Sum256(fmt.Append(nil, data, b.Close))
	return f.Log(stream).Append(f.t.Context(), b)
}

func (f *logFile) bounds(stream string) store.Bounds {
	f.t.Helper()
	b, err := f.Log(stream).Bounds(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

// read returns the data of the events after the sequence.
func (f *logFile) read(stream string, after uint64) (data []string) {
	f.t.Helper()
	_, err := f.Log(stream).Read(f.t.Context(), after, func(e store.Event) bool {
		data = append(data, string(e.Data))
		return true
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return data
}

func TestKeyAppendsOnce(t *testing.T) {
	f := newLogFile(t, store.Options{})
	keyed := store.Batch{Key: "k"}
	f.append("s", keyed, []string{"a", "b"}, store.Receipt{Last: 2, Count: 2})
	f.append("s", store.Batch{}, []string{"c"}, store.Receipt{Last: 3, Count: 1})
	for range 2 {
		f.append("s", keyed, []string{"a", "b"}, store.Receipt{Last: 2, Count: 2, Replayed: true})
		f.refused("s", keyed, []string{"other"}, store.ErrKeyReused)
		if diff := cmp.Diff([]string{"a", "b", "c"}, f.read("s", 0)); diff != "" {
			t.Fatal(diff)
		}
		f.reopen()
	}
	f.append("another", keyed, []string{"x"}, store.Receipt{Last: 1, Count: 1})
}

func TestKeyIsEvictedWithItsLastEvent(t *testing.T) {
	f := newLogFile(t, store.Options{Retention: store.Retention{Events: 3}})
	keyed := store.Batch{Key: "k"}
	f.append("s", keyed, []string{"a", "b"}, store.Receipt{Last: 2, Count: 2})
	f.append("s", store.Batch{}, []string{"c", "d"}, store.Receipt{Last: 4, Count: 2})
	f.append("s", keyed, []string{"a", "b"}, store.Receipt{Last: 2, Count: 2, Replayed: true})
	f.append("s", store.Batch{}, []string{"e"}, store.Receipt{Last: 5, Count: 1})
	f.append("s", keyed, []string{"a", "b"}, store.Receipt{Last: 7, Count: 2})
	if err := f.Log("s").Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.append("s", keyed, []string{"a", "b"}, store.Receipt{Last: 9, Count: 2})
}

func TestKeyOfALargerBatchThanTheRing(t *testing.T) {
	f := newLogFile(t, store.Options{Retention: store.Retention{Events: 2}})
	data := []string{"a", "b", "c", "d", "e"}
	f.append("s", store.Batch{Key: "k"}, data, store.Receipt{Last: 5, Count: 5})
	f.append("s", store.Batch{Key: "k"}, data, store.Receipt{Last: 5, Count: 5, Replayed: true})
	if diff := cmp.Diff([]string{"d", "e"}, f.read("s", 0)); diff != "" {
		t.Fatal(diff)
	}
}

func TestFiftyAtOnceWithOneKeyAppendOnce(t *testing.T) {
	f := newLogFile(t, store.Options{})
	var wg sync.WaitGroup
	receipts := make([]store.Receipt, 50)
	for i := range receipts {
		wg.Go(func() {
			var err error
			if receipts[i], err = f.tryAppend("s", store.Batch{Key: "k"}, []string{"once"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	first := 0
	for _, r := range receipts {
		if !r.Replayed {
			first++
		}
		if r.Last != 1 || r.Count != 1 {
			t.Errorf("receipt %+v", r)
		}
	}
	if got := f.read("s", 0); first != 1 || len(got) != 1 {
		t.Errorf("%d appended, stored %q", first, got)
	}
}

func TestClose(t *testing.T) {
	f := newLogFile(t, store.Options{Retention: store.Retention{Events: 10}})
	f.append("s", store.Batch{}, []string{"a"}, store.Receipt{Last: 1, Count: 1})
	f.append("s", store.Batch{Close: true, Key: "k"}, []string{"b"}, store.Receipt{Last: 2, Count: 1})
	f.append("empty", store.Batch{Close: true, Key: "k"}, nil, store.Receipt{})
	for range 2 {
		if !f.bounds("s").Closed || !f.bounds("empty").Closed {
			t.Fatal("not closed")
		}
		f.append("s", store.Batch{Close: true}, nil, store.Receipt{Last: 2})
		f.append("s", store.Batch{Close: true, Key: "k"}, []string{"b"}, store.Receipt{Last: 2, Count: 1, Replayed: true})
		f.append("empty", store.Batch{Close: true, Key: "k"}, nil, store.Receipt{Replayed: true})
		f.refused("s", store.Batch{}, []string{"c"}, store.ErrClosed)
		f.refused("s", store.Batch{Close: true}, []string{"c"}, store.ErrClosed)
		f.refused("s", store.Batch{Key: "k"}, []string{"c"}, store.ErrKeyReused)
		if diff := cmp.Diff([]string{"a", "b"}, f.read("s", 0)); diff != "" {
			t.Fatal(diff)
		}
		f.reopen()
	}
}

func TestDeleteKeepsSequenceAndClosed(t *testing.T) {
	f := newLogFile(t, store.Options{})
	f.append("s", store.Batch{}, []string{"a", "b"}, store.Receipt{Last: 2, Count: 2})
	f.append("closed", store.Batch{Close: true}, []string{"a"}, store.Receipt{Last: 1, Count: 1})
	for range 2 {
		for _, stream := range []string{"s", "closed", "never"} {
			if err := f.Log(stream).Delete(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if b := f.bounds("s"); b.First != 3 || b.Last != 2 || b.Bytes != 0 {
			t.Fatalf("bounds %+v", b)
		}
		if !f.bounds("closed").Closed {
			t.Fatal("no longer closed")
		}
		f.reopen()
	}
	f.append("s", store.Batch{}, []string{"c"}, store.Receipt{Last: 3, Count: 1})
	f.refused("closed", store.Batch{}, []string{"b"}, store.ErrClosed)
	if diff := cmp.Diff([]string{"c"}, f.read("s", 0)); diff != "" {
		t.Fatal(diff)
	}
}

// A delete of more than one transaction removes is complete at once for readers.
func TestDeleteOfALargeLog(t *testing.T) {
	f := newLogFile(t, store.Options{})
	data := make([]string, 8500)
	for i := range data {
		data[i] = string(make([]byte, 1000)) // a block each
	}
	f.append("s", store.Batch{}, data, store.Receipt{Last: 8500, Count: 8500})
	f.append("s", store.Batch{}, []string{"after"}, store.Receipt{Last: 8501, Count: 1})
	if err := f.Log("s").Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.append("s", store.Batch{}, []string{"next"}, store.Receipt{Last: 8502, Count: 1})
	for range 2 {
		if diff := cmp.Diff([]string{"next"}, f.read("s", 0)); diff != "" {
			t.Fatal(diff)
		}
		f.reopen()
	}
}

func TestMaxStreams(t *testing.T) {
	f := newLogFile(t, store.Options{MaxStreams: 2})
	f.append("a", store.Batch{}, []string{"1"}, store.Receipt{Last: 1, Count: 1})
	f.append("b", store.Batch{Close: true}, nil, store.Receipt{})
	for range 2 {
		f.refused("c", store.Batch{}, []string{"1"}, store.ErrTooManyStreams)
		f.refused("c", store.Batch{Close: true}, nil, store.ErrTooManyStreams)
		if err := f.Log("a").Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.reopen()
	}
	f.append("a", store.Batch{}, []string{"2"}, store.Receipt{Last: 2, Count: 1})
	streams, err := f.Streams(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []store.Stream{
		{Name: "a", Bounds: store.Bounds{Log: f.ID(), First: 2, Last: 2, Bytes: 2}},
		{Name: "b", Bounds: store.Bounds{Log: f.ID(), First: 1, Closed: true}},
	}
	if diff := cmp.Diff(want, streams); diff != "" {
		t.Fatalf("streams (-want +got):\n%s", diff)
	}
}
