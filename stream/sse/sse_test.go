package sse_test

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"lastevent/stream/sse"
)

func TestAppendEvent(t *testing.T) {
	megabyte := strings.Repeat("0123456789abcdef", 1<<16)
	for _, test := range []struct {
		name string
		typ  string
		id   uint64
		data string
		want string
	}{
		{"fields in order", "time", 42, "2026-01-02T03:04:05.000000006Z", "event: time\nid: 42\ndata: 2026-01-02T03:04:05.000000006Z\n\n"},
		{"no event for message", "message", 1, "x", "id: 1\ndata: x\n\n"},
		{"another case is another type", "Message", 1, "x", "event: Message\nid: 1\ndata: x\n\n"},
		{"type with spaces and colons", " a: b ", 1, "x", "event:  a: b \nid: 1\ndata: x\n\n"},
		{"smallest ID", "message", 0, "x", "id: 0\ndata: x\n\n"},
		{"greatest ID", "message", 1<<64 - 1, "x", "id: 18446744073709551615\ndata: x\n\n"},
		{"empty data", "message", 1, "", "id: 1\ndata: \n\n"},
		{"LF", "message", 1, "a\nb", "id: 1\ndata: a\ndata: b\n\n"},
		{"CRLF", "message", 1, "a\r\nb", "id: 1\ndata: a\ndata: b\n\n"},
		{"CR", "message", 1, "a\rb", "id: 1\ndata: a\ndata: b\n\n"},
		{"all three, mixed", "message", 1, "a\r\nb\rc\nd", "id: 1\ndata: a\ndata: b\ndata: c\ndata: d\n\n"},
		{"LF before CR is two", "message", 1, "a\n\rb", "id: 1\ndata: a\ndata: \ndata: b\n\n"},
		{"CR before CRLF is two", "message", 1, "a\r\r\nb", "id: 1\ndata: a\ndata: \ndata: b\n\n"},
		{"trailing LF", "message", 1, "a\n", "id: 1\ndata: a\ndata: \n\n"},
		{"trailing CRLF", "message", 1, "a\r\n", "id: 1\ndata: a\ndata: \n\n"},
		{"trailing CR", "message", 1, "a\r", "id: 1\ndata: a\ndata: \n\n"},
		{"trailing LFs", "message", 1, "a\n\n", "id: 1\ndata: a\ndata: \ndata: \n\n"},
		{"only LF", "message", 1, "\n", "id: 1\ndata: \ndata: \n\n"},
		{"only CR", "message", 1, "\r", "id: 1\ndata: \ndata: \n\n"},
		{"only CRLF", "message", 1, "\r\n", "id: 1\ndata: \ndata: \n\n"},
		{"leading LF", "message", 1, "\na", "id: 1\ndata: \ndata: a\n\n"},
		{"leading space", "message", 1, " a", "id: 1\ndata:  a\n\n"},
		{"leading spaces on each line", "message", 1, "  a\n  b", "id: 1\ndata:   a\ndata:   b\n\n"},
		{"leading tab", "message", 1, "\ta", "id: 1\ndata: \ta\n\n"},
		{"colons", "message", 1, ":a: b:", "id: 1\ndata: :a: b:\n\n"},
		{"what looks like a field", "message", 1, "x\nid: 7\nevent: evil\n\ndata: y", "id: 1\ndata: x\ndata: id: 7\ndata: event: evil\ndata: \ndata: data: y\n\n"},
		{"BOM", "message", 1, "\ufeffa", "id: 1\ndata: \ufeffa\n\n"},
		{"NUL", "message", 1, "a\x00b", "id: 1\ndata: a\x00b\n\n"},
		{"other line ends are none", "message", 1, "a\u2028b\u0085c\vd\fe", "id: 1\ndata: a\u2028b\u0085c\vd\fe\n\n"},
		{"emoji", "🎉", 1, "👩‍👩‍👧 ok", "event: 🎉\nid: 1\ndata: 👩‍👩‍👧 ok\n\n"},
		{"1 MiB", "message", 1, megabyte, "id: 1\ndata: " + megabyte + "\n\n"},
		{"1 MiB of line ends", "message", 1, strings.Repeat("\n", 1<<20), "id: 1\n" + strings.Repeat("data: \n", 1<<20+1) + "\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			data := []byte(test.data)
			got := string(sse.AppendEvent(nil, test.typ, test.id, data))
			if got != test.want {
				t.Errorf("got  %.200q\nwant %.200q", got, test.want)
			}
			if string(data) != test.data {
				t.Error("the data was changed")
			}
		})
	}
}

func TestAppendControl(t *testing.T) {
	got := string(sse.AppendControl(nil, "gap", []byte(`{"missed":130}`)))
	if want := "event: gap\ndata: {\"missed\":130}\n\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAppendRetry(t *testing.T) {
	for d, want := range map[time.Duration]string{
		time.Second:      "retry: 1000\n",
		time.Millisecond: "retry: 1\n",
		1999*time.Microsecond + 999*time.Nanosecond: "retry: 1\n",
		24 * time.Hour:                         "retry: 86400000\n",
		time.Second + 700*time.Millisecond + 1: "retry: 1700\n",
		time.Duration(0):                       "retry: 0\n",
	} {
		if got := string(sse.AppendRetry(nil, d)); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

func TestAppendKeepsWhatIsThere(t *testing.T) {
	p := []byte("before ")
	p = sse.AppendRetry(p, time.Second)
	p = sse.AppendControl(p, "gap", []byte("g"))
	p = sse.AppendEvent(p, "message", 1, []byte("a\nb"))
	want := "before retry: 1000\nevent: gap\ndata: g\n\nid: 1\ndata: a\ndata: b\n\n"
	if string(p) != want {
		t.Errorf("got %q, want %q", p, want)
	}
}

func TestHeartbeat(t *testing.T) {
	// With a blank line, some clients would make an empty message of it.
	if sse.Heartbeat != ":\n" {
		t.Errorf("heartbeat is %q", sse.Heartbeat)
	}
}

// messages reads all that there is. The error is that of the last read, io.EOF at
// a clean end of the input.
func messages(r io.Reader, limit int) ([]sse.Message, error) {
	var got []sse.Message
	reader := sse.NewReader(r, limit)
	for {
		m, err := reader.Next()
		if err != nil {
			return got, err
		}
		got = append(got, m)
	}
}

// arrivals are ways in which the same bytes may reach a reader.
var arrivals = map[string]func(io.Reader) io.Reader{
	"at once":               func(r io.Reader) io.Reader { return r },
	"byte by byte":          iotest.OneByteReader,
	"in halves":             iotest.HalfReader,
	"the end with the rest": iotest.DataErrReader,
}

// cases of what an EventSource makes of a stream. The fuzz targets start from them.
var parsed = []struct {
	name string
	in   string
	want []sse.Message
}{
	{"nothing", "", nil},
	{"one event", "data: x\n\n", []sse.Message{{Type: "message", Data: "x"}}},
	{"all fields", "event: t\nid: 7\nretry: 50\ndata: x\n\n", []sse.Message{{Type: "t", ID: "7", Data: "x", Retry: 50 * time.Millisecond}}},
	{"any order", "data: x\nretry: 50\nid: 7\nevent: t\n\n", []sse.Message{{Type: "t", ID: "7", Data: "x", Retry: 50 * time.Millisecond}}},
	{"several lines", "data: x\ndata: y\ndata:\n\n", []sse.Message{{Type: "message", Data: "x\ny\n"}}},
	{"empty data is an event", "data:\n\n", []sse.Message{{Type: "message"}}},
	{"empty data with a space", "data: \n\n", []sse.Message{{Type: "message"}}},
	{"two empty data lines", "data\ndata\n\n", []sse.Message{{Type: "message", Data: "\n"}}},
	{"one space is taken off", "data:x\ndata: x\ndata:  x\ndata:\tx\n\n", []sse.Message{{Type: "message", Data: "x\nx\n x\n\tx"}}},
	{"a space before the colon is part of the name", "data : x\ndata: y\n\n", []sse.Message{{Type: "message", Data: "y"}}},
	{"a space before the name, too", " data: x\ndata: y\n\n", []sse.Message{{Type: "message", Data: "y"}}},
	{"names are case-sensitive", "Data: x\nDATA: x\ndata: y\n\n", []sse.Message{{Type: "message", Data: "y"}}},
	{"colons in the value", "data: a:b: c\n\n", []sse.Message{{Type: "message", Data: "a:b: c"}}},
	{"comments", ": hello\n:\ndata: x\n:between\n\n:\n\n", []sse.Message{{Type: "message", Data: "x"}}},
	{"heartbeats between events", ":\ndata: x\n\n:\n:\ndata: y\n\n", []sse.Message{{Type: "message", Data: "x"}, {Type: "message", Data: "y"}}},
	{"field without a colon", "data\n\n", []sse.Message{{Type: "message"}}},
	{"event without a colon", "event: t\nevent\ndata: x\n\n", []sse.Message{{Type: "message", Data: "x"}}},
	{"id without a colon empties it", "id: 7\ndata: x\n\nid\ndata: y\n\n", []sse.Message{{Type: "message", ID: "7", Data: "x"}, {Type: "message", Data: "y"}}},
	{"unknown fields", "foo: bar\nfoo\ndata: x\n\n", []sse.Message{{Type: "message", Data: "x"}}},
	{"the last type counts", "event: a\nevent: b\ndata: x\n\n", []sse.Message{{Type: "b", Data: "x"}}},
	{"the type is for one event", "event: a\ndata: x\n\ndata: y\n\n", []sse.Message{{Type: "a", Data: "x"}, {Type: "message", Data: "y"}}},
	{"the type of a block without data is dropped", "event: a\n\ndata: y\n\n", []sse.Message{{Type: "message", Data: "y"}}},
	{"the ID persists", "id: 7\ndata: x\n\ndata: y\n\nid: 8\ndata: z\n\n", []sse.Message{{Type: "message", ID: "7", Data: "x"}, {Type: "message", ID: "7", Data: "y"}, {Type: "message", ID: "8", Data: "z"}}},
	{"a block without data sets the ID", "id: 7\n\ndata: y\n\n", []sse.Message{{Type: "message", ID: "7", Data: "y"}}},
	{"the last ID counts", "id: 7\nid: 8\ndata: x\n\n", []sse.Message{{Type: "message", ID: "8", Data: "x"}}},
	{"an ID with NUL is ignored", "id: 7\nid: 8\x00\ndata: x\n\n", []sse.Message{{Type: "message", ID: "7", Data: "x"}}},
	{"an ID need not be a number", "id: a b:c\ndata: x\n\n", []sse.Message{{Type: "message", ID: "a b:c", Data: "x"}}},
	{"retry persists", "retry: 50\ndata: x\n\ndata: y\n\n", []sse.Message{{Type: "message", Data: "x", Retry: 50 * time.Millisecond}, {Type: "message", Data: "y", Retry: 50 * time.Millisecond}}},
	{"retry in a block of its own", "retry: 50\n\ndata: x\n\n", []sse.Message{{Type: "message", Data: "x", Retry: 50 * time.Millisecond}}},
	{"retry that is no number is ignored", "retry: 50\nretry: 5x\nretry: -1\nretry: +1\nretry: 1.5\nretry: 1_0\nretry:\nretry:  1\nretry: 0x10\ndata: x\n\n", []sse.Message{{Type: "message", Data: "x", Retry: 50 * time.Millisecond}}},
	{"retry with leading zeros", "retry: 007\ndata: x\n\n", []sse.Message{{Type: "message", Data: "x", Retry: 7 * time.Millisecond}}},
	{"CR", "data: x\rdata: y\r\rdata: z\r\r", []sse.Message{{Type: "message", Data: "x\ny"}, {Type: "message", Data: "z"}}},
	{"CRLF", "data: x\r\ndata: y\r\n\r\ndata: z\r\n\r\n", []sse.Message{{Type: "message", Data: "x\ny"}, {Type: "message", Data: "z"}}},
	{"one CRLF event", "data: x\r\n\r\n", []sse.Message{{Type: "message", Data: "x"}}},
	{"line ends mixed", "data: x\rdata: y\n\r\ndata: z\r\n\n", []sse.Message{{Type: "message", Data: "x\ny"}, {Type: "message", Data: "z"}}},
	{"LF and CR are two line ends", "data: x\n\rdata: y\n\n", []sse.Message{{Type: "message", Data: "x"}, {Type: "message", Data: "y"}}},
	{"other line ends are none", "data: a\u2028b\u0085c\vd\fe\n\n", []sse.Message{{Type: "message", Data: "a\u2028b\u0085c\vd\fe"}}},
	{"blank lines", "\n\n\r\n\r\rdata: x\n\n\n\n", []sse.Message{{Type: "message", Data: "x"}}},
	{"cut off before its blank line", "data: x\n\nid: 9\ndata: y\n", []sse.Message{{Type: "message", Data: "x"}}},
	{"cut off in a line", "data: x\n\ndata: y", []sse.Message{{Type: "message", Data: "x"}}},
	{"cut off after a CR", "data: x\r", nil},
	{"BOM at the start", "\ufeffdata: x\n\n", []sse.Message{{Type: "message", Data: "x"}}},
	{"BOM before a comment", "\ufeff:\ndata: x\n\n", []sse.Message{{Type: "message", Data: "x"}}},
	{"two BOMs", "\ufeff\ufeffdata: x\ndata: y\n\n", []sse.Message{{Type: "message", Data: "y"}}},
	{"BOM later", "data: x\n\n\ufeffdata: y\ndata: \ufeffz\n\n", []sse.Message{{Type: "message", Data: "x"}, {Type: "message", Data: "\ufeffz"}}},
	{"NUL in data and type", "event: a\x00\ndata: b\x00\n\n", []sse.Message{{Type: "a\x00", Data: "b\x00"}}},
}

func TestReader(t *testing.T) {
	for _, test := range parsed {
		for how, arrive := range arrivals {
			t.Run(test.name+"/"+how, func(t *testing.T) {
				got, err := messages(arrive(strings.NewReader(test.in)), 1<<10)
				if err != io.EOF {
					t.Errorf("error %v, want io.EOF", err)
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("of %q (-want +got):\n%s", test.in, diff)
				}
			})
		}
	}
}

// A reader on a live connection must not wait for more than the event's own end.
func TestReaderDoesNotWait(t *testing.T) {
	for _, in := range []string{
		"data: x\n\n",
		"data: x\r\r",
		"id: 1\r\ndata: x\r\n\r", // the LF may be long in coming
		"id: 1\r\ndata: x\r\n\r\n",
	} {
		in := []byte(in)
		reads := 0
		r := sse.NewReader(readerFunc(func(p []byte) (int, error) {
			if reads++; reads > 1 {
				return 0, errors.New("read on")
			}
			return copy(p, in), nil
		}), 1<<10)
		if m, err := r.Next(); err != nil || m.Data != "x" {
			t.Errorf("of %q: got %+v, %v", in, m, err)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestReaderAfterTheEnd(t *testing.T) {
	r := sse.NewReader(strings.NewReader("data: x\n\ndata: y"), 1<<10)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if m, err := r.Next(); err != io.EOF {
			t.Errorf("got %+v, %v, want io.EOF", m, err)
		}
	}
}

// What broke a connection off must be told from its end.
func TestReaderPassesErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	in := io.MultiReader(strings.NewReader("data: x\n\ndata: y\n"), iotest.ErrReader(broken))
	got, err := messages(in, 1<<10)
	if len(got) != 1 || !errors.Is(err, broken) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestReaderLimit(t *testing.T) {
	const limit = 1000
	long := strings.Repeat("x", limit)
	for _, test := range []struct {
		name, in string
		ok       bool
	}{
		{"just as long", "data: " + long + "\n\n", true},
		{"just as long, CRLF", "data: " + long + "\r\n\r\n", true},
		{"just as long, without a space", "data:" + long + "\n\n", true},
		{"just as long, in lines", "data: " + long[:499] + "\ndata: " + long[:500] + "\n\n", true},
		{"just as long, all lines empty", strings.Repeat("data\n", limit+1) + "\n", true},
		{"one too many", "data: " + long + "x\n\n", false},
		{"one too many, in lines", "data: " + long[:500] + "\ndata: " + long[:500] + "\n\n", false},
		{"one too many, all lines empty", strings.Repeat("data\n", limit+2) + "\n", false},
		{"much too long a line", "data: " + strings.Repeat(long, 100), false},
		{"much too long a comment", ":" + strings.Repeat(long, 100), false},
		{"much too many lines", strings.Repeat("data: "+long+"\n", 100), false},
		{"comments do not count", strings.Repeat(":\n", 10*limit) + "data: " + long + "\n\n", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := messages(strings.NewReader(test.in), limit)
			if test.ok && (len(got) != 1 || err != io.EOF) {
				t.Errorf("got %d messages, %v", len(got), err)
			}
			if !test.ok && (len(got) != 0 || !errors.Is(err, sse.ErrTooLong)) {
				t.Errorf("got %d messages, %v, want ErrTooLong", len(got), err)
			}
		})
	}
}

// What was appended can be taken apart again.
func TestSplit(t *testing.T) {
	for _, typ := range []string{"message", "time", "a: b", " ", "id: 1", "event: x", "🎉"} {
		for _, data := range []string{"", "x", "event: y\nid: 2", "\n\n"} {
			event := sse.AppendEvent(nil, typ, 42, []byte(data))
			if got := sse.TypeOf(event); string(got) != typ {
				t.Errorf("of %q: type %q", event, got)
			}
			head, id, rest := sse.Split(event)
			if string(id) != "id: 42\n" || string(head)+string(id)+string(rest) != string(event) {
				t.Errorf("of %q: %q, %q and %q", event, head, id, rest)
			}
			if text := sse.AppendEventText(nil, typ, "42", []byte(data)); string(text) != string(event) {
				t.Errorf("with a text for an ID: %q, want %q", text, event)
			}
		}
	}
}

var lineEnds = strings.NewReplacer("\r\n", "\n", "\r", "\n")

// What is written reaches a client: the type and the ID as they were, line ends in
// the data as LF.
func FuzzFields(f *testing.F) {
	for _, data := range []string{"", "a", "a\nb", "\n", "a\n\n", "data: a\ndata: b", "\ndata: ", "event: x\n\nid: 1"} {
		f.Add("message", []byte(data), []byte("data: "+data+"\n\n"))
		f.Add("", []byte(data), []byte("id: 1\n"+data))
	}
	f.Fuzz(func(t *testing.T, typ string, data, anything []byte) {
		sse.Fields(anything) // does not panic
		if strings.ContainsAny(typ, "\r\n") || bytes.ContainsRune(data, '\r') {
			return
		}
		event := sse.AppendEvent(nil, typ, 7, data)
		if gotType, got := sse.Fields(event); string(gotType) != typ || !bytes.Equal(got, data) {
			t.Errorf("%q with %q has become %q with %q", typ, data, gotType, got)
		}
	})
}

func FuzzRoundTrip(f *testing.F) {
	for _, data := range []string{"", "x", "a\nb", "a\r\nb\rc", "\n", "\r\r\n\n", " x", ":", "\ufeff", "\x00", "🎉", "id: 7\n\ndata: evil"} {
		f.Add("message", uint64(1), data)
		f.Add(" t:\x00", uint64(1<<64-1), data)
	}
	f.Fuzz(func(t *testing.T, typ string, id uint64, data string) {
		if typ == "" || strings.ContainsAny(typ, "\r\n") {
			t.Skip("not a type")
		}
		p := sse.AppendRetry(nil, time.Second)
		p = sse.AppendEvent(p, "position", 3, []byte("p"))
		p = append(p, sse.Heartbeat...)
		p = sse.AppendEvent(p, typ, id, []byte(data))
		p = append(p, sse.Heartbeat...)
		p = sse.AppendControl(p, "gap", []byte(data))
		want := []sse.Message{
			{Type: "position", ID: "3", Data: "p", Retry: time.Second},
			{Type: typ, ID: strconv.FormatUint(id, 10), Data: lineEnds.Replace(data), Retry: time.Second},
			{Type: "gap", ID: strconv.FormatUint(id, 10), Data: lineEnds.Replace(data), Retry: time.Second},
		}
		for how, arrive := range arrivals {
			got, err := messages(arrive(bytes.NewReader(p)), len(data)+len(typ)+64)
			if diff := cmp.Diff(want, got); diff != "" || err != io.EOF {
				t.Errorf("%s, of %q: %v (-want +got):\n%s", how, p, err, diff)
			}
		}
	})
}

// A reader takes anything, gives what a plain reading of the standard gives, and
// keeps its limit.
func FuzzReader(f *testing.F) {
	for _, test := range parsed {
		f.Add([]byte(test.in), uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, small uint8) {
		want := parse(string(in))
		for how, arrive := range arrivals {
			got, err := messages(arrive(bytes.NewReader(in)), len(in)+64)
			if diff := cmp.Diff(want, got); diff != "" || err != io.EOF {
				t.Errorf("%s, of %q: %v (-want +got):\n%s", how, in, err, diff)
			}
		}
		got, err := messages(bytes.NewReader(in), int(small))
		if err != io.EOF && !errors.Is(err, sse.ErrTooLong) {
			t.Errorf("with a limit of %d: %v", small, err)
		}
		for i, m := range got {
			if len(m.Data) > int(small) {
				t.Errorf("with a limit of %d: %d bytes", small, len(m.Data))
			}
			if i >= len(want) || m != want[i] {
				t.Errorf("with a limit of %d: %+v", small, m)
			}
		}
	})
}

// parse is section 9.2.6 of the HTML standard, "Interpreting an event stream",
// word for word.
func parse(in string) (got []sse.Message) {
	in = lineEnds.Replace(strings.TrimPrefix(in, "\ufeff"))
	lines := strings.Split(in, "\n")
	lines = lines[:len(lines)-1] // the last is not ended
	var data, typ, id, lastID string
	var retry time.Duration
	for _, line := range lines {
		if line == "" {
			lastID = id
			if data != "" {
				m := sse.Message{Type: "message", ID: lastID, Data: strings.TrimSuffix(data, "\n"), Retry: retry}
				if typ != "" {
					m.Type = typ
				}
				got = append(got, m)
			}
			data, typ = "", ""
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "event":
			typ = value
		case "data":
			data += value + "\n"
		case "id":
			if !strings.Contains(value, "\x00") {
				id = value
			}
		case "retry":
			ms := 0
			for _, c := range value {
				if c < '0' || c > '9' || ms > 1<<31 {
					ms = -1
					break
				}
				ms = 10*ms + int(c-'0')
			}
			// What no timer takes is as good as nothing.
			if value != "" && ms >= 0 && ms < 1<<31 {
				retry = time.Duration(ms) * time.Millisecond
			}
		}
	}
	return got
}

func BenchmarkAppendEvent(b *testing.B) {
	for name, data := range map[string]string{
		"120B":       strings.Repeat("x", 120),
		"64KiB":      strings.Repeat("x", 64<<10),
		"64KiBLines": strings.Repeat("0123456789abcde\n", 4<<10),
		"64KiBCRLF":  strings.Repeat("0123456789abcd\r\n", 4<<10),
	} {
		b.Run(name, func(b *testing.B) {
			data := []byte(data)
			buf := make([]byte, 0, 256<<10)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				buf = sse.AppendEvent(buf[:0], "time", 1234567, data)
			}
		})
	}
}

func BenchmarkReader(b *testing.B) {
	var p []byte
	for id := range uint64(1000) {
		p = sse.AppendEvent(p, "time", id, []byte("2026-01-02T03:04:05.000000006Z"))
	}
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if got, err := messages(bytes.NewReader(p), 1<<20); len(got) != 1000 || err != io.EOF {
			b.Fatal(len(got), err)
		}
	}
}
