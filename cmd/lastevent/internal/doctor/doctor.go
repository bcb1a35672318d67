// Package doctor finds out what stands between a server and its clients, and does
// them harm: it publishes events, watches how they come back, and says what to mend.
package doctor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"lastevent/cmd/lastevent/internal/client"
	"lastevent/stream/sse"
)

const (
	// events are published so many, one each interval.
	events   = 7
	interval = 250 * time.Millisecond
	// lateAfter is how much later than its receipt an event may come, beside what a
	// request takes.
	lateAfter = 100 * time.Millisecond
	// wait is how long a response's beginning, or an event, is waited for.
	wait = 5 * time.Second
)

// The verdicts.
const (
	OK      = "ok"
	Problem = "problem"
	Skipped = "skipped"
)

// A Finding is the outcome of one check.
type Finding struct {
	Verdict string
	Check   string
	Text    string
	Cures   []string // of a problem
}

// A Config says what to examine.
type Config struct {
	Server *client.Server
	Stream string        // to publish to; its events are deleted at the end if it is empty before
	Origin string        // of pages that are to read; empty: not checked
	Idle   time.Duration // how long a connection without events must last
	Report func(Finding) // takes each finding as it is made
}

// An examination is a run of all checks.
type examination struct {
	Config
	path    string
	run     string // in the data of the events, as others may use the stream, too
	empty   bool   // the stream, before
	first   uint64 // ID of the first event
	sent    [events]time.Time
	request time.Duration // the shortest publish
	healthy bool
}

// Run makes all checks, and reports whether none found a problem. An error says that
// it could not make them.
func Run(ctx context.Context, c Config) (healthy bool, err error) {
	x := &examination{Config: c, path: "/sse/" + c.Stream, run: rand.Text(), healthy: true, request: wait}
	if !x.checkServer(ctx) {
		return false, context.Cause(ctx)
	}
	defer x.cleanUp()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	plain := x.listen(ctx, "identity")
	compressed := x.listen(ctx, "gzip")
	awaitAll(plain.began, compressed.began)
	if !x.publish(ctx) {
		return false, context.Cause(ctx)
	}
	awaitAll(plain.all, compressed.all)
	begun := x.checkEvents(plain)
	x.checkResume(ctx)
	x.checkOrigin(ctx)
	if begun {
		x.checkCompression(compressed, plain)
		x.checkCut(ctx)
		x.checkIdle(ctx, plain)
	}
	return x.healthy, context.Cause(ctx)
}

// cleanUp deletes the events. Where it fails, they stay until they are evicted.
func (x *examination) cleanUp() {
	if !x.empty { // or there are others', too
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	if res, err := x.Server.Do(ctx, "DELETE", x.path, nil, nil); err == nil {
		res.Body.Close()
	}
}

func (x *examination) ok(check, format string, args ...any) {
	x.Report(Finding{OK, check, fmt.Sprintf(format, args...), nil})
}

func (x *examination) skipped(check, format string, args ...any) {
	x.Report(Finding{Skipped, check, fmt.Sprintf(format, args...), nil})
}

func (x *examination) problem(check string, cures []string, format string, args ...any) {
	x.healthy = false
	x.Report(Finding{Problem, check, fmt.Sprintf(format, args...), cures})
}

// checkServer looks whether lastevent is there at all, and which HTTP it speaks.
func (x *examination) checkServer(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*wait)
	defer cancel()
	res, err := x.Server.Do(ctx, "HEAD", x.path, nil, nil)
	if err != nil {
		x.problem("server", curesServer, "%v", err)
		return false
	}
	res.Body.Close()
	if res.Header.Get("Stream-Log") == "" {
		x.problem("server", curesServer, "what answers is not lastevent, or a proxy takes its headers off")
		return false
	}
	first, _ := strconv.ParseUint(res.Header.Get("Stream-First-Id"), 10, 64)
	last, _ := strconv.ParseUint(res.Header.Get("Stream-Last-Id"), 10, 64)
	x.empty = first > last
	x.ok("server", "lastevent answers")
	if res.ProtoMajor >= 2 {
		x.ok("http", "%s: all tabs and streams of a browser share a connection", res.Proto)
	} else {
		x.ok("http", "%s: a browser opens six connections at most, and each EventSource has one; HTTPS with HTTP/2 has no such limit", res.Proto)
	}
	return true
}

// publish publishes the events, one each interval.
func (x *examination) publish(ctx context.Context) bool {
	for n := range events {
		began := time.Now()
		p := client.Publisher{Server: x.Server, Stream: x.Stream, Waiting: func(error, int) {}}
		tries, cancel := context.WithTimeout(ctx, wait)
		r, err := p.Publish(tries, client.Batch{Key: rand.Text(), Type: "doctor", Body: x.data(n)})
		cancel()
		if err != nil {
			x.problem("publish", curesPublish, "%v", err)
			return false
		}
		x.sent[n] = time.Now()
		x.request = min(x.request, x.sent[n].Sub(began))
		if n == 0 {
			x.first = r.ID
		}
		if client.Pause(ctx, interval) != nil {
			return false
		}
	}
	x.ok("publish", "an event is durable after %s", round(x.request))
	return true
}

func (x *examination) data(n int) []byte { return fmt.Appendf(nil, "%s %d", x.run, n) }

// lateness returns by how much the events came later than their receipts, in order of
// size, and how many did not come.
func (x *examination) lateness(l *listener) (late []time.Duration, missing int) {
	for n, came := range l.arrivals() {
		if came.IsZero() {
			missing++
			continue
		}
		late = append(late, max(0, came.Sub(x.sent[n])))
	}
	slices.Sort(late)
	return late, missing
}

// heldBack says how events are held back on the way to a listener; empty: they are not.
func (x *examination) heldBack(l *listener) string {
	late, missing := x.lateness(l)
	if missing == 0 && late[events/2] <= lateAfter+x.request {
		return ""
	}
	if missing > 0 {
		return fmt.Sprintf("%d of %d events did not come within %s", missing, events, wait)
	}
	return fmt.Sprintf("events come late: half of them by %s and more, the latest by %s", round(late[events/2]), round(late[events-1]))
}

// checkEvents reports whether the stream can be followed for so long.
func (x *examination) checkEvents(l *listener) bool {
	begun := happened(l.began)
	ended, err := l.state()
	held := x.heldBack(l)
	late, _ := x.lateness(l)
	switch {
	case !begun && err != nil:
		x.problem("events", curesServer, "the stream cannot be followed: %v", err)
	case !begun:
		x.problem("events", curesBuffering, "nothing comes while a response lasts, not even its beginning; the checks of lasting responses are left out")
	case held != "" && err != nil:
		x.problem("events", curesIdle, "a connection with events ended %s after the first of them; the checks of lasting responses are left out", round(ended.Sub(x.sent[0])))
	case held != "":
		x.problem("events", curesBuffering, "%s", held)
	default:
		x.ok("events", "%d events came at once, the slowest %s after its receipt", events, round(late[events-1]))
	}
	return begun && err == nil
}

// checkCompression is checkEvents for who takes compressed responses, as browsers do.
func (x *examination) checkCompression(l, plain *listener) {
	held := x.heldBack(l)
	switch encoding := l.encoding(); {
	case held != "" && x.heldBack(plain) == "":
		x.problem("compression", curesCompression, "with Accept-Encoding: gzip, %s", held)
	case encoding == "":
		x.ok("compression", "the stream is not compressed")
	default:
		x.ok("compression", "compressed with %s, and that holds nothing back", encoding)
	}
}

// checkResume looks whether the server gets to see Last-Event-ID.
func (x *examination) checkResume(ctx context.Context) {
	want := strconv.FormatUint(x.first, 10)
	m, _, err := x.firstMessage(ctx, url.Values{"limit": {"1"}, "from": {"earliest"}}, "Last-Event-ID", want)
	switch {
	case err != nil:
		x.problem("resume", curesServer, "%v", err)
	case m.Type != "position" || m.ID != want:
		x.problem("resume", curesResume, "Last-Event-ID does not reach the server: a client that comes again misses events, or gets them twice")
	default:
		x.ok("resume", "Last-Event-ID reaches the server")
	}
}

// checkOrigin looks whether a browser lets pages of another origin read.
func (x *examination) checkOrigin(ctx context.Context) {
	if x.Origin == "" {
		x.skipped("origin", "--origin says where pages are from")
		return
	}
	_, h, err := x.firstMessage(ctx, url.Values{"limit": {"1"}, "from": {"-1"}}, "Origin", x.Origin)
	allowed := h.Get("Access-Control-Allow-Origin")
	switch {
	case err != nil:
		x.problem("origin", curesServer, "%v", err)
	case allowed != x.Origin && allowed != "*":
		x.problem("origin", curesOrigin, "pages of %s cannot read: Access-Control-Allow-Origin is %q", x.Origin, allowed)
	case h.Get("Access-Control-Allow-Credentials") == "true":
		x.ok("origin", "pages of %s can read, with cookies", x.Origin)
	default:
		x.ok("origin", "pages of %s can read", x.Origin)
	}
}

// firstMessage asks for a response that is complete, and returns its first message.
func (x *examination) firstMessage(ctx context.Context, q url.Values, header ...string) (m sse.Message, h http.Header, err error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	res, err := x.Server.Do(ctx, "GET", x.path, q, nil, append(header, "Accept", "text/event-stream")...)
	if err != nil {
		return m, nil, err
	}
	defer res.Body.Close()
	m, err = sse.NewReader(res.Body, 1<<20).Next()
	return m, res.Header, err
}

// checkCut has the server cut a connection, as its demo page does, and looks whether it
// looks like an end.
func (x *examination) checkCut(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*wait)
	defer cancel()
	own := url.Values{"client": {rand.Text()}}
	res, err := x.Server.Do(ctx, "GET", "/demo/sse", own, nil)
	if err != nil {
		x.skipped("cut", "the server has no demo, by which to have a connection cut")
		return
	}
	defer res.Body.Close()
	messages := sse.NewReader(res.Body, 1<<20)
	_, err = messages.Next()
	if err == nil {
		var cut *http.Response
		if cut, err = x.Server.Do(ctx, "POST", "/demo/cut", url.Values{"client": own["client"], "for": {"1s"}}, nil); err == nil {
			cut.Body.Close()
		}
	}
	if err != nil {
		x.skipped("cut", "the server cannot be made to cut a connection: %v", err)
		return
	}
	for err == nil {
		_, err = messages.Next()
	}
	switch {
	case ctx.Err() != nil:
		x.problem("cut", curesBuffering, "a connection that the server cuts stays open")
	case err == io.EOF:
		x.problem("cut", curesCut, "a connection that the server cuts looks like the end of the stream: clients that use fetch may not come again")
	default:
		x.ok("cut", "a connection that the server cuts breaks off, so that clients come again")
	}
}

// checkIdle waits whether a connection without events lasts.
func (x *examination) checkIdle(ctx context.Context, l *listener) {
	select {
	case <-l.done:
	case <-time.After(time.Until(x.sent[events-1].Add(x.Idle))):
	case <-ctx.Done():
		return
	}
	ended, err := l.state()
	switch heard := l.heard(); {
	case err == nil:
		x.ok("idle", "a connection without events lasts %s; --idle waits longer", x.Idle)
	case errors.Is(err, errClean):
		x.problem("idle", curesIdle, "a connection ended %s after its last event and %s after its last byte, and as if the stream had", round(ended.Sub(x.sent[events-1])), round(ended.Sub(heard)))
	default:
		x.problem("idle", curesIdle, "a connection was cut %s after its last event and %s after its last byte", round(ended.Sub(x.sent[events-1])), round(ended.Sub(heard)))
	}
}

func round(d time.Duration) time.Duration {
	if d > 10*time.Second {
		return d.Round(time.Second)
	}
	return d.Round(time.Millisecond)
}
