package web_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"lastevent/store"
	"lastevent/stream"
	"lastevent/stream/sse"
	"lastevent/web"
)

const corruptPage = 4096

// Offsets in a page: its head, the first elements, and what they are of.
var corruptOffsets = []int{8, 24, 50, 2000}

// TestFlippedBits flips a bit, in turn, at several places of each page of a file. Either
// opening it says so, or what is served is what was published: where events are not
// whole, there is a gap that says which, and the rest goes on.
func TestFlippedBits(t *testing.T) {
	content, last := smallFile(t)
	var mu sync.Mutex // guards outcomes
	outcomes := map[string]int{}
	t.Run("pages", func(t *testing.T) {
		for page := 0; page*corruptPage < len(content); page++ {
			t.Run(fmt.Sprint(page), func(t *testing.T) {
				t.Parallel()
				for i, offset := range corruptOffsets {
					flipped := bytes.Clone(content)
					flipped[page*corruptPage+offset] ^= 1 << ((page + i) % 8)
					t.Run(fmt.Sprint("byte ", offset), func(t *testing.T) {
						outcome := serveFlipped(t, flipped, last)
						mu.Lock()
						defer mu.Unlock()
						outcomes[outcome]++
					})
				}
			})
		}
	})
	t.Log(outcomes)
	for _, outcome := range []string{"refused", "whole", "gap", "error"} {
		if outcomes[outcome] == 0 {
			t.Errorf("there was none that is %s: %v", outcome, outcomes)
		}
	}
}

// smallFile is a file with many streams, of which one has many events, so that there
// are pages of all kinds. It returns the last ID of each as well.
func smallFile(t *testing.T) (content []byte, last map[string]uint64) {
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := store.Open(path, store.Options{Retention: store.Retention{Events: 60}})
	if err != nil {
		t.Fatal(err)
	}
	last = map[string]uint64{}
	add := func(name string, n int) {
		var b store.Batch
		for range n {
			last[name]++
			b.Events = append(b.Events, corruptEvent(name, last[name]))
		}
		b.Key = fmt.Sprint(last[name])
		if _, err := db.Log(name).Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 60 {
		add(fmt.Sprintf("small/%02d", i), 1)
	}
	for range 30 {
		add("large", 3)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if content, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	used := len(content)
	for used > corruptPage && bytes.Equal(content[used-corruptPage:used], make([]byte, corruptPage)) {
		used -= corruptPage
	}
	return content[:used+corruptPage], last
}

func corruptEvent(name string, seq uint64) store.Event {
	return store.Event{Type: "message", Data: fmt.Appendf(nil, "%s %d%s", name, seq, strings.Repeat(" text", 80))}
}

// serveFlipped serves the file, reads all of it, publishes and reads all again. It
// returns what became of it.
func serveFlipped(t *testing.T, content []byte, last map[string]uint64) (outcome string) {
	path := filepath.Join(t.TempDir(), "x.db")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(path, store.Options{})
	if err != nil {
		if !errors.Is(err, store.ErrDamaged) && !errors.Is(err, store.ErrForeign) && !errors.Is(err, store.ErrVersion) || !strings.Contains(err.Error(), path) {
			t.Errorf("opening: %v", err)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, content) {
			t.Errorf("a file that is refused was changed, %v", err)
		}
		return "refused"
	}
	s := newHost(t, setup{db: db})
	outcome = "whole"
	last = maps.Clone(last)
	for range 2 {
		for _, name := range slices.Sorted(maps.Keys(last)) {
			if o := readFlipped(t, s, name, last[name]); o != "whole" && outcome != "error" {
				outcome = o
			}
		}
		for _, name := range []string{"large", "small/07"} {
			e := corruptEvent(name, last[name]+1)
			w := s.do(t, "POST", "/sse/"+name, string(e.Data))
			switch {
			case w.Code == http.StatusCreated && w.Body.String() == fmt.Sprintf("{\"id\":%d,\"count\":1}\n", last[name]+1):
				last[name]++
			case w.Code < 500:
				t.Errorf("publishing to %s after %d: %d %s", name, last[name], w.Code, w.Body)
			}
		}
	}
	return outcome
}

// TestListBesideDamaged lists the streams beside one that cannot be read, also if there
// are no others.
func TestListBesideDamaged(t *testing.T) {
	for want, streams := range map[string][]store.Stream{
		"[]\n": nil,
		`[{"name":"a","first":1,"last":2,"events":2,"bytes":0,"clients":0,"closed":false}]` + "\n": {{Name: "a", Bounds: store.Bounds{First: 1, Last: 2}}},
	} {
		var log bytes.Buffer
		s := newHost(t, setup{config: func(c *web.Config) {
			c.Log = zerolog.New(&log)
			c.Streams = stream.NewSet(func(string) stream.Log { return nil }, func(context.Context) ([]store.Stream, error) {
				return streams, fmt.Errorf("%w: stream b", store.ErrDamaged)
			})
		}})
		if w := s.do(t, "GET", "/sse", ""); w.Code != http.StatusOK || w.Body.String() != want {
			t.Errorf("got %d %s; want %s", w.Code, w.Body, want)
		}
		if !strings.Contains(log.String(), "stream b") {
			t.Errorf("the log has %q", &log)
		}
	}
}

// readFlipped reads a stream, and checks that each event is the one that was published,
// or in a gap.
func readFlipped(t *testing.T, s *host, name string, last uint64) (outcome string) {
	t.Helper()
	w, cut := doCut(t, s, "/sse/"+name+"?follow=false", "Accept: text/event-stream")
	switch {
	case w.Code == http.StatusInternalServerError:
		isProblem(t, w, w.Code) // the stream's state is not whole
		return "error"
	case w.Code != http.StatusOK || w.Header().Get("Stream-Last-Id") != strconv.FormatUint(last, 10):
		t.Errorf("%s: %d, last is %s of %d", name, w.Code, w.Header().Get("Stream-Last-Id"), last)
		return "wrong"
	}
	outcome = "whole"
	first, _ := strconv.ParseUint(w.Header().Get("Stream-First-Id"), 10, 64)
	next, lost := first, uint64(0)
	r := sse.NewReader(w.Body, 1<<20)
	for m, err := r.Next(); err == nil; m, err = r.Next() {
		switch m.Type {
		case "gap":
			var gap struct {
				Reason, LastEventID string
				Missed              uint64
			}
			if err := json.Unmarshal([]byte(m.Data), &gap); err != nil || gap.Reason != "corrupt" || gap.LastEventID != fmt.Sprint(next-1) || gap.Missed == 0 {
				t.Errorf("%s: after %d there is the gap %s", name, next-1, m.Data)
			}
			next, lost, outcome = next+gap.Missed, lost+gap.Missed, "gap"
		case "position":
			if m.ID != fmt.Sprint(next-1) {
				t.Errorf("%s: position %s after %d", name, m.ID, next-1)
			}
		default:
			if m.ID != fmt.Sprint(next) || m.Data != string(corruptEvent(name, next).Data) {
				t.Errorf("%s: event %s where %d should be: %.50q", name, m.ID, next, m.Data)
			}
			next++
		}
	}
	if cut {
		t.Errorf("%s: cut after %d of %d", name, next-1, last)
		return "cut"
	}
	if next != last+1 {
		t.Errorf("%s: read up to %d of %d", name, next-1, last)
	}
	if first > 31 && first != last+1 || first == last+1 && last > 0 {
		t.Errorf("%s: it begins with %d, up to %d", name, first, last)
	}
	return outcome
}

// doCut is do where the response may be cut.
func doCut(t *testing.T, s *host, target string, headers ...string) (w *httptest.ResponseRecorder, cut bool) {
	t.Helper()
	w = httptest.NewRecorder()
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler {
				panic(p)
			}
			cut = true
		}
	}()
	r := httptest.NewRequest("GET", target, nil)
	r.Host = "localhost"
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	s.ServeHTTP(w, r)
	return w, false
}
