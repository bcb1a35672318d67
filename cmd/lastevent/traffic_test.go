//go:build unix

package main_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lastevent/cmd/lastevent/servetest"
)

// traffic is producers that try again until they have an answer, and clients that
// resume, whatever happens to the server or the network.
type traffic struct {
	stop      chan struct{}
	producing sync.WaitGroup
	following sync.WaitGroup

	seen      *servetest.Ledger
	producers []*servetest.Producer
	clients   []*resuming
	last      atomic.Uint64 // of all events, once that is known
}

// A resuming client counts its connections that had an answer.
type resuming struct {
	servetest.Follower
	connections atomic.Int64
}

// startTraffic starts them on a stream that is empty. Each producer publishes an
// event or a batch every so often.
func startTraffic(t *testing.T, s *servetest.Server, stream string, producers, clients int, every time.Duration, size int) *traffic {
	tr := &traffic{stop: make(chan struct{}), seen: servetest.NewLedger()}
	tr.last.Store(math.MaxUint64)
	for i := range producers {
		p := &servetest.Producer{Server: s, Stream: stream, Seen: tr.seen, Rand: rand.New(rand.NewPCG(6, uint64(i)))}
		tr.producers = append(tr.producers, p)
		tr.producing.Go(func() {
			if err := tr.produce(p, i, every, size); err != nil {
				t.Error("a producer: ", err)
			}
		})
	}
	for range clients {
		c := &resuming{Follower: servetest.Follower{Client: s.HTTP, URL: s.URL + "/sse/" + stream, Seen: tr.seen, Began: true}}
		tr.clients = append(tr.clients, c)
		tr.following.Go(func() {
			if err := c.resume(s.Ctx, func() bool { return c.After < tr.last.Load() }); err != nil {
				t.Error("a client: ", err)
			}
		})
	}
	return tr
}

func (tr *traffic) produce(p *servetest.Producer, number int, every time.Duration, size int) error {
	for i := 0; ; i++ {
		events := make([]servetest.Event, 1+i%3)
		for j := range events {
			events[j] = servetest.Event{Type: "message", Data: fmt.Sprintf("producer %d, event %d-%d%*s", number, i, j, size, "")}
		}
		if err := p.Publish(fmt.Sprint(number, "-", i), events...); err != nil {
			return err
		}
		select {
		case <-tr.stop:
			return nil
		case <-time.After(every):
		}
	}
}

// resume follows while more says so, and comes again after each cut.
func (c *resuming) resume(ctx context.Context, more func() bool) error {
	for more() {
		sub, err := c.Subscribe(ctx)
		if err == nil {
			c.connections.Add(1)
			err = c.Read(sub, more)
			sub.Drop()
		}
		if errors.Is(err, servetest.ErrBroken) {
			return err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// reconnected reports whether all clients have had so many connections.
func (tr *traffic) reconnected(connections int) bool {
	for _, c := range tr.clients {
		if c.connections.Load() < int64(connections) {
			return false
		}
	}
	return true
}

// finish stops the producers and checks that every client has every event, once, and
// none was acknowledged but is not there.
func (tr *traffic) finish(t *testing.T) {
	t.Helper()
	close(tr.stop)
	tr.producing.Wait()
	_, acked := tr.seen.Len()
	tr.last.Store(uint64(acked) + 1) // as all that is stored is acknowledged
	if !t.Failed() {
		if err := tr.producers[0].Publish("the end", servetest.Event{Type: "message", Data: "the end"}); err != nil {
			t.Error(err)
		}
	}
	tr.following.Wait()
	known, acked := tr.seen.Len()
	if known != acked {
		t.Errorf("%d events are seen, and %d acknowledged", known, acked)
	}
	connections := int64(0)
	for i, c := range tr.clients {
		if c.Events != acked || c.Gaps > 0 {
			t.Errorf("client %d has %d events and %d gaps, of %d", i, c.Events, c.Gaps, acked)
		}
		connections += c.connections.Load()
	}
	failed, replayed := 0, 0
	for _, p := range tr.producers {
		failed, replayed = failed+p.Failed, replayed+p.Replayed
	}
	t.Logf("%d events to each of %d clients over %d connections; %d publishes failed, %d were there already",
		acked, len(tr.clients), connections, failed, replayed)
}
