//go:build unix

package main_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"lastevent/cmd/lastevent/servetest"
)

func TestLockedFileIsRefused(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t)
	s.MustPublish("x", 1, "one")
	before := time.Now()
	status, stderr := servetest.Run(t, t.TempDir(), nil, "--listen", "127.0.0.1:0", "--db", s.DB)
	// The promise is 2 s; the rest is for a machine that is busy.
	if took := time.Since(before); status != 1 || !strings.Contains(stderr, s.DB) || took > 4*time.Second {
		t.Errorf("status %d after %v: %q", status, took, stderr)
	}
	s.MustPublish("x", 2, "two")
}

func TestFilesThatAreNotOursStayAsTheyAre(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t)
	for range 20 { // enough for branch pages
		s.MustPost("/sse/x", strings.Repeat("text ", 380))
	}
	s.Stop()
	whole := fileBytes(t, s.DB)
	for name, content := range map[string]string{
		"empty":           "",
		"text":            strings.Repeat("This is not a database.\n", 1000),
		"other bbolt":     otherBolt(t, 4096),
		"cut in a meta":   whole[:100],
		"cut to a meta":   whole[:4096],
		"cut to metas":    whole[:2*4096],
		"cut in a page":   whole[:3*4096+1000],
		"cut and padded":  whole[:2*4096] + strings.Repeat("\x00", len(whole)-2*4096),
		"text in a page":  whole[:2*4096] + strings.Repeat("text", (len(whole)-2*4096)/4),
		"metas are zeros": strings.Repeat("\x00", 2*4096) + whole[2*4096:],
		"a looping page":  patched(whole, 0x01, func(page []byte) { copy(page[16+8:], page[:8]) }),
		"huge counts":     patched(whole, 0x01, func(page []byte) { page[10], page[11] = 0xFF, 0xFF }),
		"a bad free list": patched(whole, 0x10, func(page []byte) { page[10], page[11] = 0xFE, 0xFF }),
		"larger pages":    otherBolt(t, 16384),
	} {
		path := filepath.Join(t.TempDir(), "file.db")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(-time.Hour).Truncate(time.Second)
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
		checkRefused(t, name, path)
		if fileBytes(t, path) != content || !modified(t, path).Equal(old) {
			t.Errorf("%s: the file was changed", name)
		}
		if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
			t.Errorf("%s: beside the file are %v, %v", name, files, err)
		}
	}
	checkRefused(t, "a folder", t.TempDir())
	checkRefused(t, "no folder", filepath.Join(t.TempDir(), "missing", "x.db"))
	checkRefused(t, "a device", os.DevNull)

	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	checkRefused(t, "a pipe", pipe)
	for name, target := range map[string]string{"loop": "loop", "to nothing": "missing", "to a folder": ".", "to a pipe": "pipe"} {
		link := filepath.Join(dir, name)
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		checkRefused(t, "a link "+name, link)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 5 {
		t.Errorf("beside the links are %v, %v", files, err)
	}
}

// patched is a file in which each page of a kind, also those that are free, is changed.
func patched(whole string, kind byte, change func(page []byte)) string {
	b := []byte(whole)
	for at := 2 * 4096; at+4096 <= len(b); at += 4096 {
		if b[at+8] == kind && b[at+9] == 0 && b[at] != 0 {
			change(b[at : at+4096])
		}
	}
	return string(b)
}

// A link to a log is as good as the log.
func TestLinkToALog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	link := filepath.Join(dir, "link.db")
	s := servetest.Start(t, "--db", filepath.Join(dir, "x.db"))
	s.MustPublish("x", 1, "one")
	s.Stop()
	if err := os.Symlink("x.db", link); err != nil {
		t.Fatal(err)
	}
	s = servetest.Start(t, "--db", link)
	s.MustPublish("x", 2, "two")
	s.Stop()
	s = servetest.Start(t, "--db", filepath.Join(dir, "x.db"))
	s.MustPublish("x", 3, "three")
}

func checkRefused(t *testing.T, name, path string) {
	t.Helper()
	status, stderr := servetest.Run(t, t.TempDir(), nil, "--listen", "127.0.0.1:0", "--time-every", "0", "--db", path)
	if status != 1 || !strings.Contains(stderr, path) || strings.Count(stderr, "\n") != 1 {
		t.Errorf("%s: status %d, %.2000q; want 1 and a line that names %s", name, status, stderr, path)
	}
}

// otherBolt is the content of another program's bbolt file.
func otherBolt(t *testing.T, pageSize int) string {
	path := filepath.Join(t.TempDir(), "other.db")
	db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: pageSize})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("recipes"))
		if err != nil {
			return err
		}
		return b.Put([]byte("soup"), []byte("water"))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return fileBytes(t, path)
}

func TestSubscribingWritesNothing(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t)
	before := fileBytes(t, s.DB)
	position := fmt.Sprintf(`{"log":%q,"first":1,"last":0}`, s.LogID())
	var subs []*servetest.Subscription
	for _, test := range []struct{ id, gap string }{
		{"", ""},
		{"0", ""},
		{"7", `{"reason":"ahead","lastEventId":"7","first":1,"last":0,"missed":null}`},
	} {
		sub, err := servetest.Subscribe(s.Ctx, s.HTTP, s.URL+"/sse/never/written", test.id)
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Drop()
		subs = append(subs, sub)
		m, err := sub.Next()
		if test.gap != "" {
			if err != nil || m.Type != "gap" || m.Data != test.gap {
				t.Errorf("Last-Event-ID %q begins with %+v, %v", test.id, m, err)
			}
			m, err = sub.Next()
		}
		if err != nil || m.Type != "position" || m.ID != "0" || m.Data != position {
			t.Errorf("Last-Event-ID %q: position %+v, %v", test.id, m, err)
		}
	}
	if first, last := s.Bounds("never/written"); first != 1 || last != 0 {
		t.Errorf("first %d, last %d", first, last)
	}
	if fileBytes(t, s.DB) != before {
		t.Error("subscribing changed the file")
	}
	s.MustPublish("never/written", 1, "now")
	for _, sub := range subs {
		if m, err := sub.Next(); err != nil || m.Type != "message" || m.ID != "1" || m.Data != "now" {
			t.Errorf("the first event: %+v, %v", m, err)
		}
	}
}

func fileBytes(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
