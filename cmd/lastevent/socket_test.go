//go:build unix

package main_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lastevent/cmd/lastevent/servetest"
)

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	s := servetest.StartUnix(t)
	path := socketOf(t, s, 0o660)
	s.MustPublish("x", 3, servetest.Numbered(3)...)
	f := &servetest.Follower{Client: s.HTTP, URL: s.URL + "/sse/x", Began: true}
	if err := f.Follow(s.Ctx, f.UpTo(3)); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is there after the server: %v", err)
	}
	s.Restart()
	s.MustPublish("x", 6, servetest.Numbered(3)...)
	if err := f.Follow(s.Ctx, f.UpTo(6)); err != nil || f.Events != 6 {
		t.Errorf("%d events, %v", f.Events, err)
	}
}

// socketOf is the path of the server's socket, which has the mode.
func socketOf(t *testing.T, s *servetest.Server, mode fs.FileMode) string {
	t.Helper()
	path := strings.TrimPrefix(s.Addr, "unix:")
	info, err := os.Stat(path)
	if err != nil || info.Mode() != fs.ModeSocket|mode {
		t.Fatalf("%v, %v; want a socket of mode %v", info, err, mode)
	}
	return path
}

func TestUnixSocketMode(t *testing.T) {
	t.Parallel()
	socketOf(t, servetest.StartUnix(t, "--socket-mode", "0606"), 0o606)
}

func TestUnixSocketWithCurl(t *testing.T) {
	t.Parallel()
	s := servetest.StartUnix(t)
	s.MustPublish("x", 1, "one")
	path := strings.TrimPrefix(s.Addr, "unix:")
	out, err := servetest.Curl(s.Ctx, t, "--unix-socket", path, "http://any.name/sse/x?from=earliest&limit=1").CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "id: 1\ndata: one\n\n") {
		t.Errorf("%v: %q", err, out)
	}
}

// The socket of a server that was killed is replaced.
func TestUnixSocketOfTheDead(t *testing.T) {
	t.Parallel()
	s := servetest.StartUnix(t)
	s.MustPublish("x", 1, "one")
	s.Kill()
	socketOf(t, s, 0o660)
	s.Restart()
	s.MustPublish("x", 2, "two")
}

// What is not a dead server's stays as it is.
func TestUnixSocketOfAnother(t *testing.T) {
	t.Parallel()
	s := servetest.StartUnix(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{
		strings.TrimPrefix(s.Addr, "unix:"):     "another process listens there",
		file:                                    "no socket",
		filepath.Join(dir, "missing", "x.sock"): "no such file or directory",
		filepath.Join(dir, "file", "x.sock"):    "not a directory",
	} {
		status, stderr := servetest.Run(t, dir, nil, "--listen", "unix:"+path)
		if status != 1 || !strings.Contains(stderr, says) || !strings.Contains(stderr, "--listen unix:"+path) {
			t.Errorf("%s: status %d, %q; want 1 and %q", path, status, stderr, says)
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 || fileBytes(t, file) != "text" {
		t.Errorf("there is now %v, %v", files, err)
	}
	s.MustPublish("x", 1, "one")
}
