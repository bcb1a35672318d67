package main_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lastevent/cmd/lastevent/servetest"
)

// A file that cannot be had is refused in words that say what to do, and nothing is
// created beside it.
func TestFileThatCannotBeHad(t *testing.T) {
	t.Parallel()
	const nobody = 65534
	const words = "permission denied; user 65534 must be able to read and write it, and its folder"
	dir, err := os.MkdirTemp("", "lastevent-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "x.db")
	s := servetest.Start(t, "--db", path)
	s.MustPublish("x", 1, "one")
	s.Stop()
	for _, test := range []struct {
		name, file   string
		mode, folder os.FileMode
		user         uint32
		says         string
	}{
		{"another user's file", "x.db", 0o600, 0o777, nobody, "x.db cannot be opened: " + words},
		{"a file that may only be read", "x.db", 0o644, 0o777, nobody, "x.db cannot be opened: " + words},
		{"another user's folder", "new.db", 0o666, 0o755, nobody, "new.db cannot be created: " + words},
		{"a folder that may not be entered", "x.db", 0o666, 0o700, nobody, "x.db cannot be opened: " + words},
		{"no folder", "missing/x.db", 0o600, 0o700, 0, "x.db cannot be created: no such file or directory; the folder " + dir + "/missing must be there"},
		{"a file for a folder", "x.db/x.db", 0o600, 0o700, 0, "x.db cannot be opened: not a directory"},
	} {
		if err := errors.Join(os.Chmod(path, test.mode), os.Chmod(dir, test.folder)); err != nil {
			t.Fatal(err)
		}
		checkSays(t, test.name, test.user, dir, filepath.Join(dir, test.file), test.says)
	}
}

// The same of a file system that cannot be written.
func TestFileOnAReadOnlyDisk(t *testing.T) {
	t.Parallel()
	const words = "read-only file system; it must be where events can be written"
	dir := t.TempDir()
	s := servetest.Start(t, "--db", filepath.Join(dir, "x.db"))
	s.Stop()
	servetest.ReadOnly(t, dir)
	checkSays(t, "a file", 0, dir, filepath.Join(dir, "x.db"), "x.db cannot be opened: "+words)
	checkSays(t, "no file", 0, dir, filepath.Join(dir, "new.db"), "new.db cannot be created: "+words)
}

// checkSays checks that the user is refused a file in these words, and that x.db is
// then alone in the folder, and as it was.
func checkSays(t *testing.T, name string, user uint32, dir, db, says string) {
	t.Helper()
	whole := fileBytes(t, filepath.Join(dir, "x.db"))
	status, stderr := servetest.RunAs(t, user, "/", "--listen", "127.0.0.1:0", "--db", db)
	if status != 1 || !strings.Contains(stderr, says) || strings.Count(stderr, db) != 1 {
		t.Errorf("%s: status %d, %q; want 1 and, the path once, %q", name, status, stderr, says)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 || fileBytes(t, filepath.Join(dir, "x.db")) != whole {
		t.Errorf("%s: there is now %v, %v; or the file was changed", name, files, err)
	}
}
