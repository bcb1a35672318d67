package web_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"lastevent/store"
	"lastevent/stream"
	"lastevent/web"
)

// stored are the events of a stream, without their times.
func (s *host) stored(t testing.TB, name string) (events []store.Event) {
	t.Helper()
	if _, err := s.db.Log(name).Read(context.Background(), 0, func(e store.Event) bool {
		events = append(events, store.Event{Seq: e.Seq, Type: e.Type, Data: []byte(string(e.Data))})
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return events
}

func TestPublish(t *testing.T) {
	s := newHost(t, setup{})
	long := strings.Repeat("t", 255)
	var want []store.Event
	for _, test := range []struct {
		target, data string
		headers      []string
		typ          string
	}{
		{"/sse/x", "hello", nil, "message"},
		{"/sse/x?event=message", "hello", nil, "message"},
		{"/sse/x?event=", "hello", nil, "message"},
		{"/sse/x?event=time", "2026", nil, "time"},
		{"/sse/x?event=%20a:%20b", "2026", nil, " a: b"},
		{"/sse/x?event=%F0%9F%8E%89", "🎉\x00\ufeff", nil, "🎉"},
		{"/sse/x?event=Gap", "not reserved", nil, "Gap"},
		{"/sse/x?event=" + long, "x", nil, long},
		{"/sse/x", "", nil, "message"},
		{"/sse/x", "a\r\nb\rc\n", nil, "message"},
		{"/sse/x", " spaces ", []string{"Content-Type: text/plain; charset=utf-8"}, "message"},
		{"/sse/x", `{"a":1}`, []string{"Content-Type: application/json"}, "message"},
		{"/sse/x", "a=b", []string{"Content-Type: application/x-www-form-urlencoded"}, "message"},
		{"/sse/x", "x", []string{"Content-Type: application/octet-stream"}, "message"},
		{"/sse/x", "x", []string{"Content-Type: nonsense"}, "message"},
		{"/sse/x", "x", []string{"Content-Encoding: identity"}, "message"},
	} {
		w := s.do(t, "POST", test.target, test.data, test.headers...)
		var got, answer any
		seq := len(want) + 1
		_ = json.Unmarshal(w.Body.Bytes(), &got)
		_ = json.Unmarshal(fmt.Appendf(nil, `{"id":%d,"count":1}`, seq), &answer)
		if w.Code != 201 || w.Header().Get("Content-Type") != "application/json" || !cmp.Equal(got, answer) {
			t.Errorf("POST %s %v: %d %s", test.target, test.headers, w.Code, w.Body)
		}
		want = append(want, store.Event{Seq: uint64(seq), Type: test.typ, Data: []byte(test.data)})
	}
	if diff := cmp.Diff(want, s.stored(t, "x")); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}
}

// Each stream has its own numbers.
func TestPublishToSeveral(t *testing.T) {
	s := newHost(t, setup{})
	s.publish(t, "a", "1", "2")
	s.publish(t, "a/b", "1")
	if a, b := s.last(t, "a"), s.last(t, "a/b"); a != 2 || b != 1 {
		t.Errorf("last are %d and %d", a, b)
	}
}

func TestPublishRefused(t *testing.T) {
	s := newHost(t, setup{config: func(c *web.Config) { c.Owned = []string{"time"} }})
	for _, test := range []struct {
		name, target, data string
		headers            []string
		status             int
		names              string // what the detail names
	}{
		{"type position", "/sse/x?event=position", "x", nil, 400, "position"},
		{"type gap", "/sse/x?event=gap", "x", nil, 400, "gap"},
		{"type end", "/sse/x?event=end", "x", nil, 400, "end"},
		{"type with CR", "/sse/x?event=a%0Db", "x", nil, 400, "CR"},
		{"type with LF", "/sse/x?event=a%0Ab", "x", nil, 400, "LF"},
		{"type with NUL", "/sse/x?event=a%00b", "x", nil, 400, "NUL"},
		{"type not UTF-8", "/sse/x?event=%FF", "x", nil, 400, "UTF-8"},
		{"type too long", "/sse/x?event=" + strings.Repeat("t", 256), "x", nil, 400, "255"},
		{"type too long in bytes", "/sse/x?event=" + strings.Repeat("%C3%A9", 128), "x", nil, 400, "255"},
		{"two types", "/sse/x?event=a&event=b", "x", nil, 400, "event"},
		{"query", "/sse/x?event=%zz", "x", nil, 400, "query"},
		{"data not UTF-8", "/sse/x", "a\xffb", nil, 400, "UTF-8"},
		{"data UTF-8 cut off", "/sse/x", "\xc3", nil, 400, "UTF-8"},
		{"data a surrogate", "/sse/x", "\xed\xa0\x80", nil, 400, "UTF-8"},
		{"name", "/sse/x%41", "x", nil, 400, "%"},
		{"multipart", "/sse/x", "x", []string{"Content-Type: multipart/form-data; boundary=b"}, 415, "multipart"},
		{"multipart, another case", "/sse/x", "x", []string{"Content-Type: Multipart/Mixed"}, 415, "multipart"},
		{"gzip", "/sse/x", "x", []string{"Content-Encoding: gzip"}, 415, "gzip"},
		{"br", "/sse/x", "x", []string{"Content-Encoding: br"}, 415, "br"},
		{"owned", "/sse/time", "x", nil, 403, "time"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := s.do(t, "POST", test.target, test.data, test.headers...)
			if detail := isProblem(t, w, test.status); !strings.Contains(detail, test.names) {
				t.Errorf("the detail does not name %q: %s", test.names, detail)
			}
		})
	}
	for _, name := range []string{"x", "time"} {
		if events := s.stored(t, name); events != nil {
			t.Errorf("stored: %+v", events)
		}
	}
}

func TestPublishLimit(t *testing.T) {
	s := newHost(t, setup{config: func(c *web.Config) { c.MaxEventBytes = 100 }})
	for _, test := range []struct {
		typ    string
		data   int
		status int
	}{
		{"message", 93, 201},
		{"message", 94, 413},
		{"message", 10_000, 413},
		{"t", 99, 201},
		{"t", 100, 413},
		{strings.Repeat("t", 100), 0, 201},
		{strings.Repeat("t", 100), 1, 413},
		{strings.Repeat("t", 101), 0, 413},
	} {
		for _, chunked := range []bool{false, true} {
			last := s.last(t, "x")
			r := httptest.NewRequest("POST", "/sse/x?event="+test.typ, strings.NewReader(strings.Repeat("x", test.data)))
			if chunked {
				r.ContentLength = -1
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if test.status == 201 {
				last++
			} else {
				isProblem(t, w, 413)
			}
			if w.Code != test.status || s.last(t, "x") != last {
				t.Errorf("%d + %d bytes: %d, and last is %d; want %d and %d", len(test.typ), test.data, w.Code, s.last(t, "x"), test.status, last)
			}
		}
	}
}

func TestPublishMoreThanIsRetained(t *testing.T) {
	s := newHost(t, setup{retention: store.Retention{Bytes: 50}})
	s.publish(t, "x", strings.Repeat("x", 43))
	isProblem(t, s.do(t, "POST", "/sse/x", strings.Repeat("x", 44)), 413)
	if got := s.stored(t, "x"); len(got) != 1 {
		t.Errorf("stored: %+v", got)
	}
}

// A body that breaks off, or is not what it says, is no event, and no failure of
// the server either.
func TestPublishCutOff(t *testing.T) {
	var log bytes.Buffer
	inBubble(t, setup{config: func(c *web.Config) { c.Log = zerolog.New(&log).Level(zerolog.WarnLevel) }}, func(t *testing.T, s *host) {
		w := s.send(t, "POST /sse/x", "Content-Length: 10")
		if _, err := w.Write([]byte("12345")); err != nil {
			t.Fatal(err)
		}
		w.Close()
		synctest.Wait()
		if log.Len() > 0 {
			t.Errorf("of a client that is gone, the log says %s", log.String())
		}
		log.Reset()

		w = s.send(t, "POST /sse/x", "Transfer-Encoding: chunked")
		go w.Write([]byte("5\r\n12345\r\nzz\r\n"))
		if head := w.response(t); head.StatusCode != 400 {
			t.Errorf("a body that is not chunked as it says: %s, want 400", head.Status)
		}
		w.Close()
		synctest.Wait()
		if log.Len() > 0 {
			t.Errorf("of a body that is wrong, the log says %s", log.String())
		}
		if last := s.last(t, "x"); last != 0 {
			t.Errorf("last is %d", last)
		}
	})
}

// Every error of the store has its status.
func TestStoreErrors(t *testing.T) {
	another := errors.New("secret of the server")
	for _, test := range []struct {
		err     error
		status  int
		outcome string
		retry   bool
	}{
		{fmt.Errorf("x: %w", store.ErrNoSpace), 507, "", false},
		{fmt.Errorf("x: %w", store.ErrTooLarge), 413, "", false},
		{fmt.Errorf("x: %w: secret", store.ErrUnknown), 500, "unknown", false},
		{fmt.Errorf("x: %w: secret", store.ErrStopped), 503, "", true},
		{fmt.Errorf("%w: %v: secret", store.ErrStopped, store.ErrUnknown), 503, "", true}, // later on
		{another, 500, "", false},
		{&store.CorruptError{Stream: "secret", First: 1, Last: 2}, 500, "", false},
	} {
		t.Run(test.err.Error(), func(t *testing.T) {
			s := newHost(t, setup{log: func(l stream.Log) stream.Log { return &refusing{l, test.err} }})
			w := s.do(t, "POST", "/sse/x", "data")
			detail := isProblem(t, w, test.status)
			if strings.Contains(detail, "secret") {
				t.Errorf("tells too much: %s", detail)
			}
			var p struct{ Outcome string }
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Outcome != test.outcome {
				t.Errorf("outcome %q, want %q", p.Outcome, test.outcome)
			}
			if after := w.Header().Get("Retry-After"); (after != "") != test.retry {
				t.Errorf("Retry-After is %q", after)
			}
		})
	}
}

// A refusing log takes no events.
type refusing struct {
	stream.Log
	err error
}

func (r *refusing) Append(context.Context, store.Batch) (store.Receipt, error) {
	return store.Receipt{}, r.err
}

func TestCrossOrigin(t *testing.T) {
	s := newHost(t, setup{})
	for _, test := range []struct {
		headers []string
		status  int
	}{
		{nil, 201}, // no browser
		{[]string{"Sec-Fetch-Site: same-origin"}, 201},
		{[]string{"Sec-Fetch-Site: none"}, 201},
		{[]string{"Origin: http://localhost"}, 201},
		{[]string{"Sec-Fetch-Site: same-origin", "Origin: https://localhost"}, 201},
		{[]string{"Sec-Fetch-Site: cross-site"}, 403},
		{[]string{"Sec-Fetch-Site: same-site"}, 403},
		{[]string{"Origin: https://evil.example"}, 403},
		{[]string{"Origin: http://localhost:81"}, 403},
		{[]string{"Origin: null"}, 403},
	} {
		last := s.last(t, "x")
		w := s.do(t, "POST", "/sse/x", "x", test.headers...)
		if w.Code != test.status {
			t.Errorf("%v: %d, want %d", test.headers, w.Code, test.status)
		}
		if w.Code == 403 {
			isProblem(t, w, 403)
			if s.last(t, "x") != last {
				t.Errorf("%v: stored", test.headers)
			}
		}
		if w := s.do(t, "HEAD", "/sse/x", "", test.headers...); w.Code != 200 || w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%v: reading is %d, with %v", test.headers, w.Code, w.Header())
		}
	}
}

// An event is shown to nobody before its append has returned, and to all at once
// then.
func TestPublishedIsSeen(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, s *host) {
		a, b := s.subscribe(t, "/sse/x"), s.subscribe(t, "/sse/x")
		start := time.Now()
		for _, sub := range []*subscription{a, b} {
			sub.position(t)
		}
		for i := range 3 {
			data := fmt.Sprint("event ", i)
			s.publish(t, "x", data)
			for _, sub := range []*subscription{a, b} {
				if m := sub.next(t); m.Data != data || m.ID != fmt.Sprint(i+1) || m.Type != "message" {
					t.Errorf("got %+v", m)
				}
			}
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("it took %v", d)
		}
	})
}

// The name must be allowed before anything is looked at, whatever the method.
func TestNames(t *testing.T) {
	s := newHost(t, setup{})
	for _, name := range []string{
		"a", "Z", "0", "-", "_", "~", "a.b", ".a", "a.", "...", "a/...", "a..b", "a/b/c", "AZaz09._~-/x",
		strings.Repeat("a", 255), strings.Repeat("a/", 127) + "a",
	} {
		if w := s.do(t, "HEAD", "/sse/"+name, ""); w.Code != 200 {
			t.Errorf("HEAD of %q: %d %s", name, w.Code, w.Body)
		}
		if w := s.do(t, "POST", "/sse/"+name, "x"); w.Code != 201 || s.last(t, name) != 1 {
			t.Errorf("POST to %q: %d %s", name, w.Code, w.Body)
		}
	}
	for _, name := range []string{
		"", "/", "a/", "/a", "a//b", "a/b//", ".", "..", "./a", "../a", "a/.", "a/..", "a/./b", "a/../b", "a/../../b",
		"%41", "a%2Fb", "a%2fb", "%2e%2e", "a%20b", "a%00", "%C3%A9", "\xc3\xa9", "\xff", "a%7E",
		"a+b", "a:b", "a,b", "a;b", "a@b", "a*b", "a!b", "a$b", "a&b", "a'b", "a(b)", "a=b", "a[b]", "a|b", "a\\b", "a\"b", "a<b>", "a#b", "a^b", "a`b", "a{b}",
		strings.Repeat("a", 256), strings.Repeat("a/", 127) + "aa",
	} {
		for _, method := range []string{"GET", "POST"} {
			w := s.do(t, method, "/sse/"+name, "x")
			if w.Code != 400 {
				t.Errorf("%s of %q: %d", method, name, w.Code)
				continue
			}
			isProblem(t, w, 400)
		}
	}
}

// A path that is another once it is cleaned or unescaped is not that other.
func TestPathsAreNotCleaned(t *testing.T) {
	s := newHost(t, setup{})
	for _, path := range []string{"//sse/x", "/./sse/x", "/a/../sse/x", "/%73se/x", "/sse%2Fx", "/SSE/x", "/sse/../sse/x", "/healthz/../sse/x"} {
		for _, method := range []string{"HEAD", "POST"} {
			if w := s.do(t, method, path, "x"); w.Code < 300 {
				t.Errorf("%s %s: %d", method, path, w.Code)
			}
		}
	}
	if last := s.last(t, "x"); last != 0 {
		t.Errorf("last is %d", last)
	}
}

// Nothing panics, no request is the server's fault, and what is accepted has a
// name of the grammar, as it was sent. A header that is wrong changes no status.
func FuzzRequest(f *testing.F) {
	for _, name := range []string{"x", "a/b", "a/../b", "%41", "a//b", strings.Repeat("a", 256)} {
		f.Add(name, "from=earliest", "1")
	}
	for _, from := range []string{
		"from=-1", "from=10m", "from=-0", "from=2026-01-02T03:04:05Z", "from=2026-01-02T03:04:05+02:00", "from=9999999h", "from=-18446744073709551616",
		"lastEventId=1", "lastEventId=x", "limit=1", "limit=0", "limit=18446744073709551616", "log=x", "event=a&event=b", "a;b", "%zz", "from=0001-01-01T00:00:00Z", "from=292277026596-01-01T00:00:00Z", "follow=false", "follow=x", "follow=false&limit=2&event=a",
	} {
		f.Add("x", from, "18446744073709551616")
	}
	s := newHost(f, setup{})
	f.Fuzz(func(t *testing.T, name, query, id string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("HEAD /sse/" + name + "?" + query + " HTTP/1.1\r\nHost: localhost\r\n\r\n")))
		if err != nil || strings.ContainsAny(name, "? \r\n") || strings.ContainsAny(query, " \r\n") {
			t.Skip("not a request")
		}
		status := func(id string) int {
			r := r.Clone(t.Context())
			if id != "" {
				r.Header.Set("Last-Event-ID", id)
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			return w.Code
		}
		got := status("")
		if got != 200 && got != 400 {
			t.Errorf("%d", got)
		}
		if got == 200 && !isName(name) {
			t.Errorf("the name %q is taken", name)
		}
		if q, err := url.ParseQuery(query); got != 200 && isName(name) && err == nil && len(q) == 0 {
			t.Errorf("the name %q is not taken", name)
		}
		if with := status(id); with != got {
			t.Errorf("%d, and with Last-Event-ID %q %d", got, id, with)
		}
	})
}

// isName is the grammar of names.
func isName(name string) bool {
	for _, segment := range strings.Split(name, "/") {
		if segment == "" || segment == "." || segment == ".." || strings.Trim(segment, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~-") != "" {
			return false
		}
	}
	return len(name) <= 255
}
