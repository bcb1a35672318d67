//go:build unix

package main_test

import (
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"lastevent/cmd/lastevent/servetest"
)

func TestForeignPagesCannotPublishOrRead(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t)
	const evil = "evil.example"
	allowing := servetest.Start(t, "--allow-host", evil)
	for _, header := range [][]string{
		{"Origin", "https://" + evil},
		{"Origin", "null"},
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
		{"Sec-Fetch-Site", "cross-site", "Origin", s.URL},
		{"Host", evil},
		{"Host", evil + ":8080"},
		{"Host", evil, "Origin", "http://" + evil, "Sec-Fetch-Site", "same-origin"},
	} {
		s.CheckProblem(s.Do("POST", "/sse/x", "stolen", header...), http.StatusForbidden)
		if header[0] == "Host" {
			s.CheckProblem(s.Do("GET", "/sse/x?limit=1", "", header...), http.StatusForbidden)
			if a := s.Do("GET", "/", "", header...); a.Status != http.StatusForbidden {
				t.Errorf("GET / with %q: %d", header, a.Status)
			}
		}
	}
	if _, last := s.Bounds("x"); last != 0 {
		t.Errorf("last is %d: something was stored", last)
	}
	for i, header := range [][]string{
		{"Origin", s.URL, "Sec-Fetch-Site", "same-origin"},
		{"Sec-Fetch-Site", "none"},
		{"Host", "localhost:1"},
	} {
		if a := s.Do("POST", "/sse/x", "own", header...); a.Status != http.StatusCreated {
			t.Errorf("POST %d with %q: %d %q", i, header, a.Status, a.Body)
		}
	}
	a := s.Do("GET", "/sse/x?from=earliest&limit=1", "", "Origin", "https://"+evil)
	if allow := a.Header.Get("Access-Control-Allow-Origin"); allow != "" {
		t.Errorf("another origin may read: %q", allow)
	}
	if a := allowing.Do("POST", "/sse/x", "allowed", "Host", evil); a.Status != http.StatusCreated {
		t.Errorf("POST with the allowed host: %d", a.Status)
	}
	if a := allowing.Do("GET", "/sse/x?from=earliest&limit=1", "", "Host", evil+":8080"); a.Status != http.StatusOK {
		t.Errorf("GET with the allowed host: %d", a.Status)
	}
	allowing.CheckProblem(allowing.Do("GET", "/sse/x", "", "Host", "worse.example"), http.StatusForbidden)
}

func TestBadInputIsRefusedAndNothingStored(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t, "--time-every", "1h")
	s.MustPublish("x", 1, "good")
	type input struct {
		status         int
		method, target string
		body           string
		header         []string
	}
	inputs := []input{
		{403, "POST", "/time", "mine", nil},
		{413, "POST", "/x", strings.Repeat("x", 1<<20+1), nil},
		{415, "POST", "/x", "--b--", []string{"Content-Type", "multipart/form-data; boundary=b"}},
		{415, "POST", "/x", "zipped", []string{"Content-Encoding", "gzip"}},
		{400, "POST", "/x", "\xff", nil},
		{400, "POST", "/x", "half a \xe2\x82", nil},
		{403, "POST", "/time?close=true", "", nil},
		{403, "DELETE", "/time", "", nil},
		{400, "POST", "/x?close=maybe", "data", nil},
		{400, "POST", "/x", "data", []string{"Idempotency-Key", strings.Repeat("k", 256)}},
		{405, "PUT", "/x", "put", nil},
		{405, "PATCH", "/x", "patch", nil},
	}
	for _, typ := range []string{"position", "gap", "end", "a%0Ab", "a%0Db", "a%00b", "%FF", strings.Repeat("t", 256)} {
		inputs = append(inputs, input{400, "POST", "/x?event=" + typ, "data", nil})
	}
	for _, lines := range []string{
		"", "\n", "data\n", "[]\n", `"data"`, `{"event":"T"}`, `{"data":1,"id":7}`, `{"data":1} {"data":2}`, `{"data":"half`, "{\"data\":\"\xff\"}",
		`{"event":"end","data":1}`, `{"event":"a\nb","data":1}`, `{"event":7,"data":1}`,
	} {
		body := "{\"data\":\"good\"}\n" + lines
		if strings.TrimSpace(lines) == "" {
			body = lines
		}
		inputs = append(inputs, input{400, "POST", "/x", body, []string{"Content-Type", "application/x-ndjson"}})
	}
	for _, name := range []string{"", "/", "/x", "x/", "x//y", ".", "..", "x/.", "x/../y", "x/./y", "%2e%2e", "a%62", "a%2Fb", "a%20b", "a%00", "ä", "a:b", "a@b", "a*b", strings.Repeat("n", 256)} {
		inputs = append(inputs, input{400, "GET", "/" + name, "", nil}, input{400, "POST", "/" + name, "data", nil})
	}
	for _, query := range []string{
		"lastEventId=x", "lastEventId=-1", "lastEventId=18446744073709551616", "lastEventId=000000000000000000001",
		"from=yesterday", "from=-0", "from=-x", "from=10", "from=2026-13-01T00:00:00Z",
		"limit=0", "limit=-1", "limit=x", "limit=1.5", "limit=18446744073709551616", "from=%zz",
		"follow=maybe", "event=a%0Ab", "event=" + strings.Repeat("t", 256), "limit=1&limit=2",
	} {
		inputs = append(inputs, input{400, "GET", "/x?" + query, "", nil})
	}
	for _, query := range []string{
		"", "a&stream=a", "a&stream=b/", "a&stream=b&stream=c&stream=d&stream=e&stream=f&stream=g",
		"a&follow=false", "a&stream=b&lastEventId=1.x", "a&from=yesterday",
	} {
		inputs = append(inputs, input{400, "GET", "?stream=" + query, "", nil})
	}
	for _, in := range inputs {
		a := s.Do(in.method, "/sse"+in.target, in.body, in.header...)
		s.CheckProblem(a, in.status)
		allow := strings.Split(a.Header.Get("Allow"), ", ")
		if in.status == 405 && !(slices.Contains(allow, "GET") && slices.Contains(allow, "HEAD") && slices.Contains(allow, "POST")) {
			t.Errorf("%s: Allow is %q", in.method, allow)
		}
		if _, last := s.Bounds("x"); last != 1 {
			t.Errorf("last is %d: something was stored", last)
		}
		if t.Failed() {
			t.Fatalf("%s /sse%.100s %.20q %q", in.method, in.target, in.body, in.header)
		}
	}
	for _, path := range []string{"/", "/healthz", "/readyz"} {
		if a := s.Do("PUT", path, ""); a.Status != 405 || !strings.Contains(a.Header.Get("Allow"), "GET") {
			t.Errorf("PUT %s: %d, Allow %q", path, a.Status, a.Header.Get("Allow"))
		}
	}
	if _, last := s.Bounds("time"); last != 0 {
		t.Error("something was stored in the stream time")
	}
	s.MustPublish("x", 2, "good again")
}

func TestEventLargerThanWhatIsRetainedIsRefused(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t, "--retain-bytes", "1KiB")
	s.MustPublish("x", 1, strings.Repeat("x", 1024-len("message")))
	s.CheckProblem(s.Do("POST", "/sse/x", strings.Repeat("x", 1025-len("message"))), http.StatusRequestEntityTooLarge)
	if first, last := s.Bounds("x"); first != 1 || last != 1 {
		t.Errorf("first %d, last %d", first, last)
	}
}

func TestHalfSentRequestsHoldNobodyUp(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t)
	for range 20 {
		s.Send(s.Dial(), "GET /sse/x HTTP/1.1\r\nHost: loc")
		s.Send(s.Dial(), "POST /sse/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
		s.Send(s.Dial(), "POST /sse/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
		s.Dial() // sends nothing at all
	}
	// Half a body that is known to stay half is no event.
	halved := s.Dial()
	s.Send(halved, "POST /sse/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
	if err := halved.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(halved); err != nil || strings.HasPrefix(string(answer), "HTTP/1.1 2") {
		t.Errorf("half an event: %v, %q", err, answer)
	}
	f := &servetest.Follower{Client: s.HTTP, URL: s.URL + "/sse/x"}
	sub, err := f.Subscribe(s.Ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Drop()
	for id := range uint64(10) {
		s.MustPublish("x", id+1, "whole")
		if err := f.Read(sub, f.UpTo(id+1)); err != nil {
			t.Fatal(err)
		}
	}
	s.Stop()
	s.Restart()
	if _, last := s.Bounds("x"); last != 10 {
		t.Errorf("last is %d, want 10: half an event was stored", last)
	}
}
