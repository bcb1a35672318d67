package store

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A file that is opened for reading only stays as it is, whatever is to be evicted.
func TestReadOnly(t *testing.T) {
	path := tempFile(t)
	db := OpenForTest(t, path, Options{})
	mustAppend(t, db.Log("s"), "1", "2", "3")
	backup, _ := backUp(t, db)
	CloseForTest(t, db)
	must(t, os.WriteFile(path+".7.new", nil, 0o600)) // as a crash leaves it
	before, err := os.ReadFile(path)
	must(t, err)
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	must(t, os.Chtimes(path, old, old))

	db = OpenForTest(t, path, Options{ReadOnly: true, Retention: Retention{Events: 1}})
	if got := strings.Join(mustRead(t, db.Log("s"), 0), ", "); got != "1 1, 2 2, 3 3" || db.StreamCount() != 1 {
		t.Errorf("it holds %s, of %d streams", got, db.StreamCount())
	}
	if _, err := db.Log("s").Append(t.Context(), batch("4")); err == nil || db.Err() == nil {
		t.Errorf("append: %v; the next one: %v", err, db.Err())
	}
	if err := db.Log("s").Delete(t.Context()); err == nil {
		t.Error("the events were deleted")
	}
	if other, err := Open(path, Options{}); !errors.Is(err, ErrLocked) {
		t.Errorf("opened to write beside it: %v, %v", other, err)
	}
	CloseForTest(t, db)
	after, err := os.ReadFile(path)
	must(t, err)
	info, err := os.Stat(path)
	must(t, err)
	if !bytes.Equal(before, after) || !info.ModTime().Equal(old) {
		t.Error("the file was changed")
	}
	wantOnly(t, filepath.Dir(path), filepath.Base(path), filepath.Base(path)+".7.new")

	if _, err := Open(backup, Options{ReadOnly: true}); !errors.Is(err, errIsBackup) {
		t.Errorf("a backup: %v", err)
	}
	if _, err := Open(path+".missing", Options{ReadOnly: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}
