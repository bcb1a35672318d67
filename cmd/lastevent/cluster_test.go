//go:build unix

package main_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lastevent/cmd/lastevent/servetest"
)

const (
	clusterName      = "proof" // of the JetStream stream
	clusterStreams   = 4       // of which the last is quiet
	clusterClients   = 100
	clusterProducers = 9 // in all

	// clusterPatience is how long all may take to be well again after a fault.
	clusterPatience = time.Minute
	// truthWithin is how long a front may take to see that it cannot append.
	truthWithin = 15 * time.Second
)

// TestCluster has three servers in front of a cluster of three nats-servers, and kills,
// pauses and cuts off one of them after the other, while producers and clients go from
// one server to the other as they like. What was acknowledged comes to every client, once
// and in order; no key is stored twice; and who is ready says the truth.
//
// For ten minutes, not one:
//
//	go test -tags long -timeout 1h -v -run '^TestCluster$' ./cmd/lastevent
func TestCluster(t *testing.T) {
	const seed = 8
	c := startClusterTest(t, seed)
	c.settle("the start")
	start, spell := time.Now(), time.Duration(servetest.Rounds(1, 10))*time.Minute
	faults := clusterFaults()
	for n := 0; n < len(faults) || time.Since(start) < spell; n++ {
		if n%len(faults) == 0 {
			c.rand.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
		}
		f := faults[n%len(faults)]
		begun := time.Now()
		c.outage.begin()
		quiet := c.streams[clusterStreams-1]
		quiet.wanted = quiet.acked.Load() + 1
		time.AfterFunc(time.Second, func() { quiet.turn <- struct{}{} })
		f.strike(c)
		over := time.Now()
		c.settle(f.name)
		t.Logf("%6.1fs: %s for %.1fs; all is well again %.1fs later; for up to %.1fs nothing was acknowledged", begun.Sub(start).Seconds(),
			f.name, over.Sub(begun).Seconds(), time.Since(over).Seconds(), c.outage.end().Seconds())
		c.struck++
		if t.Failed() {
			break
		}
	}
	c.finish(seed, time.Since(start))
}

// A clusterTest is all who take part.
type clusterTest struct {
	t       *testing.T
	rand    *rand.Rand
	cluster *servetest.Cluster
	fronts  []*front
	streams []*clusterStream
	outage  outage
	struck  int // faults

	stop      chan struct{}
	producing sync.WaitGroup
	following sync.WaitGroup
}

// A front is a server of the program, with links of its own to the nats-servers.
type front struct {
	*servetest.Server
	links servetest.Links
	hasty *servetest.Server // for those who do not wait for an answer for long
}

// A clusterStream is what is known of a stream, and who publishes to it and follows it.
type clusterStream struct {
	name      string
	seen      *servetest.Ledger
	acked     atomic.Int64  // publishes
	turn      chan struct{} // of a quiet stream has a token for each publish
	wanted    int64         // of a quiet stream is how many there should be by now
	producers []*servetest.Producer
	clients   []*clusterClient
	last      atomic.Uint64 // of all events, once that is known
}

// A clusterClient follows a stream at one front and then at another.
type clusterClient struct {
	resuming
	stays bool          // until it is cut
	has   atomic.Uint64 // its ID
}

func startClusterTest(t *testing.T, seed uint64) *clusterTest {
	c := &clusterTest{t: t, rand: rand.New(rand.NewPCG(seed, 0)), stop: make(chan struct{})}
	c.cluster = servetest.StartCluster(t, 3)
	var hasty []*servetest.Server
	for range 3 {
		links := c.cluster.Links()
		f := &front{links: links, Server: servetest.Start(t, "--store", links.URL()+"/"+clusterName, "--retain-events", "0")}
		f.Patience(time.Duration(servetest.Rounds(5, 30)) * time.Minute)
		f.hasty = f.Via(f.Addr, &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 16}})
		c.fronts, hasty = append(c.fronts, f), append(hasty, f.hasty)
	}
	for i := range clusterStreams {
		s := &clusterStream{name: fmt.Sprint("stream/", i), seen: servetest.NewLedger()}
		s.last.Store(math.MaxUint64)
		c.streams = append(c.streams, s)
	}
	quiet := c.streams[clusterStreams-1]
	quiet.turn, quiet.wanted = make(chan struct{}, 1), 1
	for i := range clusterProducers {
		s := c.streams[i%(clusterStreams-1)]
		if i == 0 {
			s = quiet
		}
		p := &servetest.Producer{Server: hasty[0], Fronts: hasty, Stream: s.name, Seen: s.seen, Rand: rand.New(rand.NewPCG(seed, 1+uint64(i)))}
		s.producers = append(s.producers, p)
		c.producing.Go(func() {
			if err := c.produce(s, p, i); err != nil && !c.over() {
				t.Errorf("producer %d of %s: %v", i, s.name, err)
			}
		})
	}
	for i := range clusterClients {
		s := c.streams[i%clusterStreams]
		client := &clusterClient{stays: i%3 == 0}
		client.Follower = servetest.Follower{Client: c.fronts[0].HTTP, Seen: s.seen, Began: true}
		s.clients = append(s.clients, client)
		c.following.Go(func() {
			if err := c.follow(s, client, rand.New(rand.NewPCG(seed, 1000+uint64(i)))); err != nil && !c.over() {
				t.Errorf("client %d of %s: %v", i, s.name, err)
			}
		})
	}
	t.Cleanup(func() { // of a test that ended early
		c.producing.Wait()
		c.following.Wait()
	})
	return c
}

// over reports whether the test has ended.
func (c *clusterTest) over() bool { return errors.Is(c.t.Context().Err(), context.Canceled) }

// produce publishes an event or a batch every now and then, or when it is its turn.
func (c *clusterTest) produce(s *clusterStream, p *servetest.Producer, number int) error {
	for n := 0; ; n++ {
		events := make([]servetest.Event, 1)
		if p.Rand.IntN(4) == 0 {
			events = make([]servetest.Event, 2+p.Rand.IntN(9))
		}
		for i := range events {
			events[i] = servetest.Event{Type: "message", Data: fmt.Sprintf("producer %d: %d, %d of %d", number, n, i+1, len(events))}
		}
		if err := p.Publish(fmt.Sprint(number, "-", n), events...); err != nil {
			return err
		}
		s.acked.Add(1)
		c.outage.acknowledged()
		pause := time.After(time.Duration(p.Rand.IntN(200)) * time.Millisecond)
		if s.turn != nil {
			pause = nil
		}
		select {
		case <-c.stop:
			return nil
		case <-c.t.Context().Done():
			return nil
		case <-s.turn:
		case <-pause:
		}
	}
}

// follow follows the stream to its last event. A client that does not stay leaves after
// a while, as if its user had gone to another network.
func (c *clusterTest) follow(s *clusterStream, client *clusterClient, rnd *rand.Rand) error {
	ctx := c.fronts[0].Ctx
	more := func() bool {
		client.has.Store(client.After)
		return client.After < s.last.Load()
	}
	for more() {
		client.URL = c.fronts[rnd.IntN(len(c.fronts))].URL + "/sse/" + s.name
		visit, leave := context.WithCancel(ctx)
		if !client.stays {
			time.AfterFunc(time.Duration(500+rnd.IntN(12_000))*time.Millisecond, leave)
		}
		sub, err := client.Subscribe(visit)
		if err == nil {
			client.connections.Add(1)
			err = client.Read(sub, more)
			sub.Drop()
		}
		leave()
		if errors.Is(err, servetest.ErrBroken) {
			return err
		}
		select {
		case <-time.After(time.Duration(rnd.IntN(200)) * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("has %d of %d: %w", client.After, s.last.Load(), context.Cause(ctx))
		}
	}
	return nil
}

// settle waits until the cluster is whole, all fronts are ready, each stream is published
// to and its clients have that, and checks that the fronts are ready still. On a quiet
// stream nothing comes later that would tell of what was not heard of.
func (c *clusterTest) settle(after string) {
	c.t.Helper()
	c.cluster.Await(clusterPatience)
	for i, f := range c.fronts {
		if !f.becomes(http.StatusOK, clusterPatience) {
			c.t.Fatalf("%v after %s front %d is not ready", clusterPatience, after, i)
		}
	}
	for _, s := range c.streams {
		wanted := s.wanted
		if s.turn == nil {
			wanted = s.acked.Load() + 1
		}
		c.within(clusterPatience, fmt.Sprintf("%s for an acknowledgement on %s", after, s.name), func() bool { return s.acked.Load() >= wanted })
		last := s.seen.Last()
		for i, client := range s.clients {
			c.within(clusterPatience, fmt.Sprintf("%s for event %d of %s at client %d", after, last, s.name, i), func() bool { return client.has.Load() >= last })
		}
	}
	for i, f := range c.fronts {
		if status := f.ready(); status != http.StatusOK {
			c.t.Errorf("all is well after %s, and front %d answers %d at /readyz", after, i, status)
		}
	}
}

// within waits for something to be done.
func (c *clusterTest) within(patience time.Duration, what string, done func() bool) {
	c.t.Helper()
	for over := time.Now().Add(patience); !done(); time.Sleep(10 * time.Millisecond) {
		if c.t.Failed() { // as an error that is told already
			c.t.FailNow()
		}
		if time.Now().After(over) {
			c.t.Fatalf("waited %v after %s", patience, what)
		}
	}
}

// ready is the status of /readyz, 0 where there is no answer.
func (f *front) ready() int {
	res, err := f.hasty.HTTP.Get(f.URL + "/readyz")
	if err != nil {
		return 0
	}
	res.Body.Close()
	return res.StatusCode
}

// becomes reports whether /readyz has the status in time.
func (f *front) becomes(status int, within time.Duration) bool {
	for over := time.Now().Add(within); ; time.Sleep(50 * time.Millisecond) {
		if f.ready() == status {
			return true
		}
		if time.Now().After(over) {
			return false
		}
	}
}

// An outage is the longest time in which nothing was acknowledged.
type outage struct {
	mu      sync.Mutex // guards all below
	last    time.Time
	longest time.Duration // since begin
	ever    time.Duration
}

func (o *outage) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.longest = 0
}

func (o *outage) acknowledged() {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if !o.last.IsZero() {
		o.longest = max(o.longest, now.Sub(o.last))
	}
	o.last, o.ever = now, max(o.ever, o.longest)
}

func (o *outage) end() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.longest
}

// finish lets all publishes be acknowledged and all clients come to the end, and checks
// what there is.
func (c *clusterTest) finish(seed uint64, took time.Duration) {
	close(c.stop)
	c.producing.Wait()
	events, batches, connections, failed, lost, replayed := 0, int64(0), int64(0), 0, 0, 0
	for _, s := range c.streams {
		s.last.Store(s.seen.Last() + 1) // all that is stored is acknowledged
		if err := s.producers[0].Publish("the end", servetest.Event{Type: "message", Data: "the end"}); err != nil {
			c.t.Errorf("the end of %s: %v", s.name, err)
		}
	}
	c.following.Wait()
	for _, s := range c.streams {
		c.check(s)
		known, _ := s.seen.Len()
		events, batches = events+known, batches+s.acked.Load()
		for _, client := range s.clients {
			connections += client.connections.Load()
		}
		for _, p := range s.producers {
			failed, lost, replayed = failed+p.Failed, lost+p.Lost, replayed+p.Replayed
		}
	}
	if failed == 0 || lost == 0 || replayed < lost || connections < 2*clusterClients {
		c.t.Error("nothing was tried again, no answer lost or no client came again, so the test shows nothing")
	}
	c.t.Logf("seed %d: %d faults in %v; %d publishes acknowledged with %d events, each to %d clients; %d failed tries, %d lost answers, %d replays; %d connections of %d clients; for up to %v nothing was acknowledged",
		seed, c.struck, took.Round(time.Second), batches, events, clusterClients/clusterStreams, failed, lost, replayed,
		connections, clusterClients, c.outage.ever.Round(time.Millisecond))
}

// check checks that the stream is what was acknowledged, at each front and at each client.
func (c *clusterTest) check(s *clusterStream) {
	last := s.seen.Last()
	for i, f := range c.fronts {
		if first, got := f.Bounds(s.name); first != 1 || got != last {
			c.t.Errorf("%s: front %d has %d to %d; want 1 to %d", s.name, i, first, got, last)
		}
		fresh := &servetest.Follower{Client: f.HTTP, URL: f.URL + "/sse/" + s.name, Seen: s.seen, Began: true}
		if err := fresh.Resume(f.Ctx, last, func() bool { return false }); err != nil || fresh.Gaps > 0 {
			c.t.Errorf("%s: at front %d: %v, %d gaps", s.name, i, err, fresh.Gaps)
		}
	}
	if known, acked := s.seen.Len(); known != acked || uint64(acked) != last {
		c.t.Errorf("%s: %d events are seen, %d acknowledged, and the last is %d", s.name, known, acked, last)
	}
	if err := s.seen.CheckOnce(); err != nil {
		c.t.Errorf("%s: %v", s.name, err)
	}
	for i, client := range s.clients {
		if uint64(client.Events) != last || client.Gaps > 0 {
			c.t.Errorf("%s: client %d has %d events and %d gaps, of %d", s.name, i, client.Events, client.Gaps, last)
		}
	}
}
