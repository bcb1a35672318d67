package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// Each stream of these tests has three blocks of three events, unless said otherwise.
const blocksEach = 3

func appendBlocks(t testing.TB, l *Log) { appendBlocksOf(t, l, "message") }

func appendBlocksOf(t testing.TB, l *Log, typ string) {
	for i := range blocksEach {
		b := batch(fmt.Sprint("a", i), fmt.Sprint("b", i), fmt.Sprint("c", i))
		for i := range b.Events {
			b.Events[i].Type = typ
		}
		_, err := l.Append(t.Context(), b)
		must(t, err)
	}
}

// A storedBlock is a block of a closed file.
type storedBlock struct{ key, value []byte }

// storedBlocks returns the stream's blocks.
func storedBlocks(tx *bolt.Tx, stream string) (blocks []storedBlock) {
	prefix := []byte(stream + "\x00")
	cur := tx.Bucket(eventsBucket).Cursor()
	for k, v := cur.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = cur.Next() {
		blocks = append(blocks, storedBlock{bytes.Clone(k), bytes.Clone(v)})
	}
	return blocks
}

// readOn reads the log from the start, and behind each span of corrupt events on.
func readOn(t testing.TB, l *Log) (read, corrupt []uint64) {
	t.Helper()
	last := mustBounds(t, l).Last
	for after := uint64(0); after < last; {
		b, err := l.Read(t.Context(), after, func(e Event) bool {
			if e.Seq <= after {
				t.Fatalf("stream %s: event %d comes after event %d", l.name, e.Seq, after)
			}
			read = append(read, e.Seq)
			after = e.Seq
			if want := fmt.Sprintf("%c%d", 'a'+(e.Seq-1)%3, (e.Seq-1)/3); string(e.Data) != want {
				t.Errorf("stream %s: event %d is %q; want %q", l.name, e.Seq, e.Data, want)
			}
			return true
		})
		var c *CorruptError
		switch {
		case errors.As(err, &c):
			if c.Stream != l.name || c.First != max(after+1, b.First) || c.Last < c.First || c.Last > last {
				t.Fatalf("stream %s: read after %d of %d: %+v", l.name, after, last, c)
			}
			for seq := c.First; seq <= c.Last; seq++ {
				corrupt = append(corrupt, seq)
			}
			after = c.Last
		case err != nil:
			t.Fatal(err)
		}
	}
	return read, corrupt
}

// TestFlippedBit flips, in each of many streams, one bit of one block: of each byte
// of the first, the middle and the last block.
func TestFlippedBit(t *testing.T) {
	t.Run("text", func(t *testing.T) { flipBits(t, "message") })
	t.Run("fields", func(t *testing.T) { flipBits(t, "mess\nage") })
}

func flipBits(t *testing.T, typ string) {
	path := tempFile(t)
	db := OpenForTest(t, path, Options{})
	appendBlocksOf(t, db.Log("s000"), typ)
	CloseForTest(t, db)
	size := 0
	look(t, path, func(tx *bolt.Tx) error {
		size = len(storedBlocks(tx, "s000")[0].value)
		return nil
	})

	db = OpenForTest(t, path, Options{})
	stream := func(i int) string { return fmt.Sprintf("s%03d", i) }
	streams := blocksEach * size
	var wg sync.WaitGroup
	for i := 1; i < streams; i++ {
		wg.Go(func() { appendBlocksOf(t, db.Log(stream(i)), typ) })
	}
	wg.Wait()
	CloseForTest(t, db)
	edit(t, path, func(tx *bolt.Tx) error {
		for i := range streams {
			blocks := storedBlocks(tx, stream(i))
			if len(blocks) != blocksEach || len(blocks[0].value) != size {
				return fmt.Errorf("stream %d has %d blocks, the first of %d bytes", i, len(blocks), len(blocks[0].value))
			}
			b := blocks[i/size]
			b.value[i%size] ^= 1 << (i % 8)
			if err := tx.Bucket(eventsBucket).Put(b.key, b.value); err != nil {
				return err
			}
		}
		return nil
	})

	db = OpenForTest(t, path, Options{})
	for i := range streams {
		wantCorrupt(t, db.Log(stream(i)), uint64(i/size*3+1), uint64(i/size*3+3))
	}
}

// wantCorrupt expects exactly these of the log's nine events not to be there.
func wantCorrupt(t testing.TB, l *Log, first, last uint64) {
	t.Helper()
	var want, wantLost []uint64
	for seq := uint64(1); seq <= 3*blocksEach; seq++ {
		if seq < first || seq > last {
			want = append(want, seq)
		} else {
			wantLost = append(wantLost, seq)
		}
	}
	read, lost := readOn(t, l)
	if !slices.Equal(read, want) || !slices.Equal(lost, wantLost) {
		t.Errorf("stream %s: read %d, corrupt %d; want %d, %d", l.name, read, lost, want, wantLost)
	}
}

func TestBlocksThatAreMissingOrNotWhole(t *testing.T) {
	type damage = func(blocks []storedBlock, put func(storedBlock), remove func(storedBlock))
	tests := []struct {
		name        string
		first, last uint64
		damage      damage
	}{
		{"first removed", 1, 3, func(b []storedBlock, _, remove func(storedBlock)) { remove(b[0]) }},
		{"middle removed", 4, 6, func(b []storedBlock, _, remove func(storedBlock)) { remove(b[1]) }},
		{"last removed", 7, 9, func(b []storedBlock, _, remove func(storedBlock)) { remove(b[2]) }},
		{"all removed", 1, 9, func(b []storedBlock, _, remove func(storedBlock)) { remove(b[0]); remove(b[1]); remove(b[2]) }},
		{"two removed", 4, 9, func(b []storedBlock, _, remove func(storedBlock)) { remove(b[1]); remove(b[2]) }},
		{"empty", 4, 6, func(b []storedBlock, put, _ func(storedBlock)) { b[1].value = nil; put(b[1]) }},
		{"cut off", 4, 6, func(b []storedBlock, put, _ func(storedBlock)) {
			b[1].value = b[1].value[:len(b[1].value)-1]
			put(b[1])
		}},
		{"too long", 4, 6, func(b []storedBlock, put, _ func(storedBlock)) { b[1].value = append(b[1].value, 0); put(b[1]) }},
		{"another's value", 4, 6, func(b []storedBlock, put, _ func(storedBlock)) { b[1].value = b[0].value; put(b[1]) }},
		{"under another key", 4, 6, func(b []storedBlock, put, remove func(storedBlock)) {
			remove(b[1])
			b[1].key = blockKey(nil, streamOf(b[1].key), 5)
			put(b[1])
		}},
		{"one removed, one not whole", 1, 6, func(b []storedBlock, put, remove func(storedBlock)) {
			remove(b[0])
			b[1].value[30]++
			put(b[1])
		}},
	}
	path := tempFile(t)
	db := OpenForTest(t, path, Options{})
	for _, test := range tests {
		appendBlocks(t, db.Log(test.name))
	}
	CloseForTest(t, db)
	edit(t, path, func(tx *bolt.Tx) error {
		events := tx.Bucket(eventsBucket)
		for _, test := range tests {
			test.damage(storedBlocks(tx, test.name),
				func(b storedBlock) { must(t, events.Put(b.key, b.value)) },
				func(b storedBlock) { must(t, events.Delete(b.key)) })
		}
		return nil
	})
	db = OpenForTest(t, path, Options{})
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := db.Log(test.name)
			wantCorrupt(t, l, test.first, test.last)
			for after := test.first - 1; after < test.last; after++ {
				_, err := l.Read(t.Context(), after, func(e Event) bool {
					t.Errorf("read after %d: event %d", after, e.Seq)
					return true
				})
				var c *CorruptError
				if !errors.As(err, &c) || *c != (CorruptError{test.name, after + 1, test.last}) {
					t.Errorf("read after %d: %v; want %d to %d", after, err, after+1, test.last)
				}
			}
			if r := mustAppend(t, l, "a3"); r.Last != 10 {
				t.Errorf("the next append ends with %d; want 10", r.Last)
			}
			read, _ := readOn(t, l)
			if !slices.Contains(read, 10) {
				t.Errorf("read %d; want 10 among them", read)
			}
		})
	}
}

// TestRetentionPassesCorruptBlocks evicts from logs whose first block is not whole.
func TestRetentionPassesCorruptBlocks(t *testing.T) {
	for _, r := range []Retention{{Events: 8}, {Bytes: 8 * uint64(len("message"+"a0"))}} {
		path := tempFile(t)
		db := OpenForTest(t, path, Options{})
		appendBlocks(t, db.Log("s"))
		CloseForTest(t, db)
		edit(t, path, func(tx *bolt.Tx) error {
			b := storedBlocks(tx, "s")[0]
			b.value[len(b.value)-1]++
			return tx.Bucket(eventsBucket).Put(b.key, b.value)
		})
		db = OpenForTest(t, path, Options{Retention: r})
		l := db.Log("s")
		for seq := uint64(10); seq <= 20; seq++ {
			mustAppend(t, l, fmt.Sprintf("%c%d", 'a'+(seq-1)%3, (seq-1)/3))
			b := mustBounds(t, l)
			// Of the first block nothing can be told apart: it goes as a whole, or stays.
			if b.Last != seq || b.First != seq-7 && (b.First != 4 || seq > 11) {
				t.Errorf("%+v: after the append of %d: %+v", r, seq, b)
			}
			read, lost := readOn(t, l)
			if len(lost) > 0 || read[0] != b.First {
				t.Errorf("%+v: after the append of %d: %+v, read %d, corrupt %d", r, seq, b, read, lost)
			}
		}
		if b := mustBounds(t, l); b.First != 13 {
			t.Errorf("%+v: in the end %+v; want 8 events", r, b)
		}
	}
}

// Beside a state that is not whole nothing is written, as its key may be the damaged
// part, which others would then be sorted by. What is whole is read.
func TestDamagedState(t *testing.T) {
	path := tempFile(t)
	db := OpenForTest(t, path, Options{})
	for _, name := range []string{"a", "b", "c", "d"} {
		appendBlocks(t, db.Log(name))
	}
	CloseForTest(t, db)
	edit(t, path, func(tx *bolt.Tx) error {
		states := tx.Bucket(stateBucket)
		a, c := bytes.Clone(states.Get([]byte("a"))), bytes.Clone(states.Get([]byte("c")))
		a[len(a)/2] ^= 4
		return errors.Join(
			states.Put([]byte("a"), a),
			states.Put([]byte("c"), c[:len(c)-1]),
			states.Delete([]byte("d")))
	})
	db = OpenForTest(t, path, Options{Retention: Retention{Events: 9}})
	var wg sync.WaitGroup
	for range 20 { // some of them in one transaction
		for _, name := range []string{"a", "b", "c", "d"} {
			wg.Go(func() {
				r, err := db.Log(name).Append(t.Context(), batch("event"))
				if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), `stream "c"`) {
					t.Errorf("append to %s: %+v, %v; want ErrDamaged, of stream c", name, r, err)
				}
			})
		}
	}
	wg.Wait()
	if b := mustBounds(t, db.Log("b")); b.First != 1 || b.Last != 9 {
		t.Errorf("the other stream: %+v", b)
	}
	if _, err := db.Log("a").Bounds(t.Context()); !errors.Is(err, ErrDamaged) {
		t.Errorf("bounds: %v; want ErrDamaged", err)
	}
	if _, err := db.Log("a").Read(t.Context(), 0, func(Event) bool { return true }); !errors.Is(err, ErrDamaged) {
		t.Errorf("read: %v; want ErrDamaged", err)
	}
	if err := db.Err(); !errors.Is(err, ErrDamaged) {
		t.Errorf("the store says %v; want ErrDamaged", err)
	}
}

// TestFlippedBitInAKey flips a bit of each byte of a block's key, where it lies in
// its page. The blocks around it are whole, also when its turn to be evicted comes.
func TestFlippedBitInAKey(t *testing.T) {
	path := tempFile(t)
	db := OpenForTest(t, path, Options{})
	for seq := range 20 {
		mustAppend(t, db.Log("stream"), fmt.Sprint(seq+1))
	}
	CloseForTest(t, db)
	content := readClosed(t, path)
	key := blockKey(nil, "stream", 7)
	for i := range key {
		t.Run(fmt.Sprint("byte ", i), func(t *testing.T) {
			flipped := bytes.Clone(key)
			flipped[i] ^= 2
			path := writeTemp(t, bytes.ReplaceAll(content, key, flipped))
			db := openUnchecked(t, path, Options{})
			var read []string
			last := uint64(0)
			for last < 20 {
				_, err := db.Log("stream").Read(t.Context(), last, func(e Event) bool {
					read = append(read, string(e.Data))
					last = e.Seq
					return true
				})
				var c *CorruptError
				if errors.As(err, &c) && c.Last >= c.First {
					read = append(read, fmt.Sprintf("(%d-%d)", c.First, c.Last))
					last = c.Last
				} else if err != nil {
					t.Fatal(err)
				}
			}
			const want = "1 2 3 4 5 6 (7-7) 8 9 10 11 12 13 14 15 16 17 18 19 20"
			if got := strings.Join(read, " "); got != want {
				t.Errorf("read %s; want %s", got, want)
			}
			must(t, db.Close())

			db = openUnchecked(t, path, Options{Retention: Retention{Events: 10}})
			if b := mustBounds(t, db.Log("stream")); b.First != 11 || b.Last != 20 {
				t.Errorf("with ten events retained: %+v; want 11 to 20", b)
			}
			must(t, db.Close())
		})
	}
}

// openUnchecked opens a file that bbolt's check would find damaged.
func openUnchecked(t *testing.T, path string, o Options) *DB {
	t.Helper()
	db, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// TestDamagedPages has a child process use files in whose pages a bit is flipped:
// it may refuse to, but must not crash.
func TestDamagedPages(t *testing.T) {
	executable, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), executable, "-test.run=^TestDamagedPagesChild$")
	cmd.Env = append(os.Environ(), "LASTEVENT_TEST_DAMAGE=yes", "GORACE=atexit_sleep_ms=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %.2000s", err, out)
	}
}

func TestDamagedPagesChild(t *testing.T) {
	if os.Getenv("LASTEVENT_TEST_DAMAGE") == "" {
		t.Skip("runs as the child of another test")
	}
	path := tempFile(t)
	db := OpenForTest(t, path, Options{})
	for seq := range 20 {
		mustAppend(t, db.Log("s"), fmt.Sprint(seq+1))
	}
	CloseForTest(t, db)
	var leaves []int
	look(t, path, func(tx *bolt.Tx) error {
		for id := 2; ; id++ {
			p, err := tx.Page(id)
			if p == nil || err != nil {
				return err
			}
			if p.Type == "leaf" {
				leaves = append(leaves, id)
			}
		}
	})
	content := readClosed(t, path)
	const headSize, elementSize = 16, 16
	for _, id := range leaves {
		for i := range headSize + elementSize {
			for _, bit := range []byte{1, 1 << 6} {
				damaged := bytes.Clone(content)
				damaged[id*pageSize+i] ^= bit
				for _, err := range useDamaged(t, writeTemp(t, damaged)) {
					t.Errorf("page %d, byte %d, bit %d: %v", id, i, bit, err)
				}
			}
		}
	}
}

// useDamaged uses a file as well as it can, and returns what should not be read.
func useDamaged(t *testing.T, path string) (wrong []error) {
	db, err := Open(path, Options{Retention: Retention{Events: 15}})
	if err != nil {
		return nil
	}
	defer db.Close()
	l := db.Log("s")
	for range 2 {
		_, _ = l.Read(t.Context(), 0, func(e Event) bool {
			if string(e.Data) != fmt.Sprint(e.Seq) {
				wrong = append(wrong, fmt.Errorf("event %d is %q", e.Seq, e.Data))
			}
			return true
		})
		if b, err := l.Bounds(t.Context()); err == nil {
			_, _ = l.Append(t.Context(), batch(fmt.Sprint(b.Last+1)))
		}
	}
	return wrong
}
