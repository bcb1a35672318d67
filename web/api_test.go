package web_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"lastevent/store"
	"lastevent/stream"
	"lastevent/web"
)

// A site is a server on a store of its own.
type site struct {
	t   *testing.T
	url string
}

func newSite(t *testing.T, o store.Options, change func(*web.Config)) *site {
	t.Helper()
	db, err := store.Open(filepath.Join(t.TempDir(), "test.db"), o)
	if err != nil {
		t.Fatal(err)
	}
	c := web.Config{
		Streams:       stream.NewSet(db.Log, db.Streams),
		Log:           zerolog.New(zerolog.NewTestWriter(t)),
		Heartbeat:     15 * time.Second,
		Retry:         time.Second,
		MaxEventBytes: 1000,
		MaxBatchBytes: 4000,
		Ready:         db.Err,
	}
	if change != nil {
		change(&c)
	}
	server, err := web.New(c)
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(server)
	t.Cleanup(func() {
		if err := server.Drain(context.Background()); err != nil {
			t.Error(err)
		}
		h.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return &site{t, h.URL}
}

// An answer is a whole response.
type answer struct {
	t      *testing.T
	status int
	header http.Header
	body   string
}

// do sends a request; the headers are pairs.
func (s *site) do(method, path, body string, header ...string) *answer {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return &answer{s.t, res.StatusCode, res.Header, string(b)}
}

func (s *site) get(path string, header ...string) *answer {
	s.t.Helper()
	return s.do("GET", path, "", header...)
}

func (s *site) post(path, body string, header ...string) *answer {
	s.t.Helper()
	return s.do("POST", path, body, header...)
}

// want expects the status, and that the body holds each part.
func (a *answer) want(status int, parts ...string) *answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("status %d, want %d: %s", a.status, status, a.body)
	}
	if status >= 400 {
		var p struct {
			Title, Detail string
			Status        int
		}
		if err := json.Unmarshal([]byte(a.body), &p); err != nil || p.Detail == "" || p.Status != status ||
			a.header.Get("Content-Type") != "application/problem+json" {
			a.t.Errorf("no problem details: %v %s", a.header, a.body)
		}
	}
	for _, part := range parts {
		if !strings.Contains(a.body, part) {
			a.t.Errorf("body %q does not hold %q", a.body, part)
		}
	}
	return a
}

// data returns the IDs and data of the lines of a body of NDJSON.
func (a *answer) data() (got []string) {
	a.t.Helper()
	for line := range strings.Lines(a.body) {
		var e struct {
			ID    uint64
			Event string
			Time  time.Time
			Data  any
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			a.t.Fatalf("line %q: %v", line, err)
		}
		if e.Event != stream.TypeGap && time.Since(e.Time) > time.Hour {
			a.t.Errorf("time %v", e.Time)
		}
		got = append(got, fmt.Sprint(e.ID, " ", e.Event, " ", e.Data))
	}
	return got
}

const lines = "application/x-ndjson"

func TestBatch(t *testing.T) {
	s := newSite(t, store.Options{}, nil)
	s.post("/sse/s?event=given", `{"event":"a","data":"text \n \u0000 \ud83d\ude00"}

{"data":{"b": [1, 2.50, null],  "c":"<&>"}}
{"event":"","data":null}`, "Content-Type", lines+"; charset=utf-8").want(201, `{"id":3,"count":3}`)
	want := []string{
		"1 a text \n \x00 😀",
		`2 given {"b":[1,2.50,null],"c":"<&>"}`,
		"3 given null",
	}
	if diff := cmp.Diff(want, s.get("/sse/s?follow=false").want(200).data()); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}
	for _, test := range []struct {
		body   string
		status int
		detail string
	}{
		{"{\"data\":\"ok\"}\n\n{\"data\"}", 400, "line 3: "},
		{`{"data":"ok"} {"data":"two"}`, 400, "line 1: something follows"},
		{`{"data":"ok"}` + "\n" + `{"event":"x"}`, 400, "line 2: data is missing"},
		{`{"data":"ok"}` + "\n" + `["x"]`, 400, "line 2: "},
		{`{"data":"ok","dat":1}`, 400, "line 1: "},
		{`{"event":"gap","data":"x"}`, 400, "line 1: the event type \"gap\" is reserved"},
		{`{"event":"a\nb","data":"x"}`, 400, "line 1: "},
		{"{\"data\":\"\xff\"}", 400, "line 1: it is not UTF-8"},
		{`{"data":"ok"}` + "\n" + `{"data":"` + strings.Repeat("x", 1000) + `"}`, 413, "line 2: "},
		{strings.Repeat(`{"data":"x"}`+"\n", 400), 413, "4000 bytes"},
		{"\n \n", 400, "no lines"},
		{"", 400, "no lines"},
	} {
		s.post("/sse/s", test.body, "Content-Type", lines).want(test.status, strings.ReplaceAll(test.detail, `"`, `\"`))
	}
	if got := s.do("HEAD", "/sse/s", "").header.Get("Stream-Last-Id"); got != "3" {
		t.Errorf("last is %s: a refused batch was stored", got)
	}
}

func TestBatchOfTooManyEvents(t *testing.T) {
	s := newSite(t, store.Options{}, func(c *web.Config) { c.MaxBatchBytes = 2 << 20 })
	most := strings.Repeat(`{"data":0}`+"\n", 100_000)
	s.post("/sse/s", most+`{"data":0}`, "Content-Type", lines).want(413, "100000 events")
	s.post("/sse/s", most, "Content-Type", lines).want(201, `{"id":100000,"count":100000}`)
}

func TestElsewhere(t *testing.T) {
	s := newSite(t, store.Options{}, nil)
	for _, path := range []string{"/", "/page.js", "/healthz", "/readyz", "/sse"} {
		if a := s.post(path, "x").want(405); a.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s allows %s", path, a.header.Get("Allow"))
		}
	}
	for _, method := range []string{"GET", "POST", "DELETE"} {
		s.do(method, "/nothing", "").want(404)
	}
}

func TestEventOfJustTheLimit(t *testing.T) {
	s := newSite(t, store.Options{}, nil)
	data := strings.Repeat("é", 498) // 996 bytes, and 4 of the type
	s.post("/sse/s?event=type", data).want(201)
	s.post("/sse/s?event=type", data+"x").want(413)
	s.post("/sse/s", `{"event":"type","data":"`+data+`"}`, "Content-Type", lines).want(201, `"id":2`)
	s.get("/sse/s?from=earliest&limit=2").want(200, "id: 1\ndata: "+data+"\n\n", "id: 2\ndata: "+data+"\n\n")
}

func TestIdempotencyKey(t *testing.T) {
	s := newSite(t, store.Options{}, nil)
	key := []string{"Idempotency-Key", "k 1"}
	first := s.post("/sse/s?event=a", "x", key...).want(201, `{"id":1,"count":1}`)
	if first.header.Get("Idempotency-Replayed") != "" {
		t.Error("the first request is said to be replayed")
	}
	s.post("/sse/s", "between").want(201)
	again := s.post("/sse/s?event=a", "x", key...).want(201, `{"id":1,"count":1}`)
	if again.header.Get("Idempotency-Replayed") != "true" {
		t.Error("the second request is not said to be replayed")
	}
	for what, a := range map[string]*answer{
		"another body":         s.post("/sse/s?event=a", "y", key...),
		"another type":         s.post("/sse/s?event=b", "x", key...),
		"another content type": s.post("/sse/s?event=a", "x", append(key, "Content-Type", "text/plain")...),
		"close":                s.post("/sse/s?event=a&close=true", "x", key...),
		"a body too large":     s.post("/sse/s?event=a", strings.Repeat("x", 2000), key...),
		"a body not UTF-8":     s.post("/sse/s?event=a", "\xff", key...),
		"a reserved type":      s.post("/sse/s?event=gap", "x", key...),
		"a wrong batch":        s.post("/sse/s?event=a", "x", append(key, "Content-Type", lines)...),
		"an encoded body":      s.post("/sse/s?event=a", "x2", append(key, "Content-Encoding", "gzip")...),
	} {
		if a.status != 422 {
			t.Errorf("%s under the key: %d %s", what, a.status, a.body)
		}
	}
	s.post("/sse/s", "\xff", "Idempotency-Key", "new").want(400)
	s.post("/sse/s", "fine", "Idempotency-Key", "new").want(201, `"id":3`)
	s.post("/sse/s", "x", "Idempotency-Key", strings.Repeat("k", 256)).want(400)
	s.post("/sse/s", "x", "Idempotency-Key", strings.Repeat("k", 255)).want(201, `"id":4`)
	s.post("/sse/s?close=true", "").want(201)
	s.post("/sse/s?event=a", "x", key...).want(201, `{"id":1,"count":1}`)
}

// What exceeds the limit is another body, even if all up to the limit is the same.
func TestKeyOfALongerBody(t *testing.T) {
	s := newSite(t, store.Options{}, nil)
	key := []string{"Idempotency-Key", "k", "Content-Type", lines}
	line := `{"data":"` + strings.Repeat("x", 988) + `"}` + "\n"
	batch := strings.Repeat(line, 4) // of 4000 bytes
	s.post("/sse/s", batch, key...).want(201, `"count":4`)
	s.post("/sse/s", batch+line, key...).want(422)
	s.post("/sse/s", batch, key...).want(201, `"count":4`)
}

// An EventSource keeps its URL: after a reset it must not be reset again.
func TestResetOnce(t *testing.T) {
	s := newSite(t, store.Options{}, nil)
	s.post("/sse/s", "a").want(201)
	s.post("/sse/s", "b").want(201)
	url := "/sse/s?log=another&lastEventId=1&limit=1"
	s.get(url).want(200, `"reason":"reset"`, "id: 1\n")
	if got := s.get(url, "Last-Event-ID", "1").want(200, "id: 2\n"); strings.Contains(got.body, "gap") {
		t.Errorf("reset again: %s", got.body)
	}
	s.get("/sse/s?log=another&limit=1", "Last-Event-ID", "1").want(200, `"reason":"reset"`)
}

func TestClose(t *testing.T) {
	s := newSite(t, store.Options{}, nil)
	s.post("/sse/s", "a").want(201)
	s.post("/sse/s?close=maybe", "b").want(400)
	s.post("/sse/s?close=false", "b").want(201, `{"id":2,"count":1}`)
	s.post("/sse/s?close=true", `{"data":"c"}`+"\n"+`{"data":"d"}`, "Content-Type", lines).want(201, `{"id":4,"count":2}`)
	s.post("/sse/s?close=true", "").want(201, `{"id":4,"count":0}`)
	s.post("/sse/s?close=true", "", "Content-Type", lines).want(201, `{"id":4,"count":0}`)
	s.post("/sse/s", "e").want(409, "closed")
	s.post("/sse/s?close=true", "e").want(409)
	s.post("/sse/empty?close=true", "").want(201, `{"id":0,"count":0}`)

	got := s.get("/sse/s", "Last-Event-ID", "3").want(200, "id: 4\ndata: d\n\nevent: end\ndata: {\"last\":4}\n\n")
	if got.header.Get("Stream-Closed") != "true" {
		t.Error("Stream-Closed is missing")
	}
	for path, id := range map[string]string{"/sse/s": "4", "/sse/empty": "0", "/sse?stream=s&stream=empty": "4.0~1"} {
		if a := s.get(path, "Last-Event-ID", id).want(204); a.body != "" {
			t.Errorf("%s: a 204 with the body %q", path, a.body)
		}
	}
	s.get("/sse/s?lastEventId=4").want(204)
	s.do("HEAD", "/sse/s?lastEventId=4", "").want(204)
	s.get("/sse/s?follow=false&lastEventId=4").want(204)
	s.get("/sse/s").want(200, "event: end")
	s.get("/sse/s?from=latest").want(200, "id: 4\n", "event: end")
	s.get("/sse/empty").want(200, "id: 0\n", "event: end\ndata: {\"last\":0}")
	s.get("/sse?stream=s&stream=empty", "Last-Event-ID", "3.0").want(200, "id: 4.0~0\ndata: d\n", `{"stream":"s","last":4}`, `{"stream":"empty","last":0}`)
	if a := s.do("HEAD", "/sse/s", ""); a.header.Get("Stream-Closed") != "true" {
		t.Error("HEAD without Stream-Closed")
	}
}

func TestDelete(t *testing.T) {
	s := newSite(t, store.Options{}, nil)
	s.post("/sse/s", "a").want(201)
	for range 2 {
		if a := s.do("DELETE", "/sse/s", "").want(204); a.body != "" {
			t.Errorf("body %q", a.body)
		}
	}
	s.do("DELETE", "/sse/never", "").want(204)
	s.post("/sse/s", "b").want(201, `{"id":2,"count":1}`)
	s.get("/sse/s?limit=1", "Last-Event-ID", "0").want(200, `{"reason":"evicted","lastEventId":"0","first":2,"last":2,"missed":1}`, "id: 2\ndata: b\n")
	if got := s.get("/sse").want(200).body; strings.Contains(got, "never") {
		t.Errorf("a delete made a stream: %s", got)
	}
}

func TestMisspeltParameters(t *testing.T) {
	s := newSite(t, store.Options{}, nil)
	s.post("/sse/s?clsoe=true", "x").want(400, "clsoe")
	s.do("DELETE", "/sse/s?from=earliest", "").want(400, "from")
	if got := s.do("HEAD", "/sse/s", "").header.Get("Stream-Last-Id"); got != "0" {
		t.Errorf("last is %s", got)
	}
}

func TestOwnedStreams(t *testing.T) {
	s := newSite(t, store.Options{}, func(c *web.Config) { c.Owned = []string{"time"} })
	s.post("/sse/time", "x").want(403)
	s.post("/sse/time?close=true", "").want(403)
	s.do("DELETE", "/sse/time", "").want(403)
	s.post("/sse/time/x", "x").want(201)
}

func TestList(t *testing.T) {
	s := newSite(t, store.Options{MaxStreams: 2}, nil)
	if got := s.get("/sse").want(200).body; got != "[]\n" {
		t.Errorf("no streams: %q", got)
	}
	s.post("/sse/b/c?event=type", "abc").want(201)
	s.post("/sse/a?close=true", "").want(201)
	s.post("/sse/third", "x").want(507, "2")
	s.do("POST", "/sse", "x").want(405)
	want := `[{"name":"a","first":1,"last":0,"events":0,"bytes":0,"clients":0,"closed":true},` +
		`{"name":"b/c","first":1,"last":1,"events":1,"bytes":7,"clients":0,"closed":false}]` + "\n"
	if diff := cmp.Diff(want, s.get("/sse").want(200).body); diff != "" {
		t.Error(diff)
	}
}

func TestReadNDJSON(t *testing.T) {
	s := newSite(t, store.Options{Retention: store.Retention{Events: 5}}, nil)
	for i := range 7 {
		s.post(fmt.Sprintf("/sse/s?event=t%d", i%2), fmt.Sprint("e", i+1)).want(201)
	}
	events := []string{"3 t0 e3", "4 t1 e4", "5 t0 e5", "6 t1 e6", "7 t0 e7"}
	gap := "0 gap map[first:3 last:7 lastEventId:1 missed:1 reason:evicted]"
	for _, test := range []struct {
		query string
		want  []string
	}{
		{"", events},
		{"&from=-2", events[3:]},
		{"&from=latest", nil},
		{"&from=1h", events},
		{"&lastEventId=5", events[3:]},
		{"&lastEventId=1", append([]string{gap}, events...)},
		{"&event=t1", []string{"4 t1 e4", "6 t1 e6"}},
	} {
		a := s.get("/sse/s?follow=false" + test.query).want(200)
		if diff := cmp.Diff(test.want, a.data()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.query, diff)
		}
		if a.header.Get("Content-Type") != lines || a.header.Get("Vary") != "Accept" || a.header.Get("Stream-Last-Id") != "7" || a.header.Get("Stream-Log") == "" {
			t.Errorf("header %v", a.header)
		}
	}
	if got := s.get("/sse/never?follow=false").want(200).body; got != "" {
		t.Errorf("a stream never written: %q", got)
	}
	s.get("/sse/s?follow=perhaps").want(400)
}

func TestPages(t *testing.T) {
	s := newSite(t, store.Options{}, nil)
	for i := range 10 {
		s.post(fmt.Sprintf("/sse/s?event=t%d", i%3), fmt.Sprint("e", i+1)).want(201)
	}
	for query, want := range map[string][]string{
		"limit=4":          {"1 2 3 4", "5 6 7 8", "9 10"},
		"limit=5":          {"1 2 3 4 5", "6 7 8 9 10"},
		"limit=2&event=t1": {"2 5", "8"},
		"limit=1&event=t2": {"3", "6", "9"},
		"limit=3&event=no": {""},
	} {
		var pages []string
		for next := "/sse/s?follow=false&" + query; next != ""; {
			a := s.get(next).want(200)
			var ids []string
			for _, e := range a.data() {
				id, _, _ := strings.Cut(e, " ")
				ids = append(ids, id)
			}
			pages = append(pages, strings.Join(ids, " "))
			next = ""
			if link := a.header.Get("Link"); link != "" {
				var ok bool
				if next, ok = strings.CutSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`); !ok {
					t.Fatalf("link %q", link)
				}
			}
		}
		if diff := cmp.Diff(want, pages); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
}

func TestETag(t *testing.T) {
	s := newSite(t, store.Options{Retention: store.Retention{Events: 3}}, nil)
	s.post("/sse/s", "a").want(201)
	read := "/sse/s?follow=false&from=earliest"
	tag := s.get(read).want(200).header.Get("ETag")
	if len(tag) < 10 || tag[0] != '"' {
		t.Fatalf("ETag %s", tag)
	}
	for _, header := range []string{tag, "W/" + tag, `"other", ` + tag, "*"} {
		a := s.get(read, "If-None-Match", header)
		if a.want(304); a.body != "" || a.header.Get("ETag") != tag {
			t.Errorf("%s: %v %q", header, a.header, a.body)
		}
	}
	if got := s.do("HEAD", read, "").header.Get("ETag"); got != tag {
		t.Errorf("HEAD has the ETag %s, GET %s", got, tag)
	}
	seen := map[string]string{tag: "one event"}
	differs := func(what, path string, header ...string) {
		t.Helper()
		tag := s.get(path, append(header, "If-None-Match", tag)...).want(200).header.Get("ETag")
		if was := seen[tag]; was != "" || tag == "" {
			t.Errorf("%s has the ETag of %s", what, was)
		}
		seen[tag] = what
	}
	differs("SSE", read, "Accept", "text/event-stream")
	differs("a filter", read+"&event=x")
	differs("a later start", "/sse/s?follow=false&lastEventId=1")
	differs("a gap", "/sse/s?follow=false&lastEventId=9")
	differs("another gap", "/sse/s?follow=false&lastEventId=8")
	s.post("/sse/s", "b").want(201)
	differs("two events", read)
	if s.get(read+"&limit=1").header.Get("ETag") == s.get(read).header.Get("ETag") {
		t.Error("a page has the ETag of the whole")
	}
	s.post("/sse/s", `{"data":"c"}`+"\n"+`{"data":"d"}`, "Content-Type", lines).want(201)
	differs("other bounds", read)
}

func TestNegotiation(t *testing.T) {
	s := newSite(t, store.Options{}, nil)
	s.post("/sse/s?close=true", "a").want(201)
	const sse = "text/event-stream"
	for _, test := range []struct{ accept, query, want string }{
		{"", "", sse},
		{"*/*", "", sse},
		{"text/html,application/xhtml+xml,*/*;q=0.8", "", sse},
		{"text/event-stream", "", sse},
		{"application/json", "", sse},
		{lines, "", lines},
		{lines + ", */*", "", lines},
		{lines + ", text/event-stream", "", sse},
		{lines + ";q=0.5, text/event-stream", "", sse},
		{lines + ", text/event-stream;q=0.5", "", lines},
		{lines + ";q=0.5, */*", "", sse},
		{lines + ";q=0", "", sse},
		{"", "?follow=false", lines},
		{"*/*", "?follow=false", lines},
		{"text/event-stream", "?follow=false", sse},
		{"nonsense;;, /", "", sse},
	} {
		a := s.get("/sse/s"+test.query, "Accept", test.accept).want(200)
		if got := a.header.Get("Content-Type"); got != test.want {
			t.Errorf("Accept %q with %q: %s, want %s", test.accept, test.query, got, test.want)
		}
	}
}

func TestMergedRequest(t *testing.T) {
	s := newSite(t, store.Options{}, nil)
	s.get("/sse/a?stream=b&lastEventId=1.2").want(400)
	s.post("/sse/a", "1").want(201)
	s.get("/sse?stream=a&stream=b&from=earliest&limit=1").want(200, "id: 0.0\n", "id: 1.0~0\ndata: 1\n\n")
	s.get("/sse?stream=a&lastEventId=0&limit=1").want(200, "id: 0\n", "id: 1~0\ndata: 1\n\n")
	s.get("/sse?stream=a&stream=b&lastEventId=0.0~0&limit=1").want(200, "id: 1.0~0\n")
	s.get("/sse?stream=a&limit=1", "Last-Event-ID", "0.7").want(200, `"reason":"unknown","lastEventId":"0.7"`, "id: 1~0\n")
	s.get("/sse?stream=a&stream=b&stream=c&stream=d&stream=e&stream=f&limit=1&from=earliest").want(200)
	for _, query := range []string{
		"stream=a&stream=b&stream=c&stream=d&stream=e&stream=f&stream=g",
		"stream=a&stream=a", "stream=", "stream=a&stream=../b", "stream=a&follow=false",
		"stream=a&lastEventId=x", "stream=a&lastEventId=1.x", "stream=a&limit=0", "stream=a&from=x",
	} {
		s.get("/sse?" + query).want(400)
	}
}
