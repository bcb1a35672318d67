//go:build linux

package browsertest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"lastevent/cmd/lastevent/servetest"
)

// resumes is what a client should do: give each event to its user once, in order,
// whatever happened.
const resumes = "resumes"

// differently is what clients do differently from what they should, in which scenario.
var differently = map[string]map[string]string{
	"EventSource":              {down502: `stops before event "4"`},
	"event-source-polyfill":    {down502: `stops before event "4"`},
	"eventsource 2":            {inside: `misses event "4"`, mib: `misses event "5"`},
	"eventsource 3":            {down502: `stops before event "4"`},
	"eventsource 5":            {down502: `stops before event "4"`},
	"fetch-event-source":       {cleanEnd: `stops before event "4"`, inside: `misses event "4"`, mib: `misses event "5"`},
	"htmx":                     {down502: `misses event "4"`, atEnd: "asks again and again"},
	"launchdarkly/eventsource": {atEnd: "asks again and again"},
	"r3labs/sse": {
		cleanEnd: `stops before event "4"`, inside: `invents event "4"`, mib: `invents event "5"`,
		idle: `invents event "3"`, retry: "comes sooner",
	},
	"sse.js":         {atEnd: "asks again and again"},
	"tmaxmax/go-sse": {down502: `stops before event "4"`},
	"undici":         {down502: `stops before event "4"`},
}

// The scenarios in which clients differ.
const (
	inside   = "reset inside an event"
	down502  = "a 502 while it is down"
	mib      = "1 MiB events"
	idle     = "heartbeats"
	cleanEnd = "a limit"
	atEnd    = "the end"
	retry    = "retry"
)

// scenarios are what happens to clients that are subscribed to one server.
var scenarios = []struct {
	name   string
	flags  []string
	target string
	run    func(*round)
	// outcome says what a client did; without it, whether it got what was published.
	outcome func(*round, *client) string
}{
	{"cut before the first event", nil, "", cutBeforeFirst, nil},
	{inside, nil, "", resetInside, nil},
	{"kill -9 and restart", nil, "", kill, nil},
	{"down for 3 s", nil, "", downFor3s, nil},
	{"draining", nil, "", drain, nil},
	{down502, nil, "", badGateway, nil},
	{mib, nil, "", large, nil},
	{"line ends", nil, "", lineEnds, nil},
	{idle, []string{"--heartbeat", "20ms"}, "", heartbeats, nil},
	{"gap", []string{"--retain-events", "2"}, "", gap, nil},
	{cleanEnd, nil, "?from=earliest&limit=3", limit, nil},
	{atEnd, nil, "", end, stopsAtEnd},
	{retry, []string{"--retry", "7s"}, "", cut, heedsRetry},
}

func TestClients(t *testing.T) {
	t.Parallel()
	clients := startClients(t)
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			r := startRound(t, clients, s.target, append([]string{"--retry", "100ms"}, s.flags...)...)
			s.run(r)
			outcome := s.outcome
			if outcome == nil {
				outcome = (*round).outcome
			}
			r.settle(func(c *client) bool {
				return differently[c.name][s.name] != "" || outcome(r, c) == resumes
			})
			for _, c := range r.clients {
				want := resumes
				if other, ok := differently[c.name][s.name]; ok {
					want = other
				}
				if got := outcome(r, c); got != want {
					t.Errorf("%s: %q, want %q; it has %s", c.name, got, want, short(c.inbox.messages()))
				}
			}
		})
	}
}

// A round is a server with a subscription of each client, through a proxy each.
type round struct {
	*testing.T
	server    *servetest.Server
	clients   []*client
	published []message // what a client should get
	wasCut    time.Time
}

type client struct {
	name  string
	proxy *proxy
	inbox *inbox
}

func startRound(t *testing.T, clients map[string]subscriber, target string, flags ...string) *round {
	r := &round{T: t, server: servetest.Start(t, flags...)}
	if strings.Contains(target, "limit") {
		r.publish(6)
	}
	for _, name := range slices.Sorted(maps.Keys(clients)) {
		p := startProxy(t, r.server.Addr)
		in := clients[name](r.server.Ctx, "http://"+p.Addr+"/sse/s"+target)
		r.clients = append(r.clients, &client{name, p, in})
	}
	for _, c := range r.clients {
		r.wait("the position of "+c.name, func() bool { return c.proxy.Beginnings() > 0 })
	}
	return r
}

// wait waits until something is so.
func (r *round) wait(what string, ok func() bool) {
	r.Helper()
	for !ok() {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-r.server.Ctx.Done():
			r.Fatal("waiting for " + what)
		}
	}
}

// settle waits until all clients are as they should be, and then for what may still
// come. It gives up after a while.
func (r *round) settle(ready func(*client) bool) {
	deadline := time.Now().Add(30 * time.Second)
	for _, c := range r.clients {
		for !ready(c) && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
	}
	time.Sleep(3 * time.Second)
}

// publish publishes n events, of two types.
func (r *round) publish(n int) {
	r.Helper()
	for range n {
		e := servetest.Event{Type: "message", Data: fmt.Sprint("event ", len(r.published)+1)}
		if len(r.published)%2 == 1 {
			e.Type = "tick"
		}
		r.publishAs(e, e.Data)
	}
}

// publishAs publishes an event that clients get with the given data.
func (r *round) publishAs(e servetest.Event, data string) {
	r.Helper()
	id, err := r.server.Publish("s", e)
	if err != nil {
		r.Fatal(err)
	}
	r.published = append(r.published, message{strconv.FormatUint(id, 10), e.Type, data})
}

// begin lets all clients get three events.
func (r *round) begin() {
	r.Helper()
	r.publish(3)
	for _, c := range r.clients {
		r.wait(c.name+" to get three events", func() bool { return r.outcome(c) == resumes })
	}
}

// each does something with each client's proxy.
func (r *round) each(do func(*proxy)) {
	for _, c := range r.clients {
		do(c.proxy)
	}
}

// outcome says what a client has, compared with what was published.
func (r *round) outcome(c *client) string {
	got := events(c.inbox.messages())
	if slices.Equal(got, r.published) {
		return resumes
	}
	for i, m := range got {
		switch {
		case i >= len(r.published) || slices.Contains(got[:i], m):
			return "repeats " + name(m)
		case !slices.Contains(r.published, m):
			return "invents " + name(m)
		case m != r.published[i]:
			return "misses " + name(r.published[i])
		}
	}
	return "stops before " + name(r.published[len(got)])
}

func name(m message) string {
	if m.Type == "gap" {
		return "the gap"
	}
	return fmt.Sprintf("event %.20q", m.ID)
}

// events are the messages without the positions and ends. Of a gap, whose ID is each
// client's own, what it misses remains.
func events(all []message) []message {
	var events []message
	for _, m := range all {
		switch m.Type {
		case "position", "end":
			continue
		case "gap":
			var gap struct{ Missed int }
			_ = json.Unmarshal([]byte(m.Data), &gap) // then it misses 0
			m.ID, m.Data = "", fmt.Sprint("missed ", gap.Missed)
		case "":
			m.Type = "message" // as some clients have it
		}
		events = append(events, m)
	}
	return events
}

func short(all []message) string {
	var s strings.Builder
	for _, m := range all {
		fmt.Fprintf(&s, "\n\t%.20q %.20q %.80q", m.ID, m.Type, m.Data)
	}
	return s.String()
}

func cutBeforeFirst(r *round) {
	r.each((*proxy).Cut)
	r.publish(3)
}

func resetInside(r *round) {
	r.begin()
	r.each(func(p *proxy) { p.CutAfter(200) })
	text := strings.Repeat("never in part ", 1000)
	r.publishAs(servetest.Event{Type: "tick", Data: text}, text)
	r.publish(2)
}

func cut(r *round) {
	r.begin()
	r.wasCut = time.Now()
	r.each((*proxy).Cut)
	r.publish(2)
}

func kill(r *round) {
	r.begin()
	r.server.Kill()
	r.server.Restart()
	r.publish(3)
}

func downFor3s(r *round) {
	r.begin()
	r.server.Stop()
	time.Sleep(3 * time.Second)
	r.server.Restart()
	r.publish(3)
}

// drain gives the clients that come back no more than the position, as a server does
// that is stopping.
func drain(r *round) {
	r.begin()
	before := map[*proxy]int{}
	r.each(func(p *proxy) {
		before[p] = p.Beginnings()
		p.Answer(beginOnly)
		p.Cut()
	})
	r.publish(1)
	for _, c := range r.clients {
		r.wait("two beginnings for "+c.name, func() bool { return c.proxy.Beginnings() >= before[c.proxy]+2 })
		c.proxy.Answer(passOn)
	}
	r.publish(2)
}

func badGateway(r *round) {
	r.begin()
	before := map[*proxy]int{}
	r.each(func(p *proxy) {
		before[p] = len(p.Subscriptions())
		p.Answer(unavailable)
		p.Cut()
	})
	r.publish(1)
	r.each(func(p *proxy) {
		r.wait("an attempt", func() bool { return len(p.Subscriptions()) > before[p] })
		p.Answer(passOn)
	})
	time.Sleep(2 * time.Second) // for those that subscribe anew
	r.publish(1)
}

func large(r *round) {
	r.begin()
	for _, c := range []string{"a", "b"} {
		text := strings.Repeat(c, 1<<20-len("tick"))
		r.publishAs(servetest.Event{Type: "tick", Data: text}, text)
		if c == "b" {
			break
		}
		for _, c := range r.clients {
			r.wait(c.name+" to get 1 MiB", func() bool { return r.outcome(c) == resumes })
		}
		r.each(func(p *proxy) { p.CutAfter(700_000) })
	}
	r.publish(2)
}

func lineEnds(r *round) {
	r.begin()
	r.publishAs(
		servetest.Event{Type: "message", Data: "a\r\nb\rc\n\nid: 99\r\n: d\r\n\r\nevent: end\ndata: e "},
		"a\nb\nc\n\nid: 99\n: d\n\nevent: end\ndata: e ")
	r.each((*proxy).Cut)
	r.publishAs(servetest.Event{Type: "tick", Data: " \u2028ü\x00😀\v"}, " \u2028ü\x00😀\v")
	r.publish(1)
}

func heartbeats(r *round) {
	time.Sleep(500 * time.Millisecond) // of heartbeats
	r.begin()
	time.Sleep(500 * time.Millisecond)
	r.each((*proxy).Cut)
	r.publish(2)
}

func gap(r *round) {
	r.begin()
	r.each(func(p *proxy) {
		p.Answer(refuse)
		p.Cut()
	})
	before := slices.Clone(r.published)
	r.publish(6)
	r.published = slices.Concat(before, []message{{Type: "gap", Data: "missed 4"}}, r.published[7:])
	r.each(func(p *proxy) { p.Answer(passOn) })
}

// limit makes three responses of seven events, which end as they should.
func limit(r *round) { r.publish(1) }

func end(r *round) {
	r.begin()
	r.wasCut = time.Now()
	r.server.MustPost("/sse/s?close=true", "")
}

// stopsAtEnd is the outcome where a client need not come back: it may ask once.
func stopsAtEnd(r *round, c *client) string {
	if got := r.outcome(c); got != resumes {
		return got
	}
	messages := c.inbox.messages()
	if !slices.ContainsFunc(messages, func(m message) bool { return m.Type == "end" && m.Data != "" }) {
		return "does not say end"
	}
	again := c.proxy.Subscriptions()
	again = slices.DeleteFunc(again, func(at time.Time) bool { return at.Before(r.wasCut) })
	if len(again) > 1 {
		return "asks again and again"
	}
	return resumes
}

func heedsRetry(r *round, c *client) string {
	if got := r.outcome(c); got != resumes {
		return got
	}
	for _, at := range c.proxy.Subscriptions() {
		switch after := at.Sub(r.wasCut); {
		case after < 0:
		case after < 3400*time.Millisecond: // 3 s is a usual time of their own, and some take half of what they are told
			return "comes sooner"
		default:
			return resumes
		}
	}
	return "does not come"
}
