//go:build unix

package main_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lastevent/cmd/lastevent/servetest"
)

// payloads are data that SSE or JSON could mangle.
var payloads = []string{
	"", " ", "\n", "\n\n", "\r", "\r\n", "a\n", "\na", "a\nb\nc", "a\r\nb\r\nc", "a\rb\rc", "a\n\rb", "mixed\r\n\n\rends\r",
	" leading", "  two leading", "\ttab", "trailing ", ": a comment", "a: b", "data: a", "id: 7", "event: end\ndata: {}\n\nid: 9",
	"retry: 1", "\ufeffBOM first", "\ufeff", "NUL \x00 inside", "\x00", "😀 👩‍👩‍👧 é e\u0301", "\u2028\u2029\u0085", "<&>", `"quoted" \ back`, "\x1b\x7f",
	"{\"id\":1}", "\ufffd", "[DONE]",
}

func TestPayloadsComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t)
	live, err := servetest.Subscribe(s.Ctx, s.HTTP, s.URL+"/sse/p", "")
	if err != nil {
		t.Fatal(err)
	}
	defer live.Drop()
	var events []servetest.Event
	for _, data := range payloads {
		events = append(events, servetest.Event{Type: "message", Data: data})
	}
	s.MustPublish("p", uint64(len(payloads)), payloads...)
	s.MustPost("/sse/p", servetest.Lines(events...), "Content-Type", "application/x-ndjson")

	all := slices.Concat(payloads, payloads)
	var wire strings.Builder
	for i, data := range all {
		fmt.Fprintf(&wire, "id: %d\n", i+1)
		for line := range strings.SplitSeq(withLF(data), "\n") {
			wire.WriteString("data: " + line + "\n")
		}
		wire.WriteString("\n")
	}
	check := func(when string) {
		t.Helper()
		a := s.Do("GET", fmt.Sprintf("/sse/p?from=earliest&limit=%d", len(all)), "")
		_, got, _ := strings.Cut(a.Body, "\n\n") // behind the position
		if diff := cmp.Diff(wire.String(), got); diff != "" {
			t.Errorf("%s: SSE (-want +got):\n%s", when, diff)
		}
		if diff := cmp.Diff(all, readLines(t, s, "/sse/p?follow=false")); diff != "" {
			t.Errorf("%s: NDJSON (-want +got):\n%s", when, diff)
		}
	}
	check("at first")
	if m, err := live.Next(); err != nil || m.Type != "position" {
		t.Fatal(m, err)
	}
	for i, data := range all {
		if m, err := live.Next(); err != nil || m.Data != withLF(data) || m.ID != fmt.Sprint(i+1) || m.Type != "message" {
			t.Fatalf("live: %+v, %v; want %q", m, err, data)
		}
	}
	s.Kill()
	s.Restart()
	check("after a kill")
}

// withLF is data as clients of SSE get it.
func withLF(data string) string {
	return strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(data)
}

// readLines returns the data that a read by NDJSON gives.
func readLines(t *testing.T, s *servetest.Server, target string) (data []string) {
	t.Helper()
	a := s.Do("GET", target, "")
	for lines := json.NewDecoder(strings.NewReader(a.Body)); lines.More(); {
		var line struct{ Data string }
		if err := lines.Decode(&line); err != nil {
			t.Fatal(err)
		}
		data = append(data, line.Data)
	}
	return data
}

// An event of just the largest size passes everywhere, and one byte more nowhere.
func TestLargestEvent(t *testing.T) {
	t.Parallel()
	const largest = 1 << 20
	s := servetest.Start(t)
	events := []servetest.Event{
		{Type: "message", Data: "x"},
		{Type: strings.Repeat("t", 255), Data: `"`},
		{Type: "message", Data: "\n"}, // seven times that on the wire of SSE
		{Type: "message", Data: "x"},
		{Type: "message", Data: "\x00"}, // six times that in JSON
	}
	for i, e := range events {
		events[i].Data = strings.Repeat(e.Data, largest-len(e.Type))
	}
	seen := servetest.NewLedger()
	live := &servetest.Follower{Client: s.HTTP, URL: s.URL + "/sse/large", Seen: seen, Began: true}
	sub, err := live.Subscribe(s.Ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Drop()
	const small = `{"data":"small"}` + "\n"
	for i, e := range events {
		more := servetest.Event{Type: e.Type, Data: e.Data + "x"}
		target := "/sse/large?event=" + e.Type
		r := servetest.Receipt{}
		if i%2 == 0 {
			s.CheckProblem(s.Do("POST", target, more.Data), http.StatusRequestEntityTooLarge)
			r = s.MustPost(target, e.Data)
		} else {
			batch := s.Do("POST", target, small+servetest.Lines(more), "Content-Type", "application/x-ndjson")
			s.CheckProblem(batch, http.StatusRequestEntityTooLarge)
			r = s.MustPost(target, servetest.Lines(e), "Content-Type", "application/x-ndjson")
		}
		want := servetest.Receipt{ID: uint64(i + 1), Count: 1}
		if err := errors.Join(seen.Acknowledge(r.ID, e), live.Read(sub, live.UpTo(want.ID))); r != want || err != nil {
			t.Fatalf("%.20q: %+v, %v", e, r, err)
		}
	}
	replay := func() {
		t.Helper()
		f := servetest.Follower{Client: s.HTTP, URL: live.URL, Seen: seen, Began: true}
		if err := f.Follow(s.Ctx, f.UpTo(uint64(len(events)))); err != nil {
			t.Error(err)
		}
	}
	replay()
	s.Kill()
	s.Restart()
	replay()
	lines := readLines(t, s, "/sse/large?follow=false")
	if !slices.EqualFunc(lines, events, func(line string, e servetest.Event) bool { return line == e.Data }) {
		t.Error("NDJSON has other data")
	}
}
