//go:build unix

// The program from outside, as its users have it: the built binary, its command
// line, its file, and clients over TCP.
package lastevent_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lastevent/cmd/lastevent/servetest"
	"lastevent/stream/sse"
)

func TestMain(m *testing.M) { servetest.Main(m) }

func TestCurlResumesWithoutHoleOrRepeat(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t, "--time-every", "15ms")
	const rounds, each = 5, 15
	var (
		f    servetest.Follower
		last time.Time
	)
	for range rounds {
		args := []string{s.URL + "/sse/time"}
		if f.Began {
			args = append(args, "-H", fmt.Sprint("Last-Event-ID: ", f.After))
		}
		cmd := servetest.Curl(s.Ctx, t, args...)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		messages := sse.NewReader(out, 1<<16)
		for n := 0; ; n++ {
			m, err := messages.Next()
			if err != nil {
				break // killed
			}
			if n == each {
				_ = cmd.Process.Kill() // an error shows as one of too few events
			}
			if err := f.Take(m); err != nil {
				t.Fatal(err)
			}
			if m.Type == "position" {
				continue
			}
			at, err := time.Parse(time.RFC3339Nano, m.Data)
			if m.Type != "time" || err != nil || at.Before(last) {
				t.Fatalf("event %s is a %s of %q, after one of %v", m.ID, m.Type, m.Data, last)
			}
			last = at
		}
		_ = cmd.Wait() // it was killed
	}
	if f.Events < rounds*each || f.Gaps > 0 {
		t.Fatalf("%d events and %d gaps in %d rounds", f.Events, f.Gaps, rounds)
	}
}

func TestDroppingClientsGetTheWholeSequence(t *testing.T) {
	t.Parallel()
	const producers, each, clients = 4, 500, 50
	const total = producers * each
	s := servetest.Start(t)
	seen := servetest.NewLedger()
	// All are cut off before the first event, with nothing but the position.
	followers := make([]*servetest.Follower, clients)
	for i := range followers {
		f := &servetest.Follower{Client: s.HTTP, URL: s.URL + "/sse/busy", Seen: seen}
		if err := f.Follow(s.Ctx, func() bool { return !f.Began }); err != nil {
			t.Fatal(err)
		}
		followers[i] = f
	}
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			for i := range each {
				e := servetest.Event{Type: "message", Data: fmt.Sprintf("producer %d\nevent %d", p, i)}
				if i%3 == 0 {
					e.Type = "third"
				}
				id, err := s.Publish("busy", e)
				if err := cmp.Or(err, seen.Acknowledge(id, e)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var drops atomic.Int64
	for i, f := range followers {
		rnd := rand.New(rand.NewPCG(2, uint64(i)))
		wg.Go(func() {
			for f.After < total {
				messages := 1 + rnd.IntN(150)
				err := f.Follow(s.Ctx, func() bool {
					messages--
					return messages >= 0 && f.After < total
				})
				if err != nil {
					t.Error(err)
					return
				}
				drops.Add(1)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	if known, acked := seen.Len(); acked != total || known != total {
		t.Errorf("%d events were acknowledged and %d seen, of %d", acked, known, total)
	}
	for i, f := range followers {
		if f.Events != total || f.Gaps > 0 {
			t.Errorf("client %d has %d events and %d gaps", i, f.Events, f.Gaps)
		}
	}
	t.Logf("%d clients dropped %d times", clients, drops.Load())
}

func TestGapSaysExactlyWhatIsMissed(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t, "--retain-events", "100")
	s.MustPublish("ring", 250, servetest.Numbered(250)...)
	log := s.LogID()
	var events strings.Builder
	for id := 151; id <= 250; id++ {
		fmt.Fprintf(&events, "id: %d\ndata: event %d\n\n", id, id)
	}
	position := fmt.Sprintf("event: position\nid: 150\ndata: {\"log\":%q,\"first\":151,\"last\":250}\n\n", log)
	lost := func(reason, id string) string {
		echo, _ := json.Marshal(id) // a string has no error
		return fmt.Sprintf(`{"reason":%q,"lastEventId":%s,"first":151,"last":250,"missed":null}`, reason, echo)
	}
	for _, test := range []struct{ header, query, gap string }{
		{"20", "", `{"reason":"evicted","lastEventId":"20","first":151,"last":250,"missed":130}`},
		{"", "lastEventId=20", `{"reason":"evicted","lastEventId":"20","first":151,"last":250,"missed":130}`},
		{"149", "lastEventId=200", `{"reason":"evicted","lastEventId":"149","first":151,"last":250,"missed":1}`},
		{"0", "", `{"reason":"evicted","lastEventId":"0","first":151,"last":250,"missed":150}`},
		{"20", "log=" + log, `{"reason":"evicted","lastEventId":"20","first":151,"last":250,"missed":130}`},
		{"251", "", lost("ahead", "251")},
		{"18446744073709551615", "", lost("ahead", "18446744073709551615")},
		{"18446744073709551616", "", lost("unknown", "18446744073709551616")},
		{"000000000000000000200", "", lost("unknown", "000000000000000000200")},
		{"-1", "", lost("unknown", "-1")},
		{`{"id":"7"}`, "", lost("unknown", `{"id":"7"}`)},
		{strings.Repeat("x", 1000), "", lost("unknown", strings.Repeat("x", 128))},
		{"200", "log=other", lost("reset", "200")},
		{"", "log=other&lastEventId=250", lost("reset", "250")},
		{"150", "", ""},
		{"", "from=earliest", ""},
		{"", "from=-1000", ""},
		{"", "from=-100&log=other", ""},
	} {
		a := s.Do("GET", "/sse/ring?limit=100&"+test.query, "", "Last-Event-ID", test.header)
		begin := regexp.MustCompile(`^retry: \d+\n`).FindString(a.Body)
		want := position + events.String()
		if test.gap != "" {
			want = "event: gap\ndata: " + test.gap + "\n\n" + want
		}
		if got := a.Body[len(begin):]; a.Status != http.StatusOK || begin == "" || got != want {
			t.Errorf("Last-Event-ID %q, ?%s: %d\n%.500s\nwant\n%.500s", test.header, test.query, a.Status, a.Body, want)
		}
	}
	// A client at last misses nothing, nor does one without an ID.
	for _, id := range []string{"250", ""} {
		sub, err := servetest.Subscribe(s.Ctx, s.HTTP, s.URL+"/sse/ring", id)
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Drop()
		if m, err := sub.Next(); err != nil || m.Type != "position" || m.ID != "250" {
			t.Errorf("after ID %q: %+v, %v", id, m, err)
		}
	}
}

func TestNobodyWaitsForAStalledClient(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t, "--retain-events", "100")
	seen := servetest.NewLedger()
	begin := func(client *http.Client) (*servetest.Follower, *servetest.Subscription) {
		f := &servetest.Follower{Client: client, URL: s.URL + "/sse/wide", Seen: seen}
		sub, err := f.Subscribe(s.Ctx)
		if err == nil {
			err = f.Read(sub, func() bool { return !f.Began })
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(sub.Drop)
		return f, sub
	}
	stalled, stalledSub := begin(smallWindow())
	leaving, leavingSub := begin(smallWindow())
	live, liveSub := begin(s.HTTP)
	last := uint64(0)
	publish := func(n int) {
		for range n {
			last++
			e := servetest.Event{Type: "message", Data: fmt.Sprint(last, strings.Repeat(" wide", 4000))}
			id, err := s.Publish("wide", e)
			if err := cmp.Or(err, seen.Acknowledge(id, e), live.Read(liveSub, live.UpTo(id))); err != nil {
				t.Fatal(err)
			}
		}
	}
	publish(90)
	if err := stalled.Read(stalledSub, stalled.UpTo(last)); err != nil || stalled.Gaps > 0 {
		t.Fatalf("all is retained, and the stalled client has %d gaps, %v", stalled.Gaps, err)
	}
	publish(300)
	if err := stalled.Read(stalledSub, stalled.UpTo(last)); err != nil || stalled.Gaps == 0 {
		t.Errorf("the stalled client reads on: %d gaps, %v", stalled.Gaps, err)
	}
	leavingSub.Drop()
	if err := leaving.Follow(s.Ctx, leaving.UpTo(last)); err != nil || leaving.Gaps == 0 {
		t.Errorf("the stalled client comes back: %d gaps, %v", leaving.Gaps, err)
	}
	if uint64(live.Events) != last || live.Gaps > 0 {
		t.Errorf("the live client has %d events and %d gaps, of %d", live.Events, live.Gaps, last)
	}
}

// smallWindow is a client for whom the kernel takes only a few KB that it does not read.
func smallWindow() *http.Client {
	dialer := net.Dialer{Control: func(_, _ string, conn syscall.RawConn) error {
		var set error
		err := conn.Control(func(fd uintptr) {
			set = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096)
		})
		return cmp.Or(err, set)
	}}
	return &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}
}

func TestStopCutsSubscribersAndLosesNothing(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t)
	s.MustPublish("x", 1, "before")
	if a := s.Do("GET", "/readyz", ""); a.Status != http.StatusOK {
		t.Errorf("readyz: %d", a.Status)
	}
	// Accepted before the others, and complete only after SIGTERM.
	ready, late, post := s.Dial(), s.Dial(), s.Dial()
	s.Send(ready, "GET /readyz HTTP/1.1\r\n")
	s.Send(late, "GET /sse/x HTTP/1.1\r\n")
	s.Send(post, "POST /sse/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\naf")
	http10, http11 := s.Dial(), s.Dial()
	s.Send(http10, "GET /sse/x HTTP/1.0\r\n\r\n")
	s.Send(http11, "GET /sse/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
	f := &servetest.Follower{Client: s.HTTP, URL: s.URL + "/sse/x"}
	sub, err := f.Subscribe(s.Ctx)
	if err == nil {
		err = f.Read(sub, func() bool { return !f.Began })
	}
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Drop()
	s.ReadBlock(http10)
	s.ReadBlock(http11)

	s.Terminate()
	if err := f.Read(sub, func() bool { return true }); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("HTTP/1.1 ends with %v, want a cut", err)
	}
	if rest, _ := io.ReadAll(http11); string(rest) != "\r\n" { // which ends the first chunk
		t.Errorf("HTTP/1.1 has %q before its cut", rest)
	}
	if rest, err := io.ReadAll(http10); len(rest) > 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("HTTP/1.0 ends with %q and %v, want a reset", rest, err)
	}
	s.Send(post, "ter")
	if answer, _ := io.ReadAll(post); !strings.HasPrefix(string(answer), "HTTP/1.1 201 ") {
		t.Errorf("a publish under way: %q", answer)
	}
	// A request that comes too late may find its connection closed.
	_, _ = io.WriteString(ready, "Host: localhost\r\n\r\n")
	if answer, _ := io.ReadAll(ready); len(answer) > 0 && !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") {
		t.Errorf("readyz while stopping: %q", answer)
	}
	_, _ = io.WriteString(late, "Host: localhost\r\n\r\n")
	if answer, _ := io.ReadAll(late); len(answer) > 0 &&
		(!strings.HasPrefix(string(answer), "HTTP/1.1 200 ") || strings.HasSuffix(string(answer), "0\r\n\r\n")) {
		t.Errorf("subscribing while stopping: %q", answer)
	}
	s.Wait()
	s.Restart()
	s.MustPublish("x", 3, "again")
	if err := f.Follow(s.Ctx, f.UpTo(3)); err != nil || f.Gaps > 0 || f.Events != 2 {
		t.Errorf("resuming: %d events, %d gaps, %v", f.Events, f.Gaps, err)
	}
}

// Producers that try again with their keys and clients that resume have each event
// once, however often the server is killed.
func TestExactlyOnce(t *testing.T) {
	t.Parallel()
	const producers, each, kills, seed = 4, 200, 12, 4
	s := servetest.Start(t)
	seen := servetest.NewLedger()
	var (
		wg        sync.WaitGroup
		produced  = map[servetest.Event]bool{}
		publishes = make([]*servetest.Producer, producers)
		acked     = make(chan struct{}, producers*each)
	)
	defer wg.Wait()
	for p := range producers {
		rnd := rand.New(rand.NewPCG(seed, uint64(p)))
		publishes[p] = &servetest.Producer{Server: s, Stream: "once", Seen: seen, Rand: rnd}
		var requests [][]servetest.Event
		for i := range each {
			events := make([]servetest.Event, 1)
			if rnd.IntN(3) == 0 {
				events = make([]servetest.Event, 2+rnd.IntN(20))
			}
			for j := range events {
				events[j] = servetest.Event{Type: fmt.Sprint("from ", p), Data: fmt.Sprintf("%d, %d of %d", i, j, len(events))}
				produced[events[j]] = true
			}
			requests = append(requests, events)
		}
		wg.Go(func() {
			for i, events := range requests {
				if err := publishes[p].Publish(fmt.Sprintf("%d-%d", p, i), events...); err != nil {
					t.Error(err)
					return
				}
				acked <- struct{}{}
			}
		})
	}
	never, rnd := func() bool { return false }, rand.New(rand.NewPCG(seed, producers))
	clients := []*servetest.Follower{}
	for _, drops := range []func() bool{never, func() bool { return rnd.IntN(100) == 0 }} {
		f := &servetest.Follower{Client: s.HTTP, URL: s.URL + "/sse/once", Seen: seen, Began: true}
		clients = append(clients, f)
		wg.Go(func() {
			if err := f.Resume(s.Ctx, uint64(len(produced)), drops); err != nil {
				t.Error(err)
			}
		})
	}
	moment := rand.New(rand.NewPCG(seed, producers+1))
	for range kills {
		for range 20 + moment.IntN(30) {
			select {
			case <-acked:
			case <-s.Ctx.Done():
				t.Fatal("too few are acknowledged")
			}
		}
		time.Sleep(time.Duration(moment.IntN(3000)) * time.Microsecond)
		s.Kill()
		s.Restart()
	}
	wg.Wait()
	checkOnce(t, s, seen, produced, clients)
	failed, lost, replayed := 0, 0, 0
	for _, p := range publishes {
		failed, lost, replayed = failed+p.Failed, lost+p.Lost, replayed+p.Replayed
	}
	if lost == 0 || replayed < lost {
		t.Errorf("%d answers were lost, and %d publishes replayed", lost, replayed)
	}
	t.Logf("seed %d: %d events, %d kills, %d failed tries, %d lost answers, %d replays", seed, len(produced), kills, failed, lost, replayed)
}

// checkOnce checks that each event has one ID, and that each client had all IDs, as
// does one that comes now.
func checkOnce(t *testing.T, s *servetest.Server, seen *servetest.Ledger, produced map[servetest.Event]bool, clients []*servetest.Follower) {
	_, last := s.Bounds("once")
	clients = append(clients, &servetest.Follower{Client: s.HTTP, URL: s.URL + "/sse/once", Seen: seen, Began: true})
	for i, f := range clients {
		err := f.Resume(s.Ctx, last, func() bool { return false })
		if err != nil || f.Gaps > 0 || f.Events != len(produced) {
			t.Errorf("client %d has %d events of %d, %d gaps, %v", i, f.Events, len(produced), f.Gaps, err)
		}
	}
	ids := seen.IDs()
	for e := range produced {
		if len(ids[e]) != 1 {
			t.Errorf("%q has the IDs %d, for one", e, ids[e])
			break
		}
	}
	if _, acked := seen.Len(); len(ids) != len(produced) || acked != len(produced) || last != uint64(len(produced)) {
		t.Errorf("%d events: %d are seen, %d acknowledged, and last is %d", len(produced), len(ids), acked, last)
	}
}

// A page with nothing but the browser's EventSource reads finished streams to their
// end, and stops by itself.
func TestFinishedStream(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t, "--retry", "1ms")
	s.MustPublish("job", 300, servetest.Numbered(300)...)
	s.MustPublish("other", 100, servetest.Numbered(100)...)
	s.MustPublish("short", 3, servetest.Numbered(3)...)
	for _, name := range []string{"job", "other", "short", "empty"} {
		s.MustPost("/sse/"+name+"?close=true", "")
	}
	for i, test := range []struct {
		target  string
		streams []span
	}{
		{"/sse/job?from=earliest", []span{{1, 300}}},
		{"/sse/job?from=-10", []span{{291, 300}}},
		{"/sse/job", []span{{301, 300}}},
		{"/sse/empty?from=earliest", []span{{1, 0}}},
		{"/sse/empty", []span{{1, 0}}},
		{"/sse?stream=job&stream=empty&stream=other&from=earliest", []span{{1, 300}, {1, 0}, {1, 100}}},
	} {
		direct := servetest.OpenPage(s.HTTP, s.Addr, test.target)
		readToEnd(s.Ctx, t, direct, test.streams...)
		if direct.Connections != 1 || direct.CleanEnds != 1 || direct.Ends != len(test.streams) {
			t.Errorf("%s: %d connections, %d clean ends, %d times end", test.target, direct.Connections, direct.CleanEnds, direct.Ends)
		}
		for seed := range uint64(3) {
			rnd := rand.New(rand.NewPCG(seed, uint64(i)))
			proxy := servetest.StartProxy(t, s.Addr, servetest.Faults{CutAfter: func() int64 { return 1 + rnd.Int64N(3000) }})
			readToEnd(s.Ctx, t, servetest.OpenPage(s.HTTP, proxy.Addr, test.target), test.streams...)
		}
	}
	// Each connection lasts a byte longer than the one before.
	for target, streams := range map[string][]span{
		"/sse/short?from=earliest":                     {{1, 3}},
		"/sse?stream=short&stream=empty&from=earliest": {{1, 3}, {1, 0}},
	} {
		budget := int64(0)
		proxy := servetest.StartProxy(t, s.Addr, servetest.Faults{CutAfter: func() int64 { budget++; return budget }})
		p := servetest.OpenPage(s.HTTP, proxy.Addr, target)
		readToEnd(s.Ctx, t, p, streams...)
		if p.Connections < 10 {
			t.Errorf("%s: only %d connections", target, p.Connections)
		}
	}
}

func TestStreamIsFinishedUnderItsReaders(t *testing.T) {
	t.Parallel()
	const rounds, each = 6, 50
	s := servetest.Start(t, "--retry", "5ms")
	s.MustPost("/sse/empty?close=true", "")
	rnd := rand.New(rand.NewPCG(5, 0))
	proxy := servetest.StartProxy(t, s.Addr, servetest.Faults{CutAfter: func() int64 { return 1 + rnd.Int64N(3000) }})
	var wg sync.WaitGroup
	for _, addr := range []string{s.Addr, s.Addr, proxy.Addr, proxy.Addr} {
		one := servetest.OpenPage(s.HTTP, addr, "/sse/job?from=earliest")
		two := servetest.OpenPage(s.HTTP, addr, "/sse?stream=empty&stream=job&from=earliest")
		wg.Go(func() { readToEnd(s.Ctx, t, one, span{1, rounds * each}) })
		wg.Go(func() { readToEnd(s.Ctx, t, two, span{1, 0}, span{1, rounds * each}) })
	}
	data := servetest.Numbered(rounds * each)
	for i := 0; i < len(data)-1; i++ {
		if i%each == each-1 {
			s.Kill()
			s.Restart()
		}
		s.MustPublish("job", uint64(i+1), data[i])
	}
	s.MustPost("/sse/job?close=true", data[len(data)-1])
	wg.Wait()
}

// A span is the IDs, from first to last, of the events of a stream.
type span struct{ first, last int }

// readToEnd reads until the server tells it to stop, and checks that it has each
// event once. It may have been cut between the last event and the end: a client
// that resumes after the last ID is told by the status alone.
func readToEnd(ctx context.Context, t *testing.T, p *servetest.Page, streams ...span) {
	status, err := p.Run(ctx)
	if err != nil || status != http.StatusNoContent || p.Ends < p.CleanEnds*len(streams) {
		t.Errorf("%s stops by %d, %v, after %d clean ends and %d times end", p.URL, status, err, p.CleanEnds, p.Ends)
	}
	for i, events := range streams {
		var want []string
		for id := events.first; id <= events.last; id++ {
			want = append(want, fmt.Sprintf("%d event %d", id, id))
		}
		if !slices.Equal(p.Got[i], want) {
			t.Errorf("%s: stream %d has %q, want %d to %d", p.URL, i, p.Got[i], events.first, events.last)
		}
	}
}
