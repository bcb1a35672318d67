//go:build linux

package browsertest

import (
	"context"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"lastevent/cmd/lastevent/servetest"
	"lastevent/stream/sse"
)

// atOnce is how long an event may take through a proxy. One that waits for more takes
// 200 ms or longer.
const atOnce = 100 * time.Millisecond

func TestProxiesStreamAndResume(t *testing.T) {
	t.Parallel()
	for _, f := range fronts {
		for _, compressed := range []bool{false, true} {
			name := f.name
			if compressed {
				name += " with compression"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := servetest.Start(t, "--allow-host", host, "--retry", "100ms")
				addr := f.start(t, s.Addr, compressed)
				b := &behind{t, f, s, "http://" + addr + "/sse/s"}
				b.streams()
				b.resumes()
				b.ends()
				b.survivesRestart()
			})
		}
	}
}

// behind is a server behind a proxy.
type behind struct {
	*testing.T
	front  front
	server *servetest.Server
	url    string // of the stream s, through the proxy
}

// streams checks that the response begins at once, without any event, and that each
// event comes at once.
func (b *behind) streams() {
	b.Helper()
	began := time.Now()
	f := &servetest.Follower{Client: named(), URL: b.url}
	sub, err := f.Subscribe(b.server.Ctx)
	if err != nil {
		b.Fatal(err)
	}
	defer sub.Drop()
	if err := f.Read(sub, func() bool { return !f.Began }); err != nil {
		b.Fatal(err)
	}
	b.Logf("the first byte came after %v", time.Since(began))
	if first := time.Since(began); first > time.Second {
		b.Errorf("the first byte came after %v", first)
	}
	var took []time.Duration
	for i := range 20 {
		b.server.MustPublish("s", uint64(i+1), "x")
		published := time.Now()
		if err := f.Read(sub, f.UpTo(uint64(i+1))); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(published))
	}
	slices.Sort(took)
	b.Logf("events came after %v (median), %v (longest)", took[10], took[19])
	if took[10] > atOnce {
		b.Errorf("events took %v", took)
	}
}

// resumes checks that Last-Event-ID gets through, and that a cut shows as a cut: a
// clean end would be a broken promise to Follow.
func (b *behind) resumes() {
	b.Helper()
	f := &servetest.Follower{Client: named(), URL: b.url, Began: true, After: 10}
	if err := f.Follow(b.server.Ctx, f.UpTo(20)); err != nil {
		b.Fatal(err)
	}
	for _, stop := range []func(){b.server.Kill, b.server.Stop} {
		sub, err := f.Subscribe(b.server.Ctx)
		if err != nil {
			b.Fatal(err)
		}
		positioned := false
		err = f.Read(sub, func() bool {
			if !positioned {
				positioned = true
				return true
			}
			return false
		})
		if err != nil {
			b.Fatal(err)
		}
		stop()
		if m, err := sub.Next(); err == nil || err == io.EOF && !b.front.hidesCuts {
			b.Errorf("where the server was stopped: %v, %v; want a cut", m, err)
		}
		sub.Drop()
		b.server.Restart()
	}
}

// ends checks that a complete response ends.
func (b *behind) ends() {
	b.Helper()
	sub, err := servetest.Subscribe(b.server.Ctx, named(), b.url+"?from=earliest&limit=3", "")
	if err != nil {
		b.Fatal(err)
	}
	defer sub.Drop()
	for range 4 {
		if _, err := sub.Next(); err != nil {
			b.Fatal(err)
		}
	}
	if m, err := sub.Next(); err != io.EOF {
		b.Errorf("at the limit: %v, %v; want the end", m, err)
	}
}

// survivesRestart checks that an EventSource, which stops at any error in HTTP, gets
// all when the server is away for some time.
func (b *behind) survivesRestart() {
	b.Helper()
	ctx, cancel := context.WithCancel(b.server.Ctx)
	defer cancel()
	got := make(chan string, 100)
	es := &servetest.EventSource{Client: named(), URL: b.url, LastEventID: "20", OnMessage: func(m sse.Message) {
		if m.Type == "message" {
			got <- m.ID
		}
	}}
	stopped := make(chan string, 1)
	go func() {
		status, err := es.Run(ctx)
		stopped <- fmt.Sprintf("status %d, %v", status, err)
	}()
	for id := 21; id < 24; id++ {
		b.server.MustPublish("s", uint64(id), "x")
		select {
		case g := <-got:
			if g != fmt.Sprint(id) {
				b.Fatalf("event %s, want %d", g, id)
			}
		case why := <-stopped:
			b.Fatalf("before event %d the EventSource stopped: %s", id, why)
		case <-ctx.Done():
			b.Fatalf("event %d does not come", id)
		}
		b.server.Stop()
		time.Sleep(3 * time.Second)
		b.server.Restart()
	}
}
