package web_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"lastevent/store"
	"lastevent/stream/sse"
)

// FuzzSubscribe asks for events by any Last-Event-ID and any parameters: the answer is
// the one that the contract has, and there is no silent hole in it.
func FuzzSubscribe(f *testing.F) {
	for _, id := range []string{"", "0", "15", "16", "18", "20", "21", "x", "-1", "18446744073709551615", "18446744073709551616", "000000000000000000018", "00000000000000000018"} {
		f.Add(id, "")
		f.Add("", "lastEventId="+url.QueryEscape(id))
	}
	for _, query := range []string{
		"from=earliest", "from=latest", "from=-3", "from=-0", "from=-99", "from=10m", "from=-10m", "from=2026-01-02T03:04:05Z", "from=2026-01-02T03:04:05%2B02:00",
		"from=9999999h", "from=0001-01-01T00:00:00Z", "from=x", "from=earliest&limit=2", "from=earliest&event=a&event=b", "from=earliest&event=b&limit=1", "event=none&from=earliest",
		"limit=0", "limit=18446744073709551616", "limit=3&limit=3", "log=x", "log=x&lastEventId=18", "log=&lastEventId=18", "follow=false", "follow=x", "%zz", "a;b", "event=%0a", "event=", "lastEventId=18&from=-1", "unknown=x",
	} {
		f.Add("", query)
		f.Add("18", query)
	}
	s := newHost(f, setup{retention: store.Retention{Events: 5}})
	types := []string{"message", "a", "b"}
	want := map[uint64]sse.Message{}
	for seq := uint64(1); seq <= 20; seq++ {
		typ, data := types[seq%3], fmt.Sprint("event ", seq)
		for _, name := range []string{"x", "closed"} {
			if w := s.do(f, "POST", "/sse/"+name+"?event="+typ, data); w.Code != 201 {
				f.Fatal(w.Code, w.Body)
			}
		}
		want[seq] = sse.Message{Type: typ, ID: fmt.Sprint(seq), Data: data}
	}
	if w := s.do(f, "POST", "/sse/closed?close=true", ""); w.Code != 201 {
		f.Fatal(w.Code, w.Body)
	}
	f.Fuzz(func(t *testing.T, header, query string) {
		header = strings.Trim(header, " \t")
		if strings.ContainsAny(header, "\r\n\x00") || strings.ContainsAny(query, " \r\n") {
			t.Skip("not a request")
		}
		for _, closed := range []bool{false, true} {
			o := subscribeOracle{first: 16, last: 20, events: want, closed: closed, log: s.db.ID()}
			name := "/sse/x?"
			if closed {
				name = "/sse/closed?"
			}
			r := httptest.NewRequest("GET", "/", nil)
			r.Host, r.URL = "localhost", &url.URL{Path: strings.TrimSuffix(name, "?"), RawQuery: "follow=false&" + query}
			r.Header.Set("Accept", "text/event-stream")
			if header != "" {
				r.Header.Set("Last-Event-ID", header)
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			o.check(t, header, query, w)
		}
	})
}

// A subscribeOracle knows a stream, and what the contract has its clients get.
type subscribeOracle struct {
	first, last uint64
	events      map[uint64]sse.Message // that there ever were
	closed      bool
	log         string
}

var (
	fuzzID    = regexp.MustCompile(`^[0-9]{1,20}$`)
	fuzzCount = regexp.MustCompile(`^[0-9]+$`)
)

// number is the value of digits, if they are such and it is one of 64 bits.
func number(digits *regexp.Regexp, s string) (uint64, bool) {
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil && digits.MatchString(s)
}

// wellFormed reports whether all parameters are; follow is given already.
func (o subscribeOracle) wellFormed(q url.Values) bool {
	for _, once := range []string{"lastEventId", "from", "limit", "log"} {
		if len(q[once]) > 1 {
			return false
		}
	}
	if _, ok := number(fuzzID, q.Get("lastEventId")); !ok && q.Get("lastEventId") != "" {
		return false
	}
	if n, ok := number(fuzzCount, q.Get("limit")); (!ok || n == 0) && q.Get("limit") != "" {
		return false
	}
	for _, typ := range q["event"] {
		if len(typ) > 255 || strings.ContainsAny(typ, "\r\n\x00") {
			return false
		}
	}
	from := q.Get("from")
	newest, isNewest := strings.CutPrefix(from, "-")
	n, ok := number(fuzzCount, newest)
	_, durationErr := time.ParseDuration(from)
	_, timeErr := time.Parse(time.RFC3339, strings.Replace(from, " ", "+", 1))
	return slices.Contains([]string{"", "earliest", "latest"}, from) ||
		isNewest && ok && n > 0 || !isNewest && (durationErr == nil || timeErr == nil)
}

func (o subscribeOracle) check(t *testing.T, header, query string, w *httptest.ResponseRecorder) {
	t.Helper()
	q, err := url.ParseQuery(query)
	if err != nil || q.Has("follow") || !o.wellFormed(q) {
		if w.Code != http.StatusBadRequest {
			t.Errorf("Last-Event-ID %q, ?%s: %d; want 400", header, query, w.Code)
		}
		return
	}
	given := header
	log := q.Get("log")
	if header == "" {
		given = q.Get("lastEventId")
	} else if q.Get("lastEventId") != "" {
		log = "" // it belongs to the parameter
	}
	id, isID := number(fuzzID, given)
	var reason string
	switch {
	case given == "":
	case log != "" && log != o.log:
		reason = "reset"
	case !isID:
		reason = "unknown"
	case id > o.last:
		reason = "ahead"
	case id+1 < o.first:
		reason = "evicted"
	}
	if o.closed && given != "" && reason == "" && id == o.last {
		if w.Code != http.StatusNoContent {
			t.Errorf("Last-Event-ID %q, ?%s: %d; want 204", header, query, w.Code)
		}
		return
	}
	if w.Code != http.StatusOK {
		t.Fatalf("Last-Event-ID %q, ?%s: %d %s; want 200", header, query, w.Code, w.Body)
	}
	got := readMessages(t, w.Body.Bytes())
	if reason != "" {
		var gap struct {
			Reason string
			First  uint64
			Missed *uint64
		}
		err := json.Unmarshal([]byte(got[0].Data), &gap)
		if got[0].Type != "gap" || err != nil || gap.Reason != reason || gap.First != o.first ||
			(gap.Missed != nil) != (reason == "evicted") || gap.Missed != nil && *gap.Missed != o.first-id-1 {
			t.Errorf("Last-Event-ID %q, ?%s: begins with %+v; want the gap %s", header, query, got[0], reason)
		}
		got = got[1:]
	}
	after, ok := number(fuzzID, got[0].ID)
	if got[0].Type != "position" || !ok || after+1 < o.first || after > o.last ||
		given != "" && (reason == "" && after != id || reason != "" && after+1 != o.first) {
		t.Fatalf("Last-Event-ID %q, ?%s: the position is %+v", header, query, got[0])
	}
	o.checkEvents(t, q, after, got[1:])
}

// checkEvents expects each event after the position that the query asks for.
func (o subscribeOracle) checkEvents(t *testing.T, q url.Values, after uint64, got []sse.Message) {
	t.Helper()
	types := slices.DeleteFunc(slices.Clone(q["event"]), func(typ string) bool { return typ == "" })
	limit, limited := number(fuzzCount, q.Get("limit"))
	var want []sse.Message
	for seq := after + 1; seq <= o.last && (!limited || uint64(len(want)) < limit); seq++ {
		if e := o.events[seq]; len(types) == 0 || slices.Contains(types, e.Type) {
			want = append(want, e)
		}
	}
	var events []sse.Message
	for _, m := range got {
		if m.Type != "position" && m.Type != "end" {
			m.Retry = 0
			events = append(events, m)
		}
	}
	if !slices.Equal(events, want) {
		t.Errorf("%v after %d: %+v; want %+v", q, after, events, want)
	}
	ends := len(got) > 0 && got[len(got)-1].Type == "end"
	if !o.closed && ends {
		t.Errorf("%v after %d: %+v of a stream that is not closed", q, after, got)
	}
}

func readMessages(t testing.TB, p []byte) (got []sse.Message) {
	t.Helper()
	r := sse.NewReader(bytes.NewReader(p), 1<<20)
	for m, err := r.Next(); err == nil; m, err = r.Next() {
		got = append(got, m)
	}
	if len(got) == 0 {
		t.Fatalf("no events in %q", p)
	}
	return got
}

// FuzzPublish publishes any body, as an event and as a batch: it is stored as it was
// meant, or refused, and then nothing of it is stored.
func FuzzPublish(f *testing.F) {
	for _, body := range []string{
		"", "text", "\xff", "{\"data\":1}", "{\"data\":1}\n", "{\"data\":1}\n\n {\"event\":\"a\",\"data\":\"x\"} \r\n", "{\"data\":{\"a\" : [1, 2]}}", "{\"data\":null}", "{}",
		"{\"event\":\"a\"}", "{\"event\":\"position\",\"data\":1}", "{\"event\":\"a\\nb\",\"data\":1}", "{\"data\":1}x", "{\"data\":1,\"id\":2}", "{\"data\":1}\n{", "[1]", "null",
		"{\"data\":\"\\ud800\"}", "{\"Data\":1}", "{\"data\":1,\"data\":2}", "{\"data\":1,\"datA\":2}", strings.Repeat("x", 1000), strings.Repeat("{\"data\":1}\n", 900),
	} {
		f.Add([]byte(body), "")
		f.Add([]byte(body), "t")
	}
	f.Add([]byte("x"), "end")
	f.Add([]byte("x"), "a\rb")
	f.Add([]byte("x"), strings.Repeat("t", 256))
	s := newHost(f, setup{retention: store.Retention{Events: 1000}})
	f.Fuzz(func(t *testing.T, body []byte, typ string) {
		for contentType, parse := range map[string]func([]byte, string) ([]sse.Message, bool){
			"text/plain":           wholeBody,
			"application/x-ndjson": linesOf,
		} {
			last := s.last(t, "x")
			r := httptest.NewRequest("POST", "/sse/x?event="+url.QueryEscape(typ), bytes.NewReader(body))
			r.Host = "localhost"
			r.Header.Set("Content-Type", contentType)
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			want, sure := parse(body, typ)
			switch {
			case w.Code == 400 || w.Code == 413:
				if sure && len(want) > 0 {
					t.Errorf("%s: %d %s", contentType, w.Code, w.Body)
				}
				want = nil
			case w.Code != 201 || len(want) == 0:
				t.Fatalf("%s: %d %s", contentType, w.Code, w.Body)
			case w.Body.String() != fmt.Sprintf("{\"id\":%d,\"count\":%d}\n", last+uint64(len(want)), len(want)):
				t.Errorf("%s: %d events after %d: %s", contentType, len(want), last, w.Body)
			}
			checkStored(t, s, last, want)
		}
	})
}

// wholeBody is the event that a body is, if it is one. It is sure of that.
func wholeBody(body []byte, typ string) (events []sse.Message, sure bool) {
	if typ == "" {
		typ = "message"
	}
	if !utf8.Valid(body) || !canBeType(typ) || len(typ)+len(body) > 1000 {
		return nil, true
	}
	return []sse.Message{{Type: typ, Data: string(body)}}, true
}

func canBeType(typ string) bool {
	return len(typ) <= 255 && utf8.ValidString(typ) && !strings.ContainsAny(typ, "\r\n\x00") &&
		!slices.Contains([]string{"position", "gap", "end"}, typ)
}

// linesOf is the events of a batch, if it is one. It is sure of that where no line has
// other members than event and data.
func linesOf(body []byte, typ string) (events []sse.Message, sure bool) {
	sure = canBeType(typ)
	for _, line := range bytes.Split(body, []byte("\n")) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		members, ok := membersOf(line)
		if !ok || !utf8.Valid(line) {
			return nil, true
		}
		e := sse.Message{Type: typ}
		if e.Type == "" {
			e.Type = "message"
		}
		hasData := false
		for _, m := range members { // of several with one name, the last counts
			name, value := m.name, m.value
			hasData = hasData || name == "data"
			switch {
			case strings.EqualFold(name, "event"):
				var text *string
				if err := json.Unmarshal(value, &text); err != nil {
					return nil, true
				}
				if text != nil && *text != "" {
					e.Type = *text
				}
			case strings.EqualFold(name, "data"):
				var text string
				var compact bytes.Buffer
				if err := json.Unmarshal(value, &text); err != nil || value[0] != '"' {
					_ = json.Compact(&compact, value) // it was parsed above
					text = compact.String()
				}
				e.Data = text
			default:
				return nil, true
			}
			sure = sure && (name == "event" || name == "data")
		}
		sure = sure && canBeType(e.Type) && len(e.Type)+len(e.Data) <= 1000 && hasData
		events = append(events, e)
	}
	return events, sure && len(body) <= 10_000
}

type member struct {
	name  string
	value json.RawMessage
}

// membersOf are those of an object, in order; null has none.
func membersOf(line []byte) (members []member, ok bool) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(line, &object); err != nil {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(line))
	if _, err := d.Token(); err != nil {
		return nil, false
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, false
		}
		m := member{name: name.(string)}
		if err := d.Decode(&m.value); err != nil {
			return nil, false
		}
		members = append(members, m)
	}
	return members, true
}

// checkStored expects these events, and no others, to be stored after the ID.
func checkStored(t *testing.T, s *host, after uint64, want []sse.Message) {
	t.Helper()
	var got []sse.Message
	_, err := s.db.Log("x").Read(t.Context(), after, func(e store.Event) bool {
		got = append(got, sse.Message{Type: e.Type, Data: string(e.Data)})
		return true
	})
	if len(want) > 1000 {
		want = want[len(want)-1000:]
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("stored are %q, %v; want %q", got, err, want)
	}
}
