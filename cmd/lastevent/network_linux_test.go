package main_test

import (
	"net/http"
	"testing"
	"time"

	"lastevent/cmd/lastevent/servetest"
)

// The same over a link that loses packets, that is slow, and that goes down, with the
// kernel's TCP on both sides of it.
//
// For longer, and down for 10 s: go test -tags long -run LinkThatDrops ./cmd/lastevent
func TestLinkThatDrops(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		spoil func(*servetest.Network)
		down  time.Duration
		size  int
		every time.Duration
	}{
		{"loss", func(n *servetest.Network) { n.Drop(5) }, 0, 50, time.Millisecond},
		{"1 Mbit/s", func(n *servetest.Network) { n.Limit(1e6) }, 0, 1000, 20 * time.Millisecond},
		{"loss at 1 Mbit/s", func(n *servetest.Network) { n.Limit(1e6); n.Drop(2) }, 0, 500, 20 * time.Millisecond},
		{"down", func(*servetest.Network) {}, time.Duration(servetest.Rounds(2, 10)) * time.Second, 50, time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := servetest.StartNetwork(t)
			s := servetest.StartAt(t, n.Addr, "--retain-events", "0", "--anonymous", "publish,subscribe")
			s.Patience(10 * time.Minute)
			client := &http.Client{Transport: &http.Transport{DialContext: n.Dial, MaxIdleConnsPerHost: 16}}
			defer client.CloseIdleConnections()
			s.HTTP = client
			tr := startTraffic(t, s, "x", 2, 6, test.every, test.size)
			await(t, s, "all to be connected", func() bool { return tr.reconnected(1) })
			test.spoil(n)
			talk(tr, time.Second)
			if test.down > 0 {
				n.Cut(true)
				time.Sleep(test.down)
				n.Cut(false)
				talk(tr, time.Second)
			}
			tr.finish(t)
			dropped, err := n.Dropped()
			if err != nil {
				t.Error(err)
			}
			t.Logf("%d packets were dropped", dropped)
		})
	}
}
