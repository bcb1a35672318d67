//go:build unix

package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lastevent/cmd/lastevent/servetest"
)

// What streams are and what keys stand for outlives the process, however it ends.
func TestStateSurvivesKillAndStop(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t)
	s.MustPublish("open", 3, servetest.Numbered(3)...)
	s.MustPublish("closed", 2, servetest.Numbered(2)...)
	s.MustPublish("bare", 1, "only")
	for _, name := range []string{"deleted", "deleted/closed", "regrown"} {
		s.MustPublish(name, 3, servetest.Numbered(3)...)
	}
	s.MustPost("/sse/deleted", "brief", "Idempotency-Key", "k")
	s.MustPost("/sse/deleted/closed?close=true", "")
	keyed := []struct {
		target, typ, body string
		receipt           servetest.Receipt
	}{
		{"open", "text/plain", "keyed", servetest.Receipt{ID: 4, Count: 1}},
		{"open?event=batch", "application/x-ndjson", "{\"data\":1}\n{\"data\":2}\n{\"data\":3}\n", servetest.Receipt{ID: 7, Count: 3}},
		{"closed?close=true", "text/plain", "bye", servetest.Receipt{ID: 3, Count: 1}},
		{"bare?close=true", "text/plain", "", servetest.Receipt{ID: 1, Count: 0}},
		{"empty?close=true", "text/plain", "", servetest.Receipt{ID: 0, Count: 0}},
	}
	for _, k := range keyed {
		if r := s.MustPost("/sse/"+k.target, k.body, "Content-Type", k.typ, "Idempotency-Key", k.target); r != k.receipt {
			t.Errorf("%s: %+v, want %+v", k.target, r, k.receipt)
		}
	}
	for _, name := range []string{"deleted", "deleted/closed", "regrown"} {
		if a := s.Do("DELETE", "/sse/"+name, ""); a.Status != http.StatusNoContent {
			t.Errorf("DELETE %s: %d", name, a.Status)
		}
	}
	s.MustPublish("regrown", 4, "again")

	check := func(when string) {
		t.Helper()
		checkList(t, s, when)
		for _, k := range keyed {
			k.receipt.Replayed = true
			if r := s.MustPost("/sse/"+k.target, k.body, "Content-Type", k.typ, "Idempotency-Key", k.target); r != k.receipt {
				t.Errorf("%s: %s: %+v, want %+v", when, k.target, r, k.receipt)
			}
			other := s.Do("POST", "/sse/"+k.target, "other", "Content-Type", k.typ, "Idempotency-Key", k.target)
			s.CheckProblem(other, http.StatusUnprocessableEntity)
		}
		checkClosed(t, s, when)
	}
	check("at first")
	s.Kill()
	s.Restart()
	check("after a kill")
	s.Stop()
	s.Restart()
	check("after a stop")
	// The key went with its event; the numbers go on.
	if r := s.MustPost("/sse/deleted", "brief", "Idempotency-Key", "k"); r != (servetest.Receipt{ID: 5, Count: 1}) {
		t.Errorf("a key that was deleted: %+v", r)
	}
}

func checkList(t *testing.T, s *servetest.Server, when string) {
	t.Helper()
	type entry struct {
		Name                       string
		First, Last, Events, Bytes uint64
		Clients                    int
		Closed                     bool
	}
	var got []entry
	if a := s.Do("GET", "/sse", ""); a.Status != http.StatusOK || json.Unmarshal([]byte(a.Body), &got) != nil {
		t.Fatalf("%s: the list: %d %s", when, a.Status, a.Body)
	}
	const numbered = uint64(len("message") + len("event 1"))
	want := []entry{
		{"bare", 1, 1, 1, uint64(len("message" + "only")), 0, true},
		{"closed", 1, 3, 3, 2*numbered + uint64(len("message"+"bye")), 0, true},
		{"deleted", 5, 4, 0, 0, 0, false},
		{"deleted/closed", 4, 3, 0, 0, 0, true},
		{"empty", 1, 0, 0, 0, 0, true},
		{"open", 1, 7, 7, 3*numbered + uint64(len("message"+"keyed")) + 3*uint64(len("batch"+"1")), 0, false},
		{"regrown", 4, 4, 1, uint64(len("message" + "again")), 0, false},
	}
	slices.SortFunc(got, func(a, b entry) int { return strings.Compare(a.Name, b.Name) })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: the list (-want +got):\n%s", when, diff)
	}
}

// checkClosed checks what clients and producers find at the streams that are closed
// or deleted.
func checkClosed(t *testing.T, s *servetest.Server, when string) {
	t.Helper()
	for _, test := range []struct {
		name   string
		last   int
		closed bool
		tail   string // of a read after ID 2
	}{
		{"closed", 3, true, "\n\nid: 3\ndata: bye\n\nevent: end\ndata: {\"last\":3}\n\n"},
		{"deleted/closed", 3, true, "\nid: 3\ndata: {\"log\":\"" + s.LogID() + "\",\"first\":4,\"last\":3}\n\nevent: end\ndata: {\"last\":3}\n\n"},
		{"regrown", 4, false, "\n\nid: 4\ndata: again\n\n"},
	} {
		limit := "?limit=1"
		if test.closed {
			limit = "" // it ends by itself
		}
		a := s.Do("GET", "/sse/"+test.name+limit, "", "Last-Event-ID", "2")
		if closed := a.Header.Get("Stream-Closed") == "true"; closed != test.closed || !strings.HasSuffix(a.Body, test.tail) {
			t.Errorf("%s: %s: closed is %t, and %q", when, test.name, closed, a.Body)
		}
		if !test.closed {
			continue
		}
		if a := s.Do("GET", "/sse/"+test.name, "", "Last-Event-ID", fmt.Sprint(test.last)); a.Status != http.StatusNoContent {
			t.Errorf("%s: %s after its last ID: %d", when, test.name, a.Status)
		}
		s.CheckProblem(s.Do("POST", "/sse/"+test.name, "late"), http.StatusConflict)
		if r := s.MustPost("/sse/"+test.name+"?close=true", ""); r != (servetest.Receipt{ID: uint64(test.last)}) {
			t.Errorf("%s: %s closed again: %+v", when, test.name, r)
		}
	}
}

// A server that is killed while it commits a batch has all of it or nothing.
func TestBatchIsAtomicUnderKill(t *testing.T) {
	t.Parallel()
	const lines, rounds = 50_000, 3
	s := servetest.Start(t, "--retain-events", "0")
	wholes := 0
	for round := range rounds {
		before := uint64(round * lines)
		var body, wire strings.Builder
		for i := range lines {
			fmt.Fprintf(&body, "{\"data\":\"%d of round %d\"}\n", i, round)
			fmt.Fprintf(&wire, "id: %d\ndata: %d of round %d\n\n", before+uint64(i+1), i, round)
		}
		post := func() (servetest.Receipt, error) {
			return s.Post("/sse/batches", body.String(), "Content-Type", "application/x-ndjson", "Idempotency-Key", fmt.Sprint(round))
		}
		written, begun := modified(t, s.DB), time.Now()
		posted := make(chan error, 1)
		go func() {
			_, err := post()
			posted <- err
		}()
		for modified(t, s.DB) == written && s.Ctx.Err() == nil {
			time.Sleep(100 * time.Microsecond) // it is parsed
		}
		time.Sleep(time.Duration(round) * time.Since(begun) / 32)
		s.Kill()
		err := <-posted
		s.Restart()
		_, last := s.Bounds("batches")
		whole := last == before+lines
		if !whole && (last != before || err == nil) {
			t.Fatalf("round %d: %d events of the batch are stored; the producer has %v", round, last-before, err)
		}
		if whole {
			wholes++
		}
		r, err := post()
		if want := (servetest.Receipt{ID: before + lines, Count: lines, Replayed: whole}); err != nil || r != want {
			t.Fatalf("round %d: again: %+v, %v; want %+v", round, r, err, want)
		}
		a := s.Do("GET", fmt.Sprintf("/sse/batches?lastEventId=%d&limit=%d", before, lines), "")
		if _, last := s.Bounds("batches"); last != r.ID || !strings.HasSuffix(a.Body, "}\n\n"+wire.String()) {
			t.Fatalf("round %d: last is %d, and what is stored is not the batch", round, last)
		}
	}
	t.Logf("%d batches of %d were stored before the kill", wholes, rounds)
}

func modified(t *testing.T, path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}
