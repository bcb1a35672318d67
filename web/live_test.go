package web_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"lastevent/web"
)

// Only over TCP is a client served with the others of its stream that are live, so
// these tests are in no bubble, and wait for real.

// until waits for a condition.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for start := time.Now(); !holds(); time.Sleep(time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			t.Fatalf("in vain: %s", what)
		}
	}
}

func (s *host) untilLive(t testing.TB, n int) {
	t.Helper()
	until(t, fmt.Sprint(n, " live"), func() bool { return web.Live(s.Server) == n })
}

func (s *host) untilClients(t testing.TB, n int) {
	t.Helper()
	until(t, fmt.Sprint(n, " clients"), func() bool { return web.Clients(s.Server) == n })
}

// stalled subscribes and takes nothing more than the beginning; there is no room for
// much else.
func (s *host) stalled(t testing.TB, target string) *subscription {
	t.Helper()
	dial := s.dial
	defer func() { s.dial = dial }()
	s.dial = func() net.Conn {
		conn := dial()
		if err := conn.(interface{ SetReadBuffer(int) error }).SetReadBuffer(100 << 10); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	return s.subscribe(t, target)
}

// publishNumbers publishes events of which each has its ID as data, and behind it the
// rest, every third of type "third".
func (s *host) publishNumbers(t testing.TB, name string, from, to uint64, rest string) {
	t.Helper()
	var batch strings.Builder
	for seq := from; seq <= to; seq++ {
		fmt.Fprintf(&batch, `{"event":%q,"data":"%d%s"}`+"\n", typeOf(seq), seq, rest)
	}
	if w := s.do(t, "POST", "/sse/"+name, batch.String(), "Content-Type: application/x-ndjson"); w.Code != 201 {
		t.Fatalf("publishing: %d %s", w.Code, w.Body)
	}
}

func typeOf(seq uint64) string {
	if seq%3 == 0 {
		return "third"
	}
	return "message"
}

// reads reads on after a sequence up to another, and fails where an event is not the
// next, or not what publishNumbers published. With a type it expects no others.
func (s *subscription) reads(after, to uint64, typ, rest string) error {
	for seq := after + 1; seq <= to; seq++ {
		if typ != "" && typeOf(seq) != typ {
			continue
		}
		m, err := s.Next()
		for err == nil && m.Type == "position" {
			m, err = s.Next()
		}
		if want := strconv.FormatUint(seq, 10); err != nil || m.ID != want || m.Type != typeOf(seq) || m.Data != want+rest {
			return fmt.Errorf("%.80v, %w; want %s", m, err, want)
		}
	}
	return nil
}

// isOver checks how a response is over: by io.EOF if it is complete.
func (s *subscription) isOver(t testing.TB, want error) {
	t.Helper()
	m, err := s.Next()
	for err == nil && m.Type == "position" {
		m, err = s.Next()
	}
	if !errors.Is(err, want) {
		t.Errorf("%.80v, %v; want %v", m, err, want)
	}
}

// large has many bytes in a batch.
func large(c *web.Config) { c.MaxEventBytes, c.MaxBatchBytes = 1<<20, 16<<20 }

// All who are live have all events in order, each once, whoever joins, leaves, wants
// only some, or takes none.
func TestLive(t *testing.T) { overEach(t, setup{config: large}, testLive) }

func testLive(t *testing.T, s *host) {
	const clients, events, batch, few, wide = 140, 300, 6, 100, 1500
	rest := strings.Repeat("x", wide)
	var reading sync.WaitGroup
	read := func(sub *subscription, after, to uint64, typ string) {
		reading.Go(func() {
			if err := sub.reads(after, to, typ, rest); err != nil {
				t.Error(err)
			}
		})
	}
	var limited, leaving []*subscription
	for i := range clients {
		switch i % 5 {
		case 0:
			read(s.subscribe(t, "/sse/x?event=third"), 0, events, "third")
		case 1:
			sub := s.subscribe(t, fmt.Sprint("/sse/x?limit=", few))
			read(sub, 0, few, "")
			limited = append(limited, sub)
		case 2:
			sub := s.subscribe(t, "/sse/x")
			leaving = append(leaving, sub)
			reading.Go(func() {
				err := sub.reads(0, uint64(i), "", rest)
				if err := errors.Join(err, sub.Close()); err != nil {
					t.Error(err)
				}
			})
		default:
			read(s.subscribe(t, "/sse/x"), 0, events, "")
		}
	}
	stalled := []*subscription{s.stalled(t, "/sse/x"), s.stalled(t, "/sse/x?event=third"), s.stalled(t, "/sse/x")}
	s.untilLive(t, clients+len(stalled))

	for seq := uint64(1); seq <= events; seq += batch {
		s.publishNumbers(t, "x", seq, seq+batch-1, rest)
		if seq%5 == 0 {
			read(s.subscribe(t, fmt.Sprint("/sse/x?lastEventId=", seq-1)), seq-1, events, "")
		}
	}
	reading.Wait()
	for _, sub := range limited {
		sub.isOver(t, io.EOF)
		sub.Close()
	}
	if web.Live(s.Server) == web.Clients(s.Server) {
		t.Error("those who take nothing are live")
	}
	stalled[2].Close()
	for i, typ := range []string{"", "third"} {
		if err := stalled[i].reads(0, events, typ, rest); err != nil {
			t.Error("having taken nothing:", err)
		}
	}
	s.untilClients(t, clients-len(limited)-len(leaving)+events/batch/5+2)
	s.untilLive(t, web.Clients(s.Server))
	for _, sub := range stalled[:2] { // live again
		reading.Go(func() {
			if err := sub.reads(events, events+3, map[bool]string{true: "third"}[sub == stalled[1]], ""); err != nil {
				t.Error(err)
			}
		})
	}
	s.publishNumbers(t, "x", events+1, events+3, "")
	reading.Wait()
}

// An event for which a client has no room reaches it whole as it makes some, in parts
// of chunks; and what waits for that is not held for each client.
func TestLiveEventThatDoesNotFit(t *testing.T) {
	overEach(t, setup{config: large}, testLiveEventThatDoesNotFit)
}

func testLiveEventThatDoesNotFit(t *testing.T, s *host) {
	const clients, size, atMost = 8, 1<<20 - 100, 5 << 20
	var subs []*subscription
	for range clients {
		subs = append(subs, s.stalled(t, "/sse/x"))
	}
	s.untilLive(t, clients)
	rest := strings.Repeat("x", size)
	before := heap()
	s.publishNumbers(t, "x", 1, 1, rest)
	s.untilLive(t, 0)
	if now := heap(); now > before+atMost {
		t.Errorf("%d KiB are held for %d clients", (now-before)>>10, clients)
	}
	s.publishNumbers(t, "x", 2, 2, "")
	for _, sub := range subs {
		if err := errors.Join(sub.reads(0, 1, "", rest), sub.reads(1, 2, "", "")); err != nil {
			t.Fatal(err)
		}
	}
	s.untilLive(t, clients)
}

// heap is how many bytes are in use.
func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// A client that goes away is given up soon, also without a heartbeat, and whatever it
// is being served by.
func TestLiveHangUps(t *testing.T) { overEach(t, setup{config: largeAndSilent}, testLiveHangUps) }

// largeAndSilent has no heartbeats.
func largeAndSilent(c *web.Config) {
	large(c)
	c.Heartbeat = time.Hour
}

func testLiveHangUps(t *testing.T, s *host) {
	var live, stalled []*subscription
	for range 40 {
		live = append(live, s.subscribe(t, "/sse/x"))
		stalled = append(stalled, s.stalled(t, "/sse/y"))
	}
	s.untilLive(t, 80)
	s.publishNumbers(t, "y", 1, 1, strings.Repeat("x", 1<<19))
	s.untilLive(t, 40)
	for i, sub := range append(live[:20:20], stalled[:20]...) {
		if tcp, ok := sub.Conn.(*net.TCPConn); ok && i%2 == 0 {
			if err := tcp.SetLinger(0); err != nil { // a reset
				t.Fatal(err)
			}
		}
		sub.Close()
	}
	s.untilClients(t, 40)
	s.untilLive(t, 20)
	s.publishNumbers(t, "x", 1, 1, "")
	for _, sub := range live[20:] {
		if err := sub.reads(0, 1, "", ""); err != nil {
			t.Fatal(err)
		}
	}
}

// Whoever may have hung up while it is served by itself is asked when it is live again.
func TestLiveHalfHungUp(t *testing.T) {
	overEach(t, setup{config: largeAndSilent}, testLiveHalfHungUp)
}

func testLiveHalfHungUp(t *testing.T, s *host) {
	sub := s.stalled(t, "/sse/x")
	s.untilLive(t, 1)
	s.publishNumbers(t, "x", 1, 1, strings.Repeat("x", 1<<19))
	s.untilLive(t, 0)
	if err := sub.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	// It is asked whether it is still there, with a heartbeat behind the event.
	if err := sub.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewReader(sub.head.Body); ; {
		if line, err := lines.ReadString('\n'); line == ":\n" {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// An idle connection is kept alive, and at every heartbeat told the position if it was
// spared events; a busy one needs no heartbeat.
func TestLiveHeartbeats(t *testing.T) {
	const every = 400 * time.Millisecond
	s := overTCP(t, setup{config: func(c *web.Config) {
		large(c)
		c.Heartbeat = every
	}})
	const before = 4000 // so that few of those to come are no quarter of all
	s.publishNumbers(t, "x", 1, before, "")
	subs := map[string]*subscription{}
	for name, target := range map[string]string{"idle": "/sse/y", "filtered": "/sse/x?event=none", "busy": "/sse/x"} {
		subs[name] = s.subscribe(t, target)
	}
	s.untilLive(t, 3)
	stop := time.Now().Add(3*every + every/2)
	var reading sync.WaitGroup
	beats, busiest := map[string][]time.Time{}, time.Duration(0)
	var mu sync.Mutex
	for name, sub := range subs {
		if err := sub.SetReadDeadline(stop); err != nil {
			t.Fatal(err)
		}
		reading.Go(func() {
			for lines := bufio.NewScanner(sub.head.Body); lines.Scan(); {
				mu.Lock()
				id, isID := strings.CutPrefix(lines.Text(), "id: ")
				switch {
				case name != "filtered" && lines.Text() == ":", name == "filtered" && isID && id != strconv.Itoa(before):
					beats[name] = append(beats[name], time.Now())
				}
				mu.Unlock()
			}
		})
	}
	published := time.Now()
	for time.Until(stop) > 0 {
		s.publish(t, "x", "busy")
		busiest = max(busiest, time.Since(published))
		published = time.Now()
		time.Sleep(5 * time.Millisecond)
	}
	reading.Wait()
	for _, name := range []string{"idle", "filtered"} {
		if n := len(beats[name]); n < 2 || n > 3 {
			t.Errorf("%s: %d heartbeats, want 3", name, n)
		}
		for i := 1; i < len(beats[name]); i++ {
			if d := beats[name][i].Sub(beats[name][i-1]); d < every*3/4 {
				t.Errorf("%s: a heartbeat after %v", name, d)
			}
		}
	}
	if len(beats["busy"]) > 0 && busiest < every/2 {
		t.Errorf("busy: %d heartbeats", len(beats["busy"]))
	}
}

func TestDrainCutsLive(t *testing.T) {
	s := overTCP(t, setup{config: large})
	var subs []*subscription
	for range 150 {
		subs = append(subs, s.subscribe(t, "/sse/x"))
	}
	stalled := s.stalled(t, "/sse/y")
	s.untilLive(t, 151)
	s.publishNumbers(t, "y", 1, 1, strings.Repeat("x", 1<<19))
	s.untilLive(t, 150)
	start := time.Now()
	if err := s.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("it took %v", d)
	}
	for _, sub := range subs {
		sub.isOver(t, io.ErrUnexpectedEOF)
	}
	if err := stalled.reads(0, 1, "", strings.Repeat("x", 1<<19)); err == nil {
		t.Error("who takes nothing was not cut")
	}
}
