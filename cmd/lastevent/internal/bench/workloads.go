//go:build linux

package bench

import (
	"context"
	"fmt"
	"time"
)

// A workload is what is measured under one name.
type workload struct {
	name string
	what string
	run  func(context.Context, *bench) error
}

// sizes are of the workloads.
type sizes struct {
	clients    int           // of a fan-out
	isolated   int           // events, 20/s
	paced      int           // events, 1000/s
	flood      int           // events, as fast as they go
	slowFlood  int           // the same, to the classic server
	history    int           // events to replay
	missed     int           // events that each client of a storm misses
	idle, more int           // connections; and then more of them
	stalled    int           // clients
	publishers []int         //
	load       time.Duration // of publishing and appending
	producers  int           // of the library
	retain     int           // events of a ring
	ring       int           // events appended to it
	file       int64         // bytes

	curve                  time.Duration // of each point
	manyClients, payloads  []int
	manyStreams, manyTimes []int
}

var full = sizes{
	clients: 1000, isolated: 100, paced: 5000, flood: 20_000, slowFlood: 500,
	history: 1_000_000, missed: 1000, idle: 10_000, more: 5000, stalled: 100,
	publishers: []int{1, 64, 256, 1024}, load: 2 * time.Second,
	producers: 4096, retain: 100_000, ring: 10_000_000, file: 1 << 30,
	curve:       time.Second,
	manyClients: []int{1, 10, 100, 1000, 10_000},
	payloads:    []int{16, 64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10},
	manyStreams: []int{1, 10, 100, 1000, 10_000},
	manyTimes:   []int{1, 10, 100, 1000, 10_000, 100_000, 1_000_000},
}

var quick = sizes{
	clients: 20, isolated: 10, paced: 200, flood: 200, slowFlood: 50,
	history: 2000, missed: 100, idle: 100, more: 50, stalled: 5,
	publishers: []int{1, 4}, load: 100 * time.Millisecond,
	producers: 64, retain: 1000, ring: 20_000, file: 1 << 20,
	curve:       100 * time.Millisecond,
	manyClients: []int{1, 10},
	payloads:    []int{16, 1 << 10},
	manyStreams: []int{1, 10},
	manyTimes:   []int{10, 1000},
}

// eventSize is of the data of most events.
const eventSize = 100

func workloads(s sizes) []workload {
	return []workload{
		{"isolated", fmt.Sprintf("%d clients, 20 events/s", s.clients), isolated},
		{"saturated", fmt.Sprintf("%d clients, 1000 events/s and as many as go", s.clients), saturated},
		{"replay", fmt.Sprintf("%d events of %d bytes to one client", s.history, eventSize), replay},
		{"storm", fmt.Sprintf("%d clients connect at once, each missing %d events", s.clients, s.missed), storm},
		{"idle", fmt.Sprintf("%d idle connections, and then %d more", s.idle, s.more), idle},
		{"stalled", fmt.Sprintf("%d clients that do not read", s.stalled), stalled},
		{"http2", fmt.Sprintf("the same over HTTP/2 and TLS: %d clients, and a replay of %d events", s.clients, s.history/5), http2},
		{"publish", "publishes over HTTP, one event each; the classic server stores nothing; limit: fdatasync", publish},
		{"append", "appends of one event each through the library; limit: fdatasync", appends},
		{"ring", fmt.Sprintf("%d appends through the library, %d events retained", s.ring, s.retain), ring},
		{"startup", fmt.Sprintf("start on a file of %d MiB", s.file>>20), startup},
		{"curve-clients", "Cost a delivery against clients", curveClients},
		{"curve-payload", "Cost a delivery against payload", curvePayload},
		{"curve-streams", "Cost a delivery against streams, one client each", curveStreams},
		{"curve-replay", "Replay time against missed events", curveReplay},
	}
}

// Names are those of all workloads.
func Names() (names []string) {
	for _, w := range workloads(full) {
		names = append(names, w.name)
	}
	return names
}

// A fan is events published while clients follow.
type fan struct {
	clients int
	load
}

// fanResult is what that costs.
type fanResult struct {
	cpu       float64 // µs of the server a delivery
	perSecond float64 // deliveries
	p50, p99  float64 // ms from publish to receive
	rss       float64 // MiB of the server
}

// fanOut starts a target and measures a fan on it.
func (b *bench) fanOut(ctx context.Context, t target, f fan) (r fanResult, err error) {
	s, err := b.start(ctx, t)
	if err != nil {
		return r, err
	}
	defer s.stop()
	return b.fanOutOn(ctx, s, f, func() error { return nil })
}

// fanOutOn measures a fan on a server. It calls ready before the first event.
func (b *bench) fanOutOn(ctx context.Context, s *server, f fan, ready func() error) (r fanResult, err error) {
	f.prefix = b.newPrefix()
	deliveries := f.clients * f.events / f.streams
	c, err := b.connect(ctx, s, clientsConfig{
		Prefix: f.prefix, Streams: f.streams, Clients: f.clients,
		Expect: f.events / f.streams, Sample: 1 + deliveries/500_000,
	})
	if err != nil {
		return r, err
	}
	defer c.stop()
	if err := ready(); err != nil {
		return r, err
	}
	cpu, began := s.cpu(), time.Now()
	if _, err := f.run(ctx, s); err != nil {
		return r, err
	}
	got, err := c.result()
	if err != nil {
		return r, err
	}
	return fanResult{
		cpu:       (s.cpu() - cpu) / float64(deliveries),
		perSecond: float64(deliveries) / time.Unix(0, got.Finished).Sub(began).Seconds(),
		p50:       got.P50 / 1e3,
		p99:       got.P99 / 1e3,
		rss:       s.memory("VmRSS") / 1024,
	}, nil
}

// newPrefix is one for streams that do not exist.
func (b *bench) newPrefix() string {
	b.names++
	return fmt.Sprintf("%s%d-", b.prefix, b.names)
}

// clientsTimeout is how long clients may take to get all.
const clientsTimeout = 2 * time.Minute

// connect starts clients and waits until they have connected.
func (b *bench) connect(ctx context.Context, s *server, c clientsConfig) (*player, error) {
	c.Addr, c.Host, c.Timeout = s.addr, s.host, clientsTimeout
	role := "clients"
	if s.tls {
		role = "clients-http2"
	}
	p, err := b.play(ctx, role, c)
	if err != nil {
		return nil, err
	}
	var first connected
	err = p.next(&first)
	if err == nil && first.Err != "" {
		err = fmt.Errorf("%d of %d clients connected: %s", first.Clients, c.Clients, first.Err)
	}
	if err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// result waits until the clients have got all.
func (p *player) result() (r clientsResult, err error) {
	if err = p.next(&r); err == nil && r.Err != "" {
		err = fmt.Errorf("clients: %s", r.Err)
	}
	return r, err
}

func isolated(ctx context.Context, b *bench) error {
	cpu := b.entry.metric("CPU a delivery", "µs", atMost(1.3, limit))
	p99 := b.entry.metric("latency p99", "ms", atMost(0.6, classic))
	p50 := b.entry.metric("latency p50", "ms")
	rate := b.entry.metric("deliveries", "/s")
	rss := b.entry.metric("RSS", "MiB")
	f := fan{b.clients, load{streams: 1, size: eventSize, publishers: 4, events: b.isolated, rate: 20}}
	return b.inTurns(ctx, allTargets, func(t target) error {
		r, err := b.fanOut(ctx, t, f)
		if err != nil {
			return err
		}
		cpu.add(t, r.cpu)
		p50.add(t, r.p50)
		p99.add(t, r.p99)
		rate.add(t, r.perSecond)
		rss.add(t, r.rss)
		return nil
	})
}

func saturated(ctx context.Context, b *bench) error {
	cpu := b.entry.metric("CPU a delivery at 1000/s", "µs", atMost(0.1, classic))
	p50 := b.entry.metric("latency p50 at 1000/s", "ms")
	p99 := b.entry.metric("latency p99 at 1000/s", "ms")
	most := b.entry.metric("deliveries at most", "/s", atLeast(7, classic))
	rss := b.entry.metric("RSS", "MiB")
	return b.inTurns(ctx, []target{lastevent, classic}, func(t target) error {
		paced := fan{b.clients, load{streams: 1, size: eventSize, publishers: 16, events: b.paced, rate: 1000}}
		flood := fan{b.clients, load{streams: 1, size: eventSize, publishers: 64, events: b.flood}}
		if t == classic { // which is saturated by less
			paced.events, flood.events = min(b.paced, b.slowFlood), b.slowFlood
		}
		r, err := b.fanOut(ctx, t, paced)
		if err != nil {
			return err
		}
		cpu.add(t, r.cpu)
		p50.add(t, r.p50)
		p99.add(t, r.p99)
		if r, err = b.fanOut(ctx, t, flood); err != nil {
			return err
		}
		most.add(t, r.perSecond)
		rss.add(t, r.rss)
		return nil
	})
}
