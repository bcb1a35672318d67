package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// OpenForTest opens the file. When the test ends it is closed and checked.
func OpenForTest(t testing.TB, path string, o Options) *DB {
	t.Helper()
	db, err := Open(path, o)
	must(t, err)
	t.Cleanup(func() { CloseForTest(t, db) })
	return db
}

// CloseForTest closes the DB and checks its file, unless it has stopped already.
func CloseForTest(t testing.TB, db *DB) {
	t.Helper()
	stopped := errors.Is(db.Err(), ErrStopped)
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if !stopped {
		checkClosed(t, db.path)
	}
}

// checkClosed has bbolt check a file that nobody has open.
func checkClosed(t testing.TB, path string) {
	t.Helper()
	look(t, path, func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			t.Error(err)
		}
		return nil
	})
}

// look reads a file that nobody has open.
func look(t testing.TB, path string, fn func(tx *bolt.Tx) error) {
	t.Helper()
	b, err := bolt.Open(path, 0, &bolt.Options{ReadOnly: true, PreLoadFreelist: true, Timeout: time.Second})
	must(t, err)
	must(t, errors.Join(b.View(fn), b.Close()))
}

// edit changes a file that nobody has open.
func edit(t testing.TB, path string, fn func(tx *bolt.Tx) error) {
	t.Helper()
	b, err := bolt.Open(path, 0, &bolt.Options{Timeout: time.Second})
	must(t, err)
	must(t, errors.Join(b.Update(fn), b.Close()))
}

// readClosed returns the pages of a file that nobody has open.
func readClosed(t testing.TB, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	must(t, err)
	look(t, path, func(tx *bolt.Tx) error {
		content = content[:tx.Size()]
		return nil
	})
	return content
}

// storedEvents returns what is physically in the file, which may be open: each
// stream's events, retained or not.
func storedEvents(t testing.TB, path string) map[string][]Event {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	events := map[string][]Event{}
	look(t, writeTemp(t, data), func(tx *bolt.Tx) error {
		return tx.Bucket(eventsBucket).ForEach(func(k, v []byte) error {
			block, err := parseBlock(k, v)
			for d := block.events(); d.more(); {
				e := d.event
				e.Data = bytes.Clone(e.Data)
				name := streamOf(k)
				events[name] = append(events[name], e)
			}
			return err
		})
	})
	return events
}

// streamOf returns the name in the key of a block.
func streamOf(key []byte) string { return string(key[:len(key)-9]) }

func mustAppend(t testing.TB, l *Log, data ...string) Receipt {
	t.Helper()
	r, err := l.Append(t.Context(), batch(data...))
	must(t, err)
	return r
}

func batch(data ...string) (b Batch) {
	for _, d := range data {
		b.Events = append(b.Events, Event{Type: "message", Data: []byte(d)})
	}
	return b
}

func mustBounds(t testing.TB, l *Log) Bounds {
	t.Helper()
	b, err := l.Bounds(t.Context())
	must(t, err)
	return b
}

// mustRead returns all that is retained after the sequence, as "sequence data".
func mustRead(t testing.TB, l *Log, after uint64) (events []string) {
	t.Helper()
	_, err := l.Read(t.Context(), after, func(e Event) bool {
		events = append(events, fmt.Sprint(e.Seq, " ", string(e.Data)))
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// writeTemp makes a file of the content, of which the zeros at the end take no space.
func writeTemp(t testing.TB, content []byte) (path string) {
	t.Helper()
	path = tempFile(t)
	used := len(content)
	for used >= pageSize && bytes.Equal(content[used-pageSize:used], make([]byte, pageSize)) {
		used -= pageSize
	}
	must(t, os.WriteFile(path, content[:used], 0o600))
	must(t, os.Truncate(path, int64(len(content))))
	return path
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func tempFile(t testing.TB) string { return filepath.Join(t.TempDir(), "store.db") }

// memoryDir is a folder in memory, if there can be one: a sync need not wait for a disk
// that is not under test.
func memoryDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "lastevent")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// rounds is how often a test does what it repeats.
func rounds(inShort, inLong int) int {
	if long {
		return inLong
	}
	return inShort
}
