//go:build unix

package main_test

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"lastevent/cmd/lastevent/servetest"
)

func TestCurlTellsAnEndFromACut(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t)
	s.MustPublish("x", 2, "one", "two")
	if out, err := servetest.Curl(s.Ctx, t, s.URL+"/sse/x?from=earliest&limit=2").Output(); err != nil || !strings.HasSuffix(string(out), "\ndata: two\n\n") {
		t.Errorf("limit: %q, %v", out, err)
	}
	cut := servetest.Curl(s.Ctx, t, s.URL+"/sse/x")
	out, err := cut.StdoutPipe()
	if err == nil {
		err = cut.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	s.ReadBlock(out)
	s.Stop()
	_, _ = io.ReadAll(out) // until curl ends
	var exit *exec.ExitError
	if err := cut.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 18 { // "only a part was transferred"
		t.Errorf("stop: curl ends with %v", err)
	}
}

func TestLimitIsACleanEnd(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t)
	s.MustPublish("x", 3, "one", "two", "three")
	const events = "id: 2\ndata: two\n\nid: 3\ndata: three\n\n"
	for _, test := range []struct{ version, end string }{
		{"HTTP/1.0", events},
		{"HTTP/1.1", events + "\r\n0\r\n\r\n"},
	} {
		conn := s.Dial()
		s.Send(conn, "GET /sse/x?limit=2 "+test.version+"\r\nHost: localhost\r\nLast-Event-ID: 1\r\n\r\n")
		got, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(got), test.version+" 200 ") || !strings.HasSuffix(string(got), test.end) {
			t.Errorf("%s: %v after %q", test.version, err, got)
		}
	}
}

func TestExpiredEventsAreNotServed(t *testing.T) {
	t.Parallel()
	const age = time.Second
	s := servetest.Start(t, "--retain-age", age.String())
	before := time.Now()
	s.MustPublish("brief", 3, "one", "two", "three")
	expired := time.Now().Add(age)
	a := s.Do("GET", "/sse/brief?from=earliest&limit=3", "")
	if young := time.Since(before) < age; young && !strings.HasSuffix(a.Body, "id: 3\ndata: three\n\n") {
		t.Errorf("while they are young: %q", a.Body)
	}
	time.Sleep(time.Until(expired))
	f := &servetest.Follower{Client: s.HTTP, URL: s.URL + "/sse/brief", Began: true, After: 1}
	sub, err := f.Subscribe(s.Ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Drop()
	for _, want := range []struct{ typ, data string }{
		{"gap", `{"reason":"evicted","lastEventId":"1","first":4,"last":3,"missed":2}`},
		{"position", fmt.Sprintf(`{"log":%q,"first":4,"last":3}`, s.LogID())},
	} {
		m, err := sub.Next()
		if err := cmp.Or(err, f.Take(m)); err != nil || m.Type != want.typ || m.Data != want.data {
			t.Fatalf("after they expired: %+v, %v; want %s", m, err, want)
		}
	}
	if first, last := s.Bounds("brief"); first != 4 || last != 3 {
		t.Errorf("first %d, last %d; want 4 and 3", first, last)
	}
	s.MustPublish("brief", 4, "four")
	expired = time.Now().Add(age)
	if err := f.Read(sub, f.UpTo(4)); err != nil {
		t.Errorf("the next event: %v", err)
	}
	time.Sleep(time.Until(expired))
	s.Kill()
	s.Restart()
	if first, last := s.Bounds("brief"); first != 5 || last != 4 {
		t.Errorf("after a restart first is %d, last %d; want 5 and 4", first, last)
	}
	s.MustPublish("brief", 5, "five")
	if err := f.Follow(s.Ctx, f.UpTo(5)); err != nil || f.Gaps != 1 {
		t.Errorf("after a restart: %d gaps, %v", f.Gaps, err)
	}
}
