//go:build linux

package browsertest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"lastevent/cmd/lastevent/servetest"
)

// collect makes the page subscribe and keep what comes.
const collect = `
	window.events = []; window.positions = 0;
	window.source = new EventSource(%q);
	for (const type of ["message", "tick", "gap"]) {
		source.addEventListener(type, (e) => events.push({ id: e.lastEventId, type, data: e.data }));
	}
	source.addEventListener("position", (e) => { positions++; window.position = e.lastEventId; });`

// subscribe opens a page that is nothing but a subscription to the target, and waits
// for its position.
func (v *visit) subscribe(target string) *tab {
	v.Helper()
	t := v.open("/healthz")
	t.run(collect, target)
	t.waitPositions(1)
	return t
}

func (t *tab) waitPositions(n int) {
	t.Helper()
	t.wait("the position", func() bool { return value[int](t, "positions") >= n })
}

// has waits until the page has the events from the first to the last, and checks that
// it has no others.
func (t *tab) has(first, last int) {
	t.Helper()
	t.wait(fmt.Sprint("event ", last), func() bool {
		return value[bool](t, fmt.Sprintf(`events.length >= %d`, last-first+1))
	})
	var want []message
	for i := first; i <= last; i++ {
		want = append(want, message{strconv.Itoa(i), "message", fmt.Sprint("event ", i)})
	}
	if got := value[[]message](t, "events"); !slices.Equal(got, want) {
		t.Errorf("the page has %s\nand must have the events from %d to %d", short(got), first, last)
	}
}

// publish publishes the events from the first to the last.
func (v *visit) publish(first, last int) {
	v.Helper()
	v.server.MustPublish("s", uint64(last), servetest.Numbered(last)[first-1:]...)
}

func cutByNetwork(v *visit) {
	v.start()
	t := v.subscribe("/sse/s")
	for i := range 3 {
		v.publish(4*i+1, 4*i+2)
		t.has(1, 4*i+2)
		v.proxy.Answer(refuse)
		v.proxy.Cut()
		v.publish(4*i+3, 4*i+4)
		v.proxy.Answer(passOn)
		t.has(1, 4*i+4)
	}
}

func killAndStop(v *visit) {
	v.start()
	t := v.subscribe("/sse/s")
	v.publish(1, 3)
	t.has(1, 3)
	v.server.Kill()
	v.server.Restart()
	v.publish(4, 6)
	t.has(1, 6)
	v.server.Stop()
	time.Sleep(2 * time.Second) // in which it is refused
	v.server.Restart()
	v.publish(7, 9)
	t.has(1, 9)
}

func cutBeforeFirstEvent(v *visit) {
	v.start()
	t := v.subscribe("/sse/s")
	v.proxy.Answer(refuse)
	v.proxy.Cut()
	v.publish(1, 3)
	v.proxy.Answer(passOn)
	t.has(1, 3)
}

func readToEnd(v *visit) {
	v.start()
	v.publish(1, 3)
	v.server.MustPost("/sse/s?close=true", "")
	t := v.subscribe("/sse/s?from=earliest")
	t.wait("the EventSource to stop by itself", func() bool {
		return value[bool](t, "source.readyState === EventSource.CLOSED")
	})
	t.has(1, 3)
}

func filtered(v *visit) {
	v.start("--heartbeat", "50ms")
	t := v.subscribe("/sse/s?event=tick")
	v.publish(1, 5)
	tick := func(id int) {
		if _, err := v.server.Publish("s", servetest.Event{Type: "tick", Data: fmt.Sprint("tick ", id)}); err != nil {
			v.Fatal(err)
		}
	}
	tick(6)
	v.publish(7, 8)
	// The position moves the ID past what is not sent, though the connection lasts.
	t.wait("the position 8", func() bool { return value[string](t, "position") == "8" })
	v.proxy.Cut()
	v.publish(9, 9)
	tick(10)
	want := []message{{"6", "tick", "tick 6"}, {"10", "tick", "tick 10"}}
	t.wait("two ticks", func() bool { return value[int](t, "events.length") >= 2 })
	if got := value[[]message](t, "events"); !slices.Equal(got, want) {
		v.Errorf("the page has %s", short(got))
	}
}

func tabsAndReload(v *visit) {
	v.start()
	a, b := v.subscribe("/sse/s"), v.subscribe("/sse/s")
	v.publish(1, 3)
	a.has(1, 3)
	b.has(1, 3)
	a.load("/healthz")
	v.proxy.Cut()
	v.publish(4, 6)
	b.has(1, 6)
	a.run(collect, "/sse/s?lastEventId=3")
	a.has(4, 6)
	b.close()
	v.publish(7, 7)
	a.has(4, 7)
}

// manyDrops looks for holes and repeats in a stream of 60 events a second that is cut
// again and again.
func manyDrops(v *visit) {
	v.start("--time-every", "15ms")
	t := v.open("/healthz")
	t.run(`
		window.last = 0; window.faults = []; window.positions = 0;
		const source = new EventSource("/sse/time?from=earliest");
		source.addEventListener("position", () => positions++);
		source.addEventListener("gap", (e) => faults.push(e.data));
		source.addEventListener("time", (e) => {
			if (Number(e.lastEventId) !== last + 1) faults.push(last + " then " + e.lastEventId);
			last = Number(e.lastEventId);
		})`)
	drops := 0
	until := time.Now().Add(time.Duration(servetest.Rounds(0, 600)) * time.Second)
	for ; drops < 8 || time.Now().Before(until); drops++ {
		t.waitPositions(drops + 1)
		time.Sleep(rand.N(300 * time.Millisecond))
		v.proxy.Cut()
	}
	_, last := v.server.Bounds("time")
	t.wait("the last event", func() bool { return value[uint64](t, "last") >= last })
	if faults := value[[]string](t, "faults"); len(faults) > 0 {
		v.Errorf("%d drops, and %q", drops, faults)
	}
	v.Logf("%d drops, %d events", drops, value[int](t, "last"))
}
