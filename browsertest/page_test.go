//go:build linux

package browsertest

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// number is what the page shows in an element.
func (t *tab) number(id string) int {
	t.Helper()
	return number(value[string](t, fmt.Sprintf("document.getElementById(%q).textContent", id)))
}

// number reads a number as the page writes it. One that is not there yet is -1.
func number(text string) int {
	n, err := strconv.Atoi(strings.ReplaceAll(text, ",", ""))
	if err != nil {
		return -1
	}
	return n
}

func (t *tab) state() string {
	t.Helper()
	return value[string](t, "document.getElementById('state').dataset.state")
}

func (t *tab) waitState(want string) {
	t.Helper()
	t.wait("the page to be "+want, func() bool { return t.state() == want })
}

// moves waits until some events more came.
func (t *tab) moves() {
	t.Helper()
	was := t.number("received")
	t.wait("events", func() bool { return t.number("received") > was+5 })
}

// isWhole checks that the page is live and has missed nothing.
func (t *tab) isWhole(when string) {
	t.Helper()
	t.waitState("live")
	t.moves()
	if missed, again := t.number("missed"), t.number("duplicates"); missed != 0 || again != 0 {
		t.photograph("missed")
		t.Errorf("%s: %d missed, %d duplicates", when, missed, again)
	}
}

func cutByButtons(v *visit) {
	v.start("--time-every", "15ms")
	t := v.open("/")
	t.isWhole("at first")
	t.photograph("live")
	for _, seconds := range []int{1, 3, 10} {
		forgotten := t.number("forgetful-missed")
		t.run("document.querySelector('[data-cut=\"%d\"]').click()", seconds)
		t.waitState("cut")
		t.photograph(fmt.Sprintf("cut for %d s", seconds))
		t.isWhole(fmt.Sprintf("after a cut of %d s", seconds))
		t.wait("the other connection to miss events", func() bool { return t.number("forgetful-missed") > forgotten+5*seconds })
		t.photograph(fmt.Sprintf("after %d s", seconds))
	}
}

func killed(v *visit) {
	v.start("--time-every", "15ms")
	t := v.open("/")
	t.isWhole("at first")
	v.server.Kill()
	t.wait("the page to see it", func() bool { return t.state() != "live" })
	t.photograph("killed")
	v.server.Restart()
	t.isWhole("after kill -9")
	t.photograph("after kill -9")
	v.proxy.Cut()
	t.isWhole("after a cut by the network")
}

// reloaded checks that the page keeps its ID over a reload, by lastevent.js.
func reloaded(v *visit) {
	v.start("--time-every", "15ms")
	t := v.open("/")
	t.isWhole("at first")
	before := t.number("last-id")
	t.load("/")
	t.isWhole("after a reload")
	t.photograph("after a reload")
	resumed := regexp.MustCompile(`Resumed after ID (\d+)`)
	var m []string
	t.wait("the page to say where it resumed", func() bool {
		m = resumed.FindStringSubmatch(value[string](t, "document.getElementById('notes').textContent"))
		return m != nil
	})
	shown := value[[2]string](t, "['last-id', 'received'].map((id) => document.getElementById(id).textContent)")
	first := number(shown[0]) - number(shown[1])
	if id := number(m[1]); id < before || id > before+500 || id != first {
		t.Errorf("at ID %d it was reloaded, and resumed after ID %d with %d as the first", before, id, first+1)
	}
}

// sharedConnection checks that two tabs with lastevent.js have one connection between
// them, and that the other takes it over, with nothing missed.
func sharedConnection(v *visit) {
	v.start("--time-every", "15ms")
	const follow = `
		window.last = null; window.faults = []; window.state = "";
		import("/lastevent.js").then(({ subscribe }) => subscribe("/sse/time", {
			position: ({ id }) => { last ??= Number(id); },
			event: ({ id }) => {
				if (last !== null && Number(id) !== last + 1) faults.push(last + " then " + id);
				last = Number(id);
			},
			gap: (gap) => faults.push(gap),
			state: (now) => { state = now; },
		}), (error) => faults.push(String(error)))`
	var tabs []*tab
	for range 2 {
		t := v.open("/healthz")
		t.run(follow)
		t.wait("events", func() bool { return value[bool](t, "last > 0 || faults.length > 0") })
		tabs = append(tabs, t)
	}
	check := func(when string, t *tab) {
		v.Helper()
		_, last := v.server.Bounds("time")
		v.wait("the newest event "+when, func() bool { return value[uint64](t, "last ?? 0") >= last || value[bool](t, "faults.length > 0") })
		v.wait("one connection "+when, func() bool { return v.clients("time") == 1 })
		if faults := value[[]any](t, "faults"); len(faults) > 0 {
			v.Errorf("%s: %q", when, faults)
		}
	}
	check("in the first tab", tabs[0])
	check("in the second tab", tabs[1])
	tabs[0].close()
	time.Sleep(100 * time.Millisecond) // of events that somebody has to go back for
	check("after the first tab was closed", tabs[1])
	v.proxy.Cut()
	check("after a cut", tabs[1])
}

// clients is how many subscriptions the server has to a stream.
func (v *visit) clients(stream string) int {
	v.Helper()
	var list []struct {
		Name    string
		Clients int
	}
	if err := json.Unmarshal([]byte(v.server.Do("GET", "/sse", "").Body), &list); err != nil {
		v.Fatal(err)
	}
	for _, s := range list {
		if s.Name == stream {
			return s.Clients
		}
	}
	return 0
}
