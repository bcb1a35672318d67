package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// unreadableLeaves is a file of the stream s, of n events appended one by one, and of
// the streams a and z on either side of it; and the IDs of the pages with its events,
// but for the first and the last, whose heads are read by Open.
func unreadableLeaves(t *testing.T, n int, o Options) (im checkImage, leaves []uint64) {
	t.Helper()
	path := tempFile(t)
	db := OpenForTest(t, path, o)
	mustAppend(t, db.Log("a"), "a0")
	mustAppend(t, db.Log("z"), "a0")
	for seq := range n {
		mustAppendKey(t, db.Log("s"), seq)
	}
	CloseForTest(t, db)
	im = checkImage(readClosed(t, path))
	look(t, path, func(tx *bolt.Tx) error {
		leaves = im.children(uint64(tx.Bucket(eventsBucket).Root()))
		leaves = leaves[1 : len(leaves)-1]
		return nil
	})
	return im, leaves
}

// mustAppendKey appends the event after the sequence, under a key.
func mustAppendKey(t *testing.T, l *Log, seq int) {
	t.Helper()
	b := batch(fmt.Sprintf("%c%d", 'a'+seq%3, seq/3))
	b.Key = fmt.Sprint(seq)
	r, err := l.Append(t.Context(), b)
	if err != nil || r.Last != uint64(seq+1) {
		t.Fatalf("append %d: %+v, %v", seq+1, r, err)
	}
}

// TestEvictUnreadablePage appends until each page with events that bbolt does not read,
// also several in a row, is evicted, opens the file again in between, and sees that
// nothing but these pages is lost.
func TestEvictUnreadablePage(t *testing.T) {
	im, leaves := unreadableLeaves(t, 300, Options{})
	if len(leaves) < 3 {
		t.Fatalf("there are %d pages", len(leaves))
	}
	tests := [][]uint64{leaves, leaves[:2], {leaves[0], leaves[2]}}
	for _, leaf := range leaves {
		tests = append(tests, []uint64{leaf})
	}
	for i, bad := range tests {
		for _, r := range []Retention{{Events: 280}, {Bytes: 280 * uint64(len("messagea00"))}}[i%2:][:1] {
			t.Run(fmt.Sprint(r, bad), func(t *testing.T) {
				t.Parallel()
				damaged := slices.Clone(im)
				for _, leaf := range bad {
					damaged.page(leaf)[8] ^= 1
				}
				appendPastUnreadable(t, writeTemp(t, damaged), r)
			})
		}
	}
}

func appendPastUnreadable(t *testing.T, path string, r Retention) {
	said := 0
	o := Options{Retention: r, Damaged: func(err error) {
		said++
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("said is %v", err)
		}
	}}
	const reopenEvery, end = 125, 675
	for seq := 300; seq < end; {
		db, err := Open(path, o)
		must(t, err)
		for range reopenEvery {
			mustAppendKey(t, db.Log("s"), seq)
			seq++
			b := mustBounds(t, db.Log("s"))
			if n := b.Last - b.First + 1; b.Last != uint64(seq) || r.Events > 0 && n > r.Events || r.Bytes > 0 && b.Bytes > r.Bytes {
				t.Fatalf("after the append of %d: %+v", seq, b)
			}
		}
		readOn(t, db.Log("s"))
		must(t, db.Close())
	}
	if said == 0 || said > (end-300)/reopenEvery {
		t.Errorf("the damage was said %d times", said)
	}
	said = -100
	db, err := Open(path, o)
	must(t, err)
	defer db.Close()
	b := mustBounds(t, db.Log("s"))
	read, lost := readOn(t, db.Log("s"))
	if b.First < end-300 || b.First > end-200 || len(lost) > 0 || len(read) != int(end-b.First+1) {
		t.Errorf("in the end %+v, %d are read, corrupt are %d", b, len(read), lost)
	}
	for _, name := range []string{"a", "z"} {
		if got := mustRead(t, db.Log(name), 0); !slices.Equal(got, []string{"1 a0"}) {
			t.Errorf("stream %s has %q", name, got)
		}
		if r := mustAppend(t, db.Log(name), "b0"); r.Last != 2 {
			t.Errorf("stream %s: the next is %d", name, r.Last)
		}
	}
	if left := leftBlocks(t, db, b.First); left > 180 { // three pages
		t.Errorf("%d blocks of what is evicted can still be read", left)
	}
}

// leftBlocks is how many blocks before first can be read.
func leftBlocks(t *testing.T, db *DB, first uint64) (n int) {
	t.Helper()
	must(t, db.view(func(tx *bolt.Tx) error {
		for range readable(tx.Bucket(eventsBucket).Cursor(), "s", 1, first-1) {
			n++
		}
		return nil
	}))
	return n
}

// TestExpireUnreadablePage lets events on a page that bbolt does not read expire.
func TestExpireUnreadablePage(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	o := Options{Now: func() time.Time { now = now.Add(time.Second); return now }}
	im, leaves := unreadableLeaves(t, 300, o)
	for _, leaf := range leaves {
		damaged := slices.Clone(im)
		damaged.page(leaf)[8] ^= 1
		path := writeTemp(t, damaged)
		end := now
		for age := 10 * time.Minute; age > 0; age -= 37 * time.Second {
			db, err := Open(path, Options{Retention: Retention{Age: age}, Now: func() time.Time { return end }})
			must(t, err)
			readOn(t, db.Log("s"))
			_, err = db.Log("s").Before(t.Context(), end.Add(-age/2))
			must(t, err)
			_, err = db.Streams(t.Context())
			must(t, err)
			must(t, db.Close())
		}
	}
}

// TestAppendToUnreadablePage appends to a stream whose last event is on a page that
// bbolt does not read, beside streams that are whole.
func TestAppendToUnreadablePage(t *testing.T) {
	path := tempFile(t)
	db := OpenForTest(t, path, Options{})
	stream := func(i int) *Log { return db.Log(fmt.Sprintf("s%03d", i)) }
	const streams = 300
	for i := range streams {
		mustAppend(t, stream(i), "a0")
	}
	CloseForTest(t, db)
	im := checkImage(readClosed(t, path))
	look(t, path, func(tx *bolt.Tx) error {
		leaves := im.children(uint64(tx.Bucket(eventsBucket).Root()))
		im.page(leaves[len(leaves)/2])[8] ^= 1
		return nil
	})
	said := make(chan error, 10)
	db = openUnchecked(t, writeTemp(t, im), Options{Damaged: func(err error) { said <- err }})
	answers := make(chan error, streams)
	for i := range streams {
		go func() {
			r, err := stream(i).Append(t.Context(), batch("b0"))
			if err == nil && r.Last != 2 {
				err = fmt.Errorf("stream %d: the second event is %d", i, r.Last)
			}
			answers <- err
		}()
	}
	refused := 0
	for range streams {
		if err := <-answers; errors.Is(err, ErrDamaged) && !errors.Is(err, ErrUnknown) {
			refused++
		} else if err != nil {
			t.Error(err)
		}
	}
	if refused == 0 || refused > streams/2 {
		t.Errorf("%d of %d appends were refused", refused, streams)
	}
	if err := db.Err(); err != nil || len(said) != 1 {
		t.Errorf("the store says %v; the damage was said %d times", err, len(said))
	}
	for i := range streams {
		if b := mustBounds(t, stream(i)); b.Last != 1 && b.Last != 2 {
			t.Errorf("stream %d: %+v", i, b)
		}
	}
}
