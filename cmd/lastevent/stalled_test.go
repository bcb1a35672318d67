//go:build linux

package main_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"lastevent/cmd/lastevent/internal/bench"
	"lastevent/cmd/lastevent/servetest"
)

const (
	// What a client that takes nothing may cost. Those in a replay have a copy of
	// what they are being written; the others share it.
	stalledKernel = 32 << 10
	stalledRSS    = 16 << 10
	replayingRSS  = 128 << 10
	// raceRSS is what the race detector and the collector may add while the clients come.
	raceRSS = 96 << 20
)

// Clients that take nothing cost little and harm nobody. Each has later all events or
// a gap, whether it reads on, was cut meanwhile, or went away.
//
// 2000 of them: go test -tags long -run Stall ./cmd/lastevent
func TestStalledClients(t *testing.T) {
	t.Parallel()
	testStalled(t, false)
}

// Those that stall while they get what they missed, too.
func TestClientsThatStallInAReplay(t *testing.T) {
	t.Parallel()
	testStalled(t, true)
}

func testStalled(t *testing.T, replaying bool) {
	const wide, kept = 16 << 10, 100
	clients := servetest.Crowd(150, 2000)
	s := servetest.Start(t, "--retain-events", fmt.Sprint(kept))
	s.Patience(time.Duration(servetest.Rounds(2, 10)) * time.Minute)
	h := startHonest(t, s, "wide", 5, 20*time.Millisecond, wide)
	await(t, s, "a full ring", func() bool { _, acked := h.seen.Len(); return acked > kept })
	before, descriptors := s.RSS(), s.Descriptors()
	stalled := stall(t, s, h.url, clients, replaying)
	_, acked := h.seen.Len()
	await(t, s, "all to have stalled", func() bool { _, now := h.seen.Len(); return now > acked+kept })
	checkMemory(t, s, clients, before, replaying)

	leaving, going, staying := stalled[:clients/3], stalled[clients/3:2*clients/3], stalled[2*clients/3:]
	for _, c := range leaving {
		c.sub.Drop()
	}
	_, last := s.Bounds("wide")
	if cut := readAll(t, last, going); cut > 0 {
		t.Errorf("%d were cut of the %d that read on in time", cut, len(going))
	}
	if servetest.Long {
		const few = 4 // of the test's own connections
		await(t, s, "the others to be cut", func() bool { return s.Descriptors() <= descriptors+few })
	}
	h.finish(t)
	s.Stop()
	if cut := readAll(t, h.events, staying); cut < len(staying) {
		t.Errorf("%d were cut of the %d that took nothing", cut, len(staying))
	}
	s.Restart()
	resumeAll(t, s, stalled, h.events)
}

// stall subscribes clients that then take no event.
func stall(t *testing.T, s *servetest.Server, url string, clients int, replaying bool) (stalled []*stalledClient) {
	t.Helper()
	narrow := narrow()
	for range clients {
		f := &servetest.Follower{Client: narrow, URL: url}
		if replaying {
			f.Began = true // and missed all
		}
		sub, err := f.Subscribe(s.Ctx)
		if err == nil {
			err = f.Read(sub, func() bool { return !f.Began })
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Client = s.HTTP // when it comes again
		stalled = append(stalled, &stalledClient{f, sub})
	}
	return stalled
}

type stalledClient struct {
	*servetest.Follower
	sub *servetest.Subscription
}

// narrow is a client for which the kernel takes little that it does not read.
func narrow() *http.Client {
	dialer := net.Dialer{Control: func(_, _ string, conn syscall.RawConn) (err error) {
		control := conn.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 16<<10)
		})
		return errors.Join(control, err)
	}}
	return &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}
}

// checkMemory checks what the stalled clients cost the process and the kernel.
func checkMemory(t *testing.T, s *servetest.Server, clients, before int, replaying bool) {
	t.Helper()
	each := stalledRSS
	if replaying {
		each = replayingRSS
	}
	rss := s.RSS() - before
	if rss > clients*each+raceRSS {
		t.Errorf("%d stalled clients take %d KiB of the server's memory each", clients, rss/clients>>10)
	}
	t.Logf("%d stalled clients: RSS +%d MiB, from %d MiB", clients, rss>>20, before>>20)
	if _, err := exec.LookPath("ss"); err != nil {
		t.Log("the kernel's memory is not checked: ss is missing, of the package iproute2")
		return
	}
	kernel, sockets, err := bench.SocketMemory(s.Ctx, s.Addr)
	if err != nil || sockets < clients {
		t.Fatalf("ss shows %d connections of %d, %v", sockets, clients, err)
	}
	if kernel > float64(clients*stalledKernel+4<<20) {
		t.Errorf("%d stalled clients take %.0f KiB of the kernel's memory each", clients, kernel/float64(clients)/1024)
	}
	t.Logf("the kernel's memory: %.1f KiB each", kernel/float64(sockets)/1024)
}

// readAll makes clients go on until they have the last event or are cut, and counts
// the latter.
func readAll(t *testing.T, last uint64, clients []*stalledClient) (cut int) {
	t.Helper()
	errs := make([]error, len(clients))
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() {
			errs[i] = c.Read(c.sub, c.UpTo(last))
			c.sub.Drop()
		})
	}
	wg.Wait()
	for i, err := range errs {
		if errors.Is(err, servetest.ErrBroken) {
			t.Fatalf("stalled client %d: %v", i, err)
		}
		if err != nil {
			cut++
		}
	}
	return cut
}

func resumeAll(t *testing.T, s *servetest.Server, clients []*stalledClient, last uint64) {
	t.Helper()
	var wg sync.WaitGroup
	gaps := 0
	for i, c := range clients {
		wg.Go(func() {
			if err := c.Resume(s.Ctx, last, func() bool { return false }); err != nil {
				t.Errorf("stalled client %d resumes: %v", i, err)
			}
		})
	}
	wg.Wait()
	for _, c := range clients {
		gaps += c.Gaps
	}
	t.Logf("%d clients resumed, and had %d gaps", len(clients), gaps)
}
