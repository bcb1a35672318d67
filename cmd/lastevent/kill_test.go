//go:build unix

package main_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"lastevent/cmd/lastevent/servetest"
)

// killRetained is less than what is published while a client is away for as many
// kills as killAway, and far more than between two.
const (
	killRetained = 1000
	killAway     = 12
	killPublish  = 166 // at most so often between two kills
)

// TestKill kills the server again and again under many producers and clients. What
// was acknowledged is there, once, under its ID; an ID that anybody has seen never has
// another content; and each client gets all, or is told by a gap what it does not get.
// A thousand kills, with
//
//	go test -tags long -timeout 1h -run '^TestKill$' ./cmd/lastevent
func TestKill(t *testing.T) {
	t.Parallel()
	const seed = 6
	kills := servetest.Rounds(30, 1000)
	s := servetest.Start(t, "--retain-events", fmt.Sprint(killRetained))
	k := newKillTest(s, seed, "kept", "kept/too")
	k.begin(t)
	rnd := rand.New(rand.NewPCG(seed, 0))
	start := time.Now()
	for n := 1; n <= kills && !t.Failed(); n++ {
		for len(k.acked) > 0 {
			<-k.acked // before the restart, or while it was checked
		}
		for len(k.allowed) < killPublish {
			k.allowed <- struct{}{}
		}
		for range rnd.IntN(killPublish - len(k.producers)) {
			select {
			case <-k.acked:
			case <-s.Ctx.Done():
				t.Fatal("too few are acknowledged")
			}
		}
		time.Sleep(time.Duration(rnd.IntN(3000)) * time.Microsecond)
		s.Kill()
		s.Restart()
		for _, stream := range k.streams {
			if err := stream.audit(s, n%killAway == 0); err != nil {
				t.Errorf("after %d kills: %s: %v", n, stream.name, err)
			}
		}
	}
	took := time.Since(start)
	k.end()
	events, acknowledged, failed, lost, replayed, gaps := 0, 0, 0, 0, 0, 0
	for _, stream := range k.streams {
		stream.checkEnd(t, s)
		seen, acked := stream.seen.Len()
		events, acknowledged, gaps = events+seen, acknowledged+acked, gaps+stream.away.Gaps
	}
	for _, p := range k.producers {
		failed, lost, replayed = failed+p.Failed, lost+p.Lost, replayed+p.Replayed
	}
	if events == acknowledged || failed == 0 || lost == 0 || replayed < lost || gaps == 0 {
		t.Error("no event was left unacknowledged, nothing tried again, no answer lost or no client too long away")
	}
	t.Logf("seed %d: %d kills in %v, %d of %d events acknowledged, %d failed tries, %d lost answers, %d replays, %d gaps",
		seed, kills, took, acknowledged, events, failed, lost, replayed, gaps)
}

// A killTest is producers and clients that go on over kills.
type killTest struct {
	server    *servetest.Server
	streams   []*killStream
	producers []*servetest.Producer
	allowed   chan struct{} // a token for each publish that may begin
	acked     chan struct{} // a token for each that has ended
	stop      context.CancelFunc
	ctx       context.Context
	done      sync.WaitGroup
}

// A killStream is what is known of a stream, and its clients.
type killStream struct {
	name    string
	seen    *servetest.Ledger
	auditor *servetest.Follower   // has all after each kill
	away    *servetest.Follower   // comes seldom, and finds a gap
	clients []*servetest.Follower // resume as soon as they are cut
}

func newKillTest(s *servetest.Server, seed uint64, names ...string) *killTest {
	k := &killTest{server: s, allowed: make(chan struct{}, killPublish), acked: make(chan struct{}, 3*killPublish)}
	k.ctx, k.stop = context.WithCancel(s.Ctx)
	for _, name := range names {
		stream := &killStream{name: name, seen: servetest.NewLedger()}
		client := func(only string) *servetest.Follower {
			f := &servetest.Follower{Client: s.HTTP, URL: s.URL + "/sse/" + name, Seen: stream.seen, Only: only, Began: true}
			if only != "" {
				f.URL += "?event=" + url.QueryEscape(only)
			}
			return f
		}
		stream.auditor, stream.away = client(""), client("")
		stream.clients = []*servetest.Follower{client(""), client(""), client("from 0"), client("from 3")}
		k.streams = append(k.streams, stream)
		for range 8 {
			k.producers = append(k.producers, &servetest.Producer{
				Server: s, Stream: name, Seen: stream.seen,
				Rand: rand.New(rand.NewPCG(seed, 1+uint64(len(k.producers)))),
			})
		}
	}
	return k
}

// begin starts the producers and those clients that resume at once. Of two producers
// one has keys.
func (k *killTest) begin(t *testing.T) {
	for i, p := range k.producers {
		k.done.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-k.allowed:
				case <-k.ctx.Done():
					return
				}
				events := make([]servetest.Event, 1)
				if p.Rand.IntN(3) == 0 {
					events = make([]servetest.Event, 2+p.Rand.IntN(15))
				}
				for j := range events {
					events[j] = servetest.Event{Type: fmt.Sprint("from ", i%8), Data: fmt.Sprintf("%d: %d, %d of %d", i, n, j, len(events))}
				}
				key := ""
				if i%2 == 0 {
					key = fmt.Sprint(i, " ", n)
				}
				if err := p.Publish(key, events...); err != nil {
					t.Errorf("producer %d: %v", i, err)
					return
				}
				k.acked <- struct{}{}
			}
		})
	}
	for _, stream := range k.streams {
		for i, f := range stream.clients {
			rnd := rand.New(rand.NewPCG(uint64(i), 0))
			k.done.Go(func() {
				err := f.Resume(k.ctx, math.MaxUint64, func() bool { return i == 1 && rnd.IntN(200) == 0 })
				if errors.Is(err, servetest.ErrBroken) {
					t.Errorf("client %d of %s: %v", i, stream.name, err)
				}
			})
		}
	}
}

// end ends what begin started. Publishes that are under way are finished.
func (k *killTest) end() {
	k.stop()
	k.done.Wait()
}

// audit checks what there is after a kill: all IDs that anybody has seen, the newest
// events and no more, and of those since the last audit each under its ID.
func (s *killStream) audit(server *servetest.Server, withAway bool) error {
	known := s.seen.Last()
	first, last := server.Bounds(s.name)
	if last < known {
		return fmt.Errorf("%w: there is ID %d, and last is %d", servetest.ErrBroken, known, last)
	}
	if last-first+1 != min(last, killRetained) {
		return fmt.Errorf("%w: %d to %d are retained", servetest.ErrBroken, first, last)
	}
	err := s.auditor.Resume(server.Ctx, last, func() bool { return false })
	if err == nil && withAway {
		err = s.away.Resume(server.Ctx, last, func() bool { return false })
	}
	if err == nil && s.auditor.Gaps > 0 {
		err = errors.New("more was published than is retained, so the test shows nothing")
	}
	return err
}

// checkEnd checks what all clients have, when nothing more is published.
func (s *killStream) checkEnd(t *testing.T, server *servetest.Server) {
	err := s.audit(server, true)
	_, last := server.Bounds(s.name)
	for i, f := range s.clients {
		if f.Only == "" {
			err = cmp.Or(err, f.Resume(server.Ctx, last, func() bool { return false }))
		}
		err = cmp.Or(err, f.CheckSkipped())
		if f.Events < int(last)/20 {
			t.Errorf("%s: client %d had only %d events of %d", s.name, i, f.Events, last)
		}
	}
	if known, _ := s.seen.Len(); uint64(known) != last {
		t.Errorf("%s: %d IDs are known, and last is %d", s.name, known, last)
	}
	if err := cmp.Or(err, s.seen.CheckOnce()); err != nil {
		t.Errorf("%s: at the end: %v", s.name, err)
	}
}

// TestKillIsCaught puts back an older file after a kill: the checks of TestKill have to
// find fault with it.
func TestKillIsCaught(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t, "--retain-events", fmt.Sprint(killRetained))
	k := newKillTest(s, 7, "kept")
	stream, client := k.streams[0], k.streams[0].clients[0]
	publish := func(key string) error {
		return k.producers[0].Publish(key, servetest.Event{Type: "message", Data: key})
	}
	var copied []byte
	for _, key := range []string{"a", "b", "c"} {
		if err := publish(key); err != nil {
			t.Fatal(err)
		}
		s.Kill()
		if key == "b" {
			var err error
			if copied, err = os.ReadFile(s.DB); err != nil {
				t.Fatal(err)
			}
		}
		s.Restart()
		if err := cmp.Or(stream.audit(s, false), client.Resume(s.Ctx, stream.seen.Last(), func() bool { return false })); err != nil {
			t.Fatal(err)
		}
	}
	s.Kill()
	if err := os.WriteFile(s.DB, copied, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Restart()
	for _, test := range []struct {
		name  string
		check func() error
	}{
		{"an acknowledged event is lost", func() error { return stream.audit(s, false) }},
		{"a client has an ID of the future", func() error { return client.Resume(s.Ctx, math.MaxUint64, func() bool { return false }) }},
		{"an event comes again under its ID", func() error { return publish("c") }},
		{"an ID is used for another event", func() error {
			fresh := &servetest.Follower{Client: s.HTTP, URL: s.URL + "/sse/kept", Seen: stream.seen, Began: true}
			if _, err := s.Publish("kept", servetest.Event{Type: "message", Data: "d"}); err != nil {
				return err
			}
			if err := stream.seen.See(4, servetest.Event{Type: "message", Data: "e"}); err != nil {
				return err
			}
			return fresh.Resume(s.Ctx, 4, func() bool { return false })
		}},
	} {
		if err := test.check(); !errors.Is(err, servetest.ErrBroken) {
			t.Errorf("%s, and that is not reported: %v", test.name, err)
		}
	}
}
