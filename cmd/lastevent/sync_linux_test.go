package main_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lastevent/cmd/lastevent/servetest"
)

// The commits of a run, and the syncs of each. The large one makes the file grow.
var syncedCommits = []struct {
	syncs  []string // as strace injects into them
	events int
	method string
	target string
	body   string
	typ    string
}{
	{[]string{"fdatasync:when=1", "fdatasync:when=2"}, 1, "POST", "/sse/s", "first", "text/plain"},
	{[]string{"fdatasync:when=1", "fdatasync:when=2"}, 3, "POST", "/sse/s", "{\"data\":\"a\"}\n{\"data\":\"b\"}\n{\"data\":\"c\"}\n", "application/x-ndjson"},
	{[]string{"fdatasync:when=1", "fdatasync:when=2"}, 0, "DELETE", "/sse/s", "", ""},
	{[]string{"fsync:when=1", "fdatasync:when=1", "fdatasync:when=2"}, 1, "POST", "/sse/s", strings.Repeat("large ", 10_000), "text/plain"},
	{[]string{"fdatasync:when=1", "fdatasync:when=2"}, 1, "POST", "/sse/s?close=true", "last", "text/plain"},
}

// TestEachSyncFails has, in one run after another, each single sync fail. Nobody is
// shown what its commit was about, and the process ends and says why.
func TestEachSyncFails(t *testing.T) {
	servetest.NeedStrace(t)
	for i, commit := range syncedCommits {
		for _, sync := range commit.syncs {
			t.Run(fmt.Sprint("commit ", i, " ", sync), func(t *testing.T) {
				t.Parallel()
				// The second sync may be another thread's, for which it is the first.
				for range 20 {
					if failSync(t, i, strings.Replace(sync, ":", ":error=EIO:delay_enter=10000:", 1)) {
						return
					}
				}
				t.Error("the sync never failed")
			})
		}
	}
}

// A syncRun is a server, and what was acknowledged.
type syncRun struct {
	*servetest.Server
	t      *testing.T
	events uint64
}

// do makes a commit, with its key.
func (r *syncRun) do(i int) servetest.Answer {
	c := syncedCommits[i]
	return r.Do(c.method, c.target, c.body, "Content-Type", c.typ, "Idempotency-Key", fmt.Sprint(i))
}

// mustDo makes a commit that succeeds.
func (r *syncRun) mustDo(i int) {
	c := syncedCommits[i]
	r.events += uint64(c.events)
	r.t.Helper()
	a := r.do(i)
	want := fmt.Sprintf("{\"id\":%d,\"count\":%d}\n", r.events, c.events)
	if c.method == "POST" && (a.Status != http.StatusCreated || a.Body != want) || c.method == "DELETE" && a.Status != http.StatusNoContent {
		r.t.Fatalf("commit %d: %d %s; want %s", i, a.Status, a.Body, want)
	}
}

// failSync has a sync of the commit fail, and reports whether it did.
func failSync(t *testing.T, commit int, injection string) bool {
	r := &syncRun{Server: servetest.Start(t), t: t}
	f := &servetest.Follower{Client: &http.Client{Transport: &http.Transport{}}, URL: r.URL + "/sse/s", Seen: servetest.NewLedger()}
	sub, err := f.Subscribe(r.Ctx)
	if err == nil {
		err = f.Read(sub, func() bool { return !f.Began })
	}
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() { read <- f.Read(sub, func() bool { return true }) }()
	for i := range commit {
		r.mustDo(i)
	}
	late := r.Dial() // accepted before the sync fails, and complete only after it
	r.Send(late, "POST /sse/s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nla")
	log := r.Inject(injection)
	watched := make(chan error, 1)
	failed := make(chan struct{})
	go func() { watched <- r.watch(failed) }()
	a := r.do(commit)
	if a.Status < 300 { // its second sync was another thread's
		r.Kill()
		<-read
		<-watched
		return false
	}
	close(failed)
	r.CheckProblem(a, http.StatusInternalServerError)
	if !strings.Contains(a.Body, `"outcome":"unknown"`) {
		t.Errorf("the publisher gets %s", a.Body)
	}
	r.Send(late, "te")
	a = answer(t, late)
	r.CheckProblem(a, http.StatusServiceUnavailable)
	if a.Header.Get("Retry-After") == "" {
		t.Errorf("a later publisher gets %v %s", a.Header, a.Body)
	}
	if err := <-watched; err != nil {
		t.Error(err)
	}

	reason := r.WaitFailed(1)
	if !strings.Contains(reason, r.DB) || !strings.Contains(reason, "input/output error") {
		t.Errorf("the log ends with %s", reason)
	}
	if trace := log(); strings.Count(trace, "(INJECTED)") != 1 {
		t.Errorf("not one call failed:\n%s", trace)
	}
	if err := <-read; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the subscription ends with %v; want a cut", err)
	}
	if shown, _ := f.Seen.Len(); uint64(shown) != r.events || f.After != r.events {
		t.Errorf("the subscriber was shown %d events, up to %d; %d were acknowledged", shown, f.After, r.events)
	}
	r.Restart()
	for i := commit; i < len(syncedCommits); i++ { // the first of them again
		r.mustDo(i)
		err := f.Resume(r.Ctx, r.events, func() bool { return false })
		if err != nil || uint64(f.Events) != r.events || f.Gaps > 0 {
			t.Errorf("the subscriber resumes: %d events of %d, %d gaps, %v", f.Events, r.events, f.Gaps, err)
		}
	}
	if first, last := r.Bounds("s"); first != 5 || last != r.events {
		t.Errorf("in the end there are %d to %d; want 5 to %d", first, last, r.events)
	}
	return true
}

// watch asks for the events and for readiness, over and over, until nobody answers any
// more. No event is to be shown that was not acknowledged; and once a publisher knows
// that a sync has failed, which is what failed tells, nobody is told that the server
// is ready: the answer is 503, or there is none.
func (r *syncRun) watch(failed <-chan struct{}) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	acknowledged := fmt.Sprint(r.events)
	for {
		res, err := client.Get(r.URL + "/sse/s?follow=false")
		if err != nil {
			return nil
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if last := res.Header.Get("Stream-Last-Id"); err == nil && (last != acknowledged || strings.Contains(string(body), fmt.Sprintf(`"id":%d`, r.events+1))) {
			return fmt.Errorf("after %s events a reader gets %s %.500q", acknowledged, last, body)
		}
		known := false
		select {
		case <-failed:
			known = true
		default:
		}
		if res, err = client.Get(r.URL + "/readyz"); err != nil {
			return nil
		}
		res.Body.Close()
		if known && res.StatusCode != http.StatusServiceUnavailable {
			return fmt.Errorf("after a failed sync readyz is %d", res.StatusCode)
		}
	}
}

func answer(t *testing.T, conn net.Conn) servetest.Answer {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return servetest.Answer{Status: res.StatusCode, Header: res.Header, Body: string(body)}
}

// TestEachSyncOfANewFileFails: the program says so, and what it leaves is nothing, or
// a file that is whole.
func TestEachSyncOfANewFileFails(t *testing.T) {
	servetest.NeedStrace(t)
	failed := 0
	for _, call := range []string{"fdatasync", "fsync"} {
		for n := 1; ; n++ {
			dir := t.TempDir()
			path := filepath.Join(dir, "x.db")
			// So that the program ends in any case, what follows the syncs fails as well.
			injections := []string{fmt.Sprintf("%s:error=EIO:when=%d", call, n), "fadvise64:error=EIO"}
			status, stderr, trace := servetest.RunInjected(t, dir, injections, "--listen", "127.0.0.1:0", "--time-every", "0", "--db", path)
			injected := strings.Contains(trace, call+"(") && strings.Count(trace, "(INJECTED)") > strings.Count(trace, "fadvise64(")
			if status != 1 || !strings.Contains(stderr, path) || !strings.Contains(stderr, "input/output error") {
				t.Errorf("%s %d fails: status %d, %s", call, n, status, stderr)
			}
			files, err := os.ReadDir(dir)
			if whole := len(files) == 1 && files[0].Name() == "x.db"; err != nil || len(files) > 0 && !whole {
				t.Errorf("%s %d fails, and leaves %v, %v", call, n, files, err)
			}
			s := servetest.Start(t, "--db", path)
			s.MustPublish("s", 1, "first")
			s.Stop()
			if !injected {
				break
			}
			failed++
		}
	}
	if failed < 5 {
		t.Errorf("%d syncs failed, which tests little", failed)
	}
}
