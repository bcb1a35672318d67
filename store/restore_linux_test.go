package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

const restorePath = "LASTEVENT_TEST_RESTORE"

// TestRestorePowerCut cuts the power, and so also kills the process, at any moment while
// a backup is restored: the next start restores it, or finds it restored.
func TestRestorePowerCut(t *testing.T) {
	needStrace(t)
	path, dir := tempFile(t), t.TempDir()
	want := variedFile(t, path, true)
	db := OpenForTest(t, path, Options{Retention: Retention{Events: 40}})
	copied, _ := backUp(t, db)
	must(t, os.Rename(copied, filepath.Join(dir, runFile)))
	calls := record(t, "TestRestoreChild", dir, filepath.Join(t.TempDir(), "ledger"), []string{restorePath + "=" + filepath.Join(dir, runFile)})
	rnd := rand.New(rand.NewPCG(1, 1))
	image := filepath.Join(memoryDir(t), "image")
	before := 0 // images of the backup
	for range rounds(100, 3000) {
		cut := 4 + rnd.IntN(len(calls)-3) // behind what was there before
		d := newDisk()
		for _, c := range calls[:cut] {
			d.apply(c)
		}
		must(t, os.Mkdir(image, 0o700))
		must(t, d.leave(image, newCut(rnd)))
		restored, err := wantRestored(filepath.Join(image, runFile), db.ID(), want, t)
		if err != nil {
			t.Fatalf("before call %d of %d: %v", cut, len(calls), err)
		}
		if restored {
			before++
		}
		must(t, os.RemoveAll(image))
	}
	t.Logf("%d times the backup was there", before)
	if before == 0 || before == rounds(100, 3000) {
		t.Error("the cuts are not on both sides")
	}
}

// wantRestored opens what a cut has left. It reports whether that was the backup.
func wantRestored(path, log string, want map[string]stored, t *testing.T) (restored bool, err error) {
	db, err := Open(path, Options{Retention: Retention{Events: 40}})
	if err != nil {
		return false, err
	}
	switch of := db.BackupOf(); {
	case of != "" && of != log:
		err = fmt.Errorf("a backup of %s; want of %s", of, log)
	case db.ID() == log:
		err = errors.New("the log is the old one")
	default:
		err = compareRepaired(want, contents(t, db), log, CorruptError{})
	}
	return db.BackupOf() != "", errors.Join(err, db.Close(), checkStructure(path), checkFolder(filepath.Dir(path)))
}

func TestRestoreChild(t *testing.T) {
	path := os.Getenv(restorePath)
	if path == "" {
		t.Skip("runs as the child of another test")
	}
	db, err := Open(path, Options{Retention: Retention{Events: 40}})
	must(t, err)
	must(t, db.Close())
}
