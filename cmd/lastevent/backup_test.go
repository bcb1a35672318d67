//go:build unix

package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lastevent/cmd/lastevent/servetest"
)

// TestBackupAndRestore takes a backup of a running server and starts another on it: IDs
// from before, also those given out after the backup, meet a gap and then all that there
// is, and never other events.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	const above = 1 << 32
	s := servetest.Start(t)
	s.MustPublish("x", 10, servetest.Numbered(10)...)
	s.MustPost("/sse/y", "keyed", "Idempotency-Key", "k")
	copied := filepath.Join(t.TempDir(), "copy.db")
	if status, stderr := servetest.Run(t, t.TempDir(), nil, "backup", "--url", s.URL, copied); status != 0 || stderr != "" {
		t.Fatalf("backup: status %d: %s", status, stderr)
	}
	if status, stderr := servetest.Run(t, t.TempDir(), nil, "backup", "--url", s.URL+"/", copied); status != 1 || !strings.Contains(stderr, copied+" exists") {
		t.Errorf("onto a file: status %d: %s", status, stderr)
	}
	if status, stderr := servetest.Run(t, t.TempDir(), nil, "inspect", copied); status != 0 {
		t.Errorf("inspect: status %d: %s", status, stderr)
	}
	s.MustPublish("x", 15, "11", "12", "13", "14", "15")
	s.MustPublish("later", 2, "1", "2")
	log := s.LogID()
	s.Stop()

	s = servetest.Start(t, "--db", copied)
	if s.LogID() == log {
		t.Error("the log has the old name")
	}
	for after := range uint64(17) {
		f := &servetest.Follower{Client: s.HTTP, URL: s.URL + "/sse/x", Began: true, After: after}
		if err := f.Resume(s.Ctx, above+10, func() bool { return false }); err != nil || f.Gaps != 1 || f.Events != 10 {
			t.Errorf("after %d: %d gaps, %d events, %v; want a gap and all ten", after, f.Gaps, f.Events, err)
		}
	}
	if a := s.Do("GET", "/sse/x?follow=false&log="+log, "", "Last-Event-ID", "3"); !strings.Contains(a.Body, `"reset"`) {
		t.Errorf("with the old log: %s", a.Body)
	}
	s.MustPublish("x", above+11, "restored")
	s.MustPublish("later", above+1, "another")
	if a := s.Do("GET", "/sse/later?follow=false", "", "Last-Event-ID", "1"); !strings.Contains(a.Body, `"evicted"`) || !strings.Contains(a.Body, "another") {
		t.Errorf("of a stream that was made after the backup: %s", a.Body)
	}
	if r := s.MustPost("/sse/y", "keyed", "Idempotency-Key", "k"); !r.Replayed || r.ID != above+1 {
		t.Errorf("with a key used before: %+v", r)
	}
}

func TestBackupFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, test := range []struct {
		status int
		words  string
		args   []string
	}{
		{1, "refused", []string{"--url", "http://127.0.0.1:1", "b.db"}},
		{2, "--url", []string{"--url", "localhost:8080", "b.db"}},
		{2, "arg", nil},
	} {
		status, stderr := servetest.Run(t, dir, nil, append([]string{"backup"}, test.args...)...)
		if status != test.status || !strings.Contains(stderr, test.words) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: status %d: %s", test.args, status, stderr)
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("there are %v, %v", files, err)
	}
}

func TestInspect(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t)
	for n := range uint64(20) {
		s.MustPublish("x", n+1, fmt.Sprint("event ", n+1, " ", strings.Repeat("text ", 300)))
	}
	start := time.Now()
	status, stderr := servetest.Run(t, t.TempDir(), nil, "inspect", s.DB)
	// The promise is 2 s; the rest is for a machine that is busy.
	if status != 1 || !strings.Contains(stderr, "in use") || !strings.Contains(stderr, "lastevent backup") || time.Since(start) > 4*time.Second {
		t.Errorf("of a running server: status %d after %v: %s", status, time.Since(start), stderr)
	}
	log := s.LogID()
	s.Stop()
	whole := fileBytes(t, s.DB)
	dir := t.TempDir()
	for _, test := range []struct {
		name, content string
		status        int
		words         string
	}{
		{"whole", whole, 0, ""},
		{"damaged", strings.ReplaceAll(whole, "event 7 ", "event 8 "), 1, "damaged is damaged; --repair"},
		{"cut", whole[:5*4096], 1, "--repair"},
		{"text", "This is not a database.", 1, "not a lastevent log"},
		{"empty", "", 1, "not a lastevent log"},
	} {
		path := filepath.Join(dir, test.name)
		if err := os.WriteFile(path, []byte(test.content), 0o400); err != nil {
			t.Fatal(err)
		}
		for _, flags := range [][]string{nil, {"--json"}} {
			status, stderr := servetest.Run(t, dir, nil, append([]string{"inspect", test.name}, flags...)...)
			if status != test.status || !strings.Contains(stderr, test.words) || strings.Count(stderr, "\n") != status {
				t.Errorf("%s: status %d: %s", test.name, status, stderr)
			}
		}
		if fileBytes(t, path) != test.content {
			t.Errorf("%s was changed", test.name)
		}
	}
	for _, args := range [][]string{nil, {"a", "b"}, {"--repair", "", "whole"}, {"--fix", "whole"}} {
		if status, stderr := servetest.Run(t, dir, nil, append([]string{"inspect"}, args...)...); status != 2 || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: status %d: %s", args, status, stderr)
		}
	}
	if status, stderr := servetest.Run(t, dir, nil, "inspect", "damaged", "--repair", "whole"); status != 1 || !strings.Contains(stderr, "exists") {
		t.Errorf("repaired onto a file: status %d: %s", status, stderr)
	}
	if status, stderr := servetest.Run(t, dir, nil, "inspect", "damaged", "--repair", "mended"); status != 0 || stderr != "" {
		t.Errorf("repair: status %d: %s", status, stderr)
	}

	s = servetest.Start(t, "--db", filepath.Join(dir, "mended"))
	if s.LogID() != log {
		t.Errorf("the log is %s; want %s", s.LogID(), log)
	}
	a := s.Do("GET", "/sse/x?follow=false", "", "Accept", "application/x-ndjson")
	if lines := strings.Count(a.Body, "\n"); lines != 20 || !strings.Contains(a.Body, `"reason":"corrupt"`) || strings.Contains(a.Body, "event 7") {
		t.Errorf("%d lines: %.2000s", lines, a.Body)
	}
	s.MustPublish("x", 21, "the next")
}
