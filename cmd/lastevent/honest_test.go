//go:build linux

package main_test

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lastevent/cmd/lastevent/servetest"
)

// honest are a producer and clients that must be served as if nobody else was there.
// None is ever refused or cut, and none waits.
type honest struct {
	server *servetest.Server
	url    string
	stop   chan struct{}
	wg     sync.WaitGroup

	events    uint64 // published
	last      atomic.Uint64
	seen      *servetest.Ledger
	slowest   atomic.Int64 // acknowledgement
	latest    atomic.Int64 // delivery
	followers []*servetest.Follower
}

// startHonest makes the producer publish to the stream, in each interval an event of
// so many bytes, and so many clients follow it.
func startHonest(t *testing.T, s *servetest.Server, stream string, clients int, every time.Duration, size int) *honest {
	t.Helper()
	h := &honest{server: s, url: s.URL + "/sse/" + stream, stop: make(chan struct{}), seen: servetest.NewLedger()}
	h.last.Store(math.MaxUint64)
	for range clients {
		f := &servetest.Follower{Client: s.HTTP, URL: h.url, Seen: h.seen}
		sub, err := f.Subscribe(s.Ctx)
		if err == nil {
			err = f.Read(sub, func() bool { return !f.Began })
		}
		if err != nil {
			t.Fatal(err)
		}
		h.followers = append(h.followers, f)
		h.wg.Go(func() {
			defer sub.Drop()
			if err := h.follow(f, sub); err != nil {
				t.Error("an honest client: ", err)
			}
		})
	}
	h.wg.Go(func() {
		if err := h.publish(stream, every, strings.Repeat(" ", size)); err != nil {
			t.Error("the honest producer: ", err)
		}
	})
	return h
}

func (h *honest) publish(stream string, every time.Duration, padding string) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for stopping := false; ; {
		if stopping {
			h.last.Store(h.events + 1)
		}
		begun := time.Now()
		e := servetest.Event{Type: "message", Data: strconv.FormatInt(begun.UnixNano(), 10) + padding}
		id, err := h.server.Publish(stream, e)
		h.events++
		if err := cmp.Or(err, h.seen.Acknowledge(id, e)); err != nil || id != h.events {
			return fmt.Errorf("ID %d where %d must be, %w", id, h.events, err)
		}
		raise(&h.slowest, time.Since(begun))
		if stopping {
			return nil
		}
		select {
		case <-tick.C:
		case <-h.stop:
			stopping = true
		case <-h.server.Ctx.Done():
			return context.Cause(h.server.Ctx)
		}
	}
}

func (h *honest) follow(f *servetest.Follower, sub *servetest.Subscription) error {
	for f.After < h.last.Load() {
		m, err := sub.Next()
		if err := cmp.Or(err, f.Take(m)); err != nil {
			return err
		}
		published, _, _ := strings.Cut(m.Data, " ")
		at, err := strconv.ParseInt(published, 10, 64)
		if err != nil {
			return err
		}
		raise(&h.latest, time.Since(time.Unix(0, at)))
	}
	return nil
}

func raise(max *atomic.Int64, d time.Duration) {
	for old := max.Load(); int64(d) > old && !max.CompareAndSwap(old, int64(d)); old = max.Load() {
	}
}

// unharmed is how long an event may take to its producer and its clients. Who waits
// for one that is stalled waits for 30 s; a busy machine needs less.
const unharmed = 15 * time.Second

// finish ends it, and checks that nothing was lost and that nobody waited.
func (h *honest) finish(t *testing.T) {
	t.Helper()
	close(h.stop)
	h.wg.Wait()
	for i, f := range h.followers {
		if f.Gaps > 0 || uint64(f.Events) != h.events {
			t.Errorf("honest client %d has %d events and %d gaps, of %d", i, f.Events, f.Gaps, h.events)
		}
	}
	slowest, latest := time.Duration(h.slowest.Load()), time.Duration(h.latest.Load())
	if slowest > unharmed || latest > unharmed {
		t.Errorf("an event was acknowledged after %v, and delivered after %v; at most %v are right", slowest, latest, unharmed)
	}
	t.Logf("%d events to %d honest clients: acknowledged within %v, delivered within %v", h.events, len(h.followers), slowest, latest)
}
