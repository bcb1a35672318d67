//go:build unix

package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lastevent/cmd/lastevent/servetest"
	"lastevent/store"
	"lastevent/store/jetstream"
)

// copied are streams as they may be in a file, with keys.
func copied(t *testing.T, s *servetest.Server) (names []string) {
	key := func(k string) []string { return []string{"Idempotency-Key", k} }
	s.MustPost("/sse/x", "event 1", key("evicted")...)
	s.MustPublish("x", 5, servetest.Numbered(5)[1:]...)
	s.MustPost("/sse/x", "event 6", key("kept")...)
	batch := servetest.Lines(servetest.Event{Type: "a", Data: "1\n2"}, servetest.Event{Type: "b"}, servetest.Event{Type: "message", Data: "3"})
	s.MustPost("/sse/batch", batch, "Content-Type", "application/x-ndjson", "Idempotency-Key", "batch")
	s.MustPublish("large", 1, strings.Repeat("large ", 100_000))
	s.MustPublish("closed", 2, "1", "2")
	s.MustPost("/sse/closed?close=true", "", key("closing")...)
	s.MustPost("/sse/closed/empty?close=true", "")
	for _, name := range []string{"deleted", "deleted.closed~"} {
		s.MustPublish(name, 3, "1", "2", "3")
		if a := s.Do("DELETE", "/sse/"+name, ""); a.Status != 204 {
			t.Fatalf("delete: %d %s", a.Status, a.Body)
		}
	}
	s.MustPost("/sse/deleted.closed~?close=true", "")
	return []string{"x", "batch", "large", "closed", "closed/empty", "deleted", "deleted.closed~", "never"}
}

// contents is all that a server tells of the streams.
func contents(s *servetest.Server, names []string) map[string]string {
	all := map[string]string{"the list": s.Do("GET", "/sse", "").Body}
	for _, name := range names {
		a := s.Do("GET", "/sse/"+name+"?follow=false", "")
		all[name] = a.Body
		for _, header := range []string{"Stream-First-Id", "Stream-Last-Id", "Stream-Log", "Stream-Closed"} {
			all[name] += header + ": " + a.Header.Get(header) + "\n"
		}
	}
	return all
}

// What a server with --store tells after a copy is what the one with the file told, and
// clients and publishers go on as if nothing had been.
func TestCopy(t *testing.T) {
	t.Parallel()
	from := servetest.Start(t, "--retain-events", "5")
	names := copied(t, from)
	want := contents(from, names)
	client := newFrontsClient(t)
	client.After = 2
	client.resume(from, 4)
	from.Stop()
	before := fileBytes(t, from.DB)
	url := newJetStream(t)
	for _, now := range []string{"11 events", "0 events"} { // a second time there is nothing to do
		out := servetest.Output(t, "copy", "--db", from.DB, "--to", url)
		if !strings.Contains(out, from.DB+": 7 streams of log ") || !strings.Contains(out, "stream events at nats://127.0.0.1:") || !strings.Contains(out, now) {
			t.Errorf("copied: %s; want %s", out, now)
		}
	}
	if fileBytes(t, from.DB) != before {
		t.Error("the file was changed")
	}

	to := servetest.Start(t, "--store", url, "--retain-events", "5")
	for name, got := range contents(to, names) {
		if got != want[name] {
			t.Errorf("%s: %.2000s; want %.2000s", name, got, want[name])
		}
	}
	client.resume(to, 6)
	for _, test := range []struct {
		path, key, body string
		id              uint64
		replayed        bool
	}{
		{"x", "kept", "event 6", 6, true},
		{"x", "evicted", "event 1", 7, false},
		{"closed?close=true", "closing", "", 2, true},
	} {
		if r := to.MustPost("/sse/"+test.path, test.body, "Idempotency-Key", test.key); r.ID != test.id || r.Replayed != test.replayed {
			t.Errorf("%s with the key %s: %+v", test.path, test.key, r)
		}
	}
	to.MustPublish("deleted", 4, "4")
	to.CheckProblem(to.Do("POST", "/sse/deleted.closed~", "4"), 409)

	status, stderr := servetest.Run(t, t.TempDir(), nil, "copy", "--db", from.DB, "--to", url)
	if status != 1 || !strings.Contains(stderr, `4 to 4 of "deleted", and the file 4 to 3`) || !strings.Contains(stderr, "`nats stream rm events`") {
		t.Errorf("onto what was written since: status %d: %s", status, stderr)
	}
}

// What is not to be copied is refused in a line that says what to do.
func TestCopyRefuses(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t)
	s.MustPublish("x", 3, "event 1", "event 2", "event 3")
	dir, url := t.TempDir(), newJetStream(t)
	refused := func(db, url string, words ...string) {
		t.Helper()
		status, stderr := servetest.Run(t, dir, nil, "copy", "--db", db, "--to", url)
		for _, w := range words {
			if status != 1 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, w) {
				t.Errorf("status %d: %s; want 1 and a line with %q", status, stderr, w)
			}
		}
	}
	refused(s.DB, url, s.DB, "stop the server")
	backup := filepath.Join(dir, "backup.db")
	servetest.Output(t, "backup", "--url", s.URL, backup)
	refused(backup, url, backup, "copy the server's own file")
	refused(filepath.Join(dir, "missing.db"), url, "missing.db")
	log := s.LogID()
	s.Stop()
	damaged := filepath.Join(dir, "damaged.db")
	if err := os.WriteFile(damaged, []byte(strings.ReplaceAll(fileBytes(t, s.DB), "event 2", "event 9")), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(damaged, url, damaged, "is damaged")

	open := func(url, id string) *jetstream.DB {
		t.Helper()
		db, err := jetstream.Open(t.Context(), url, jetstream.Options{LogID: id})
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	other := strings.Replace(url, "/events", "/other", 1)
	if err := open(other, "").Close(); err != nil {
		t.Error(err)
	}
	refused(s.DB, other, "stream other is log", "the file log "+log)

	for name, words := range map[string]string{"x": `has events 1 to 1 of "x", and the file 1 to 3`, "y": `holds "y"`} {
		url := strings.Replace(url, "/events", "/"+name, 1)
		db := open(url, log)
		if _, err := db.Log(name).Append(t.Context(), store.Batch{Events: []store.Event{{Type: "message"}}}); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		refused(s.DB, url, words, "`nats stream rm "+name+"`")
	}
}
