//go:build unix

package main_test

import (
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"lastevent/cmd/lastevent/servetest"
)

// A weather is what a network does to those who talk over it.
type weather struct {
	name   string
	faults servetest.Faults
	// storm comes while they talk.
	storm func(*servetest.Proxy)
	// size is that of an event, every how often a producer makes one.
	size  int
	every time.Duration
	// connections is how many each client has at least.
	connections int
}

func weathers() []weather {
	parted := time.Duration(servetest.Rounds(2, 10)) * time.Second
	rnd := rand.New(rand.NewPCG(7, 0))
	some := func() int64 { return 1 + rnd.Int64N(3000) }
	return []weather{
		{"cuts in mid-event", servetest.Faults{CutAfter: some}, nil, 50, time.Millisecond, 5},
		{"resets in mid-event", servetest.Faults{CutAfter: some, Reset: true}, nil, 50, time.Millisecond, 5},
		{"latency", servetest.Faults{Latency: 200 * time.Millisecond}, nil, 50, time.Millisecond, 1},
		{"latency and resets", servetest.Faults{Latency: 50 * time.Millisecond, CutAfter: some, Reset: true}, nil, 200, time.Millisecond, 3},
		{"1 Mbit/s", servetest.Faults{BytesPerSecond: 1e6 / 8}, nil, 1000, 20 * time.Millisecond, 1},
		{"a partition", servetest.Faults{}, func(p *servetest.Proxy) {
			p.Partition()
			time.Sleep(parted)
			p.Heal()
		}, 50, time.Millisecond, 1},
		{"a partition that resets", servetest.Faults{}, func(p *servetest.Proxy) {
			p.Partition()
			time.Sleep(parted)
			p.Reset()
			p.Heal()
		}, 50, time.Millisecond, 2},
	}
}

// Whatever the network does, each client has the whole sequence in the end.
//
// For longer, and with partitions of 10 s: go test -tags long -run Network ./cmd/lastevent
func TestNetworkThatDrops(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t, "--retain-events", "0")
	s.Patience(time.Duration(servetest.Rounds(2, 10)) * time.Minute)
	for _, w := range weathers() {
		t.Run(w.name, func(t *testing.T) {
			proxy := servetest.StartProxy(t, s.Addr, w.faults)
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
			defer client.CloseIdleConnections()
			name := strings.NewReplacer(" ", "-", "/", "").Replace(w.name)
			tr := startTraffic(t, s.Via(proxy.Addr, client), name, 2, 6, w.every, w.size)
			talk(tr, time.Second)
			if w.storm != nil {
				w.storm(proxy)
				talk(tr, time.Second)
			}
			await(t, s, "the network to be bad", func() bool { return tr.reconnected(w.connections) })
			tr.finish(t)
			if _, last := s.Bounds(name); last != tr.last.Load() {
				t.Errorf("last is %d, and %d events were acknowledged", last, tr.last.Load())
			}
		})
	}
}

// talk lets producers and clients do what they do for a while, at full size longer.
func talk(tr *traffic, d time.Duration) {
	time.Sleep(d * time.Duration(servetest.Rounds(1, 20)))
}
