package stream_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"lastevent/store"
	"lastevent/stream"
	"lastevent/stream/sse"
)

// Clients subscribe, read, drop and resume at random moments, while events are
// appended, evicted and deleted, and the store is reopened or ends under them. What each of them gets
// is contiguous from its ID on, or has a gap that says exactly what is missing.
func TestStore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "stream")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		e := &disk{path: filepath.Join(dir, "x.db")}
		defer e.close(t)
		compare(t, e, true)
	})
}

// The same with an engine whose followers are told late, of a part of the events,
// or of none, so that tails begin anew.
func TestAnotherEngine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { compare(t, &heap{logs: map[string]*memory{}}, false) })
}

// An engine is what is compared with the model.
type engine interface {
	// crash is the end of the engine under its readers, as of a process that is killed.
	crash(t *rapid.T)
	// reopen opens the engine, again or for the first time.
	reopen(t *rapid.T, r store.Retention, now func() time.Time)
	log(name string) stream.Log
	// append appends, and may tell the followers or not.
	append(t *rapid.T, name string, b store.Batch)
	delete(t *rapid.T, name string)
	// tell tells the followers what they were not told.
	tell()
}

// disk is the store.
type disk struct {
	path string
	db   *store.DB
}

func (d *disk) close(t *rapid.T) {
	if d.db == nil {
		return
	}
	if err := d.db.Close(); err != nil {
		t.Fatal(err)
	}
	d.db = nil
}

// crash goes on with the file as it was when it was open.
func (d *disk) crash(t *rapid.T) {
	content, err := os.ReadFile(d.path)
	if err != nil {
		t.Fatal(err)
	}
	d.close(t)
	d.path += "+"
	if err := os.WriteFile(d.path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (d *disk) reopen(t *rapid.T, r store.Retention, now func() time.Time) {
	d.close(t)
	var err error
	if d.db, err = store.Open(d.path, store.Options{Retention: r, Now: now}); err != nil {
		t.Fatal(err)
	}
}

func (d *disk) log(name string) stream.Log { return d.db.Log(name) }

func (d *disk) append(t *rapid.T, name string, b store.Batch) {
	if r, err := d.log(name).Append(context.Background(), b); err != nil || r.Count != len(b.Events) {
		t.Fatal(r, err)
	}
}

func (d *disk) delete(t *rapid.T, name string) {
	if err := d.log(name).Delete(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func (d *disk) tell() {}

// heap is an engine of plain slices.
type heap struct {
	retention store.Retention
	now       func() time.Time
	logs      map[string]*memory
}

func (h *heap) crash(*rapid.T) {}

func (h *heap) reopen(_ *rapid.T, r store.Retention, now func() time.Time) {
	h.retention, h.now = r, now
	for _, m := range h.logs {
		m.plain.retention = r
		m.plain.evict(now())
	}
}

func (h *heap) log(name string) stream.Log {
	m := h.logs[name]
	if m == nil {
		m = newMemory(h.retention)
		h.logs[name] = m
	}
	return m
}

func (h *heap) append(t *rapid.T, name string, b store.Batch) {
	m := h.log(name).(*memory)
	m.plain.append(h.now(), b.Events...)
	m.plain.closed = m.plain.closed || b.Close
	switch n := len(b.Events); rapid.IntRange(0, 4).Draw(t, "told") {
	case 0: // nothing yet
	case 1:
		m.tell(0)
	case 2: // the end of it
		m.tell(rapid.IntRange(0, n).Draw(t, "tells"))
	case 3:
		m.tell(n)
	case 4: // what was told before, too
		m.tell(n + rapid.IntRange(1, 5).Draw(t, "again"))
	}
}

func (h *heap) delete(t *rapid.T, name string) {
	m := h.log(name).(*memory)
	m.plain.first = m.plain.last() + 1
	if rapid.Bool().Draw(t, "told") {
		m.tell(0)
	}
}

func (h *heap) tell() {
	for _, m := range h.logs {
		m.tell(0)
	}
}

// A trial is an engine, the model of it, and clients.
type trial struct {
	engine engine
	// exact: followers are told of each append before it returns.
	exact   bool
	age     time.Duration // that is retained; the same whenever the engine is opened
	retains store.Retention
	set     *stream.Set
	now     time.Time
	model   map[string]*plain
	clients []*client
	dead    bool // the engine is gone
}

// A client is one that resumes whenever it was dropped.
type client struct {
	name   string
	types  []string // that it wants; none are all
	cursor *stream.Cursor
	after  uint64 // its last ID
	log    string // that the last position told
	left   uint64 // events until the limit
	once   bool   // it does not follow
	until  uint64 // where it ends then
	ends   bool   // and that the stream ends there
	ended  bool   // it was told that the stream is closed

	response []byte          // all of the response
	held     []byte          // what the cursor gave last, which stays as it is
	was      []byte          // a copy of that
	changed  <-chan struct{} // while it waits
}

var (
	someNames = []string{"a", "a/b"}
	someTypes = []string{"message", "time", "a: b"}
)

func compare(t *rapid.T, e engine, exact bool) {
	w := &trial{engine: e, exact: exact, now: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), model: map[string]*plain{}}
	if exact && rapid.Bool().Draw(t, "retain age") {
		w.age = time.Duration(rapid.Int64Range(1, int64(5*time.Minute)).Draw(t, "age"))
	}
	for _, name := range someNames {
		w.model[name] = &plain{first: 1}
	}
	w.reopen(t)
	defer func() {
		for _, c := range w.clients {
			c.drop(t)
		}
	}()
	t.Repeat(map[string]func(*rapid.T){
		"append":    func(t *rapid.T) { w.append(t, rapid.IntRange(1, 20), rapid.IntRange(0, 200)) },
		"many":      func(t *rapid.T) { w.append(t, rapid.IntRange(200, 2000), rapid.IntRange(0, 50)) },
		"large":     func(t *rapid.T) { w.append(t, rapid.IntRange(1, 40), rapid.IntRange(10_000, 70_000)) },
		"close":     w.close,
		"delete":    w.delete,
		"subscribe": w.subscribe,
		"next":      w.on(true, func(t *rapid.T, c *client) { w.read(t, c) }),
		"next ":     w.on(true, func(t *rapid.T, c *client) { w.read(t, c) }), // twice as often
		"idle":      w.on(true, w.idle),
		"catch up":  w.on(true, w.readAll),
		"drop":      w.on(true, func(t *rapid.T, c *client) { c.drop(t) }),
		"resume":    w.on(false, w.connect),
		"time":      func(t *rapid.T) { w.pass(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "ns")) },
		"tell":      func(t *rapid.T) { e.tell() },
		"reopen":    w.reopen,
		"crash":     w.crash,
	})
	e.tell()
	for _, c := range w.clients {
		w.connect(t, c)
		w.readAll(t, c)
	}
}

// reopen reopens the engine, with another retention, after all clients are gone.
func (w *trial) reopen(t *rapid.T) {
	w.retains = store.Retention{Age: w.age}
	if rapid.Bool().Draw(t, "retain events") {
		w.retains.Events = rapid.Uint64Range(1, 3000).Draw(t, "events")
	}
	if rapid.Bool().Draw(t, "retain bytes") {
		w.retains.Bytes = rapid.Uint64Range(100_000, 3_000_000).Draw(t, "bytes")
	}
	for _, c := range w.clients {
		c.drop(t)
	}
	w.open(t)
}

// crash takes the engine away from its clients: what they get from then on is right,
// until there is an error.
func (w *trial) crash(t *rapid.T) {
	w.engine.crash(t)
	w.dead = w.exact
	for _, c := range w.clients {
		if c.cursor != nil {
			w.readAll(t, c)
			c.drop(t)
		}
	}
	w.dead = false
	w.open(t)
}

// open opens the engine, and checks that it holds what the model does.
func (w *trial) open(t *rapid.T) {
	w.engine.reopen(t, w.retains, func() time.Time { return w.now })
	w.set = newSet(w.engine.log)
	for name, p := range w.model {
		p.retention = w.retains
		p.evict(w.now)
		if b, err := w.engine.log(name).Bounds(context.Background()); err != nil || b.First != p.first || b.Last != p.last() || b.Closed != p.closed {
			t.Fatalf("%s holds %+v, %v; want %d to %d", name, b, err, p.first, p.last())
		}
	}
}

func (w *trial) pass(ns int64) {
	w.now = w.now.Add(time.Duration(ns))
	for _, p := range w.model {
		p.evict(w.now)
	}
}

func (w *trial) append(t *rapid.T, count, size *rapid.Generator[int]) {
	name := rapid.SampledFrom(someNames).Draw(t, "stream")
	p := w.model[name]
	if p.closed {
		return
	}
	n, bytes := count.Draw(t, "count"), size.Draw(t, "size")
	w.pass(rapid.Int64Range(0, int64(time.Second)).Draw(t, "ns"))
	list := make([]store.Event, n)
	for i := range list {
		seq := p.last() + uint64(i) + 1
		list[i] = store.Event{Type: someTypes[seq*seq/2%3], Data: content(seq, bytes)}
	}
	w.engine.append(t, name, store.Batch{Events: list})
	p.append(w.now, list...)
	w.areTold(t, name)
}

// content is of about the size, different for each event, and of several lines.
func content(seq uint64, size int) []byte {
	p := fmt.Appendf(nil, "%d\r\n \n%d\r", seq, size)
	return append(p, someText[seq%100:][:size]...)
}

var someText = strings.Repeat("The quick brown fox\njumps over the lazy dog: ", 2000)

func (w *trial) close(t *rapid.T) {
	if rapid.IntRange(0, 9).Draw(t, "really") != 5 {
		return // it is the end of many things
	}
	name := rapid.SampledFrom(someNames).Draw(t, "stream")
	w.engine.append(t, name, store.Batch{Close: true})
	if !w.model[name].closed {
		w.model[name].closed = true
		w.areTold(t, name)
	}
}

func (w *trial) delete(t *rapid.T) {
	name := rapid.SampledFrom(someNames).Draw(t, "stream")
	w.engine.delete(t, name)
	w.model[name].first = w.model[name].last() + 1
}

// areTold checks that clients who wait know that there is something new.
func (w *trial) areTold(t *rapid.T, name string) {
	for _, c := range w.clients {
		if !w.exact || c.name != name || c.changed == nil {
			continue
		}
		select {
		case <-c.changed:
		default:
			t.Fatal("a client that waits was not told")
		}
	}
}

// subscribe adds a client at a random start.
func (w *trial) subscribe(t *rapid.T) {
	c := &client{name: rapid.SampledFrom(someNames).Draw(t, "stream")}
	if rapid.Bool().Draw(t, "filter") {
		c.types = rapid.SliceOfN(rapid.SampledFrom(append(someTypes, "none")), 1, 2).Draw(t, "types")
	}
	p := w.model[c.name]
	var start stream.Start
	var want *stream.Gap
	after := p.last()
	lost := stream.Gap{First: p.first, Last: p.last()}
	switch rapid.SampledFrom([]string{"live", "earliest", "newest", "since", "id", "ahead", "unknown", "reset"}).Draw(t, "start") {
	case "earliest":
		start.Earliest = true
		after = p.first - 1
	case "newest":
		start.Newest = rapid.Uint64Range(1, 3000).Draw(t, "newest")
		if after = p.first - 1; p.last()-after > start.Newest {
			after = p.last() - start.Newest
		}
	case "since":
		start.Since = w.now.Add(time.Duration(-rapid.Int64Range(0, int64(time.Hour)).Draw(t, "back")))
		if p.last() > 0 && rapid.Bool().Draw(t, "of an event") {
			e := p.at(rapid.Uint64Range(1, p.last()).Draw(t, "event"))
			start.Since = e.Time.Add(time.Duration(rapid.IntRange(-1, 1).Draw(t, "ns")))
		}
		after = p.before(start.Since)
	case "id":
		after = rapid.Uint64Range(0, p.last()).Draw(t, "id")
		start = lastHad(strconv.FormatUint(after, 10))
		want = p.evicted(after)
	case "ahead":
		id := rapid.Uint64Range(p.last()+1, math.MaxUint64).Draw(t, "id")
		start = lastHad(strconv.FormatUint(id, 10))
		lost.Reason = stream.ReasonAhead
		want = &lost
	case "unknown":
		start = lastHad(rapid.SampledFrom([]string{"x", "-1", "1.0", "", "18446744073709551616", "000000000000000000001", "\x00"}).Draw(t, "id"))
		lost.Reason = stream.ReasonUnknown
		want = &lost
	case "reset":
		start = lastHad("1")
		start.Log = "of another file"
		lost.Reason = stream.ReasonReset
		want = &lost
	}
	if want != nil {
		want.LastEventID = *start.LastEventID
		after = want.First - 1
	}
	w.clients = append(w.clients, c)
	w.start(t, c, start, want, after)
}

// evicted is the gap of a client at after, if there is one.
func (p *plain) evicted(after uint64) *stream.Gap {
	if after+1 >= p.first {
		return nil
	}
	missed := p.first - after - 1
	return &stream.Gap{Reason: stream.ReasonEvicted, LastEventID: strconv.FormatUint(after, 10), First: p.first, Last: p.last(), Missed: &missed}
}

// start connects the client, and checks what the response begins with.
func (w *trial) start(t *rapid.T, c *client, start stream.Start, want *stream.Gap, after uint64) {
	p := w.model[c.name]
	sub := stream.Subscription{
		Start: start,
		Types: c.types,
		Limit: rapid.SampledFrom([]uint64{0, 0, 1, 10, 1000}).Draw(t, "limit"),
		Once:  rapid.IntRange(0, 3).Draw(t, "once") == 3,
	}
	cursor, err := w.set.Subscribe(context.Background(), c.name, sub)
	if err != nil {
		t.Fatal(err)
	}
	c.cursor, c.after, c.left, c.once, c.ended, c.response = cursor, after, sub.Limit, sub.Once, false, nil
	if sub.Limit == 0 {
		c.left = math.MaxUint64
	}
	c.until = after
	for found := uint64(0); c.until < p.last(); c.until++ {
		if c.wants(p.at(c.until + 1)) {
			if found++; found > c.left {
				break
			}
		}
	}
	c.ends = p.closed && c.until == p.last()
	// A tail that is behind knows all that a client needs who was behind it.
	behind := !w.exact && !sub.Once && start.LastEventID != nil && (want == nil || want.Reason == stream.ReasonEvicted)
	all := start.LastEventID != nil && want == nil && p.closed && after == p.last()
	if cursor.Finished() != all && (cursor.Finished() || !behind) {
		t.Fatalf("finished is %v after %d of %d", !all, after, p.last())
	}
	got := c.parse(t, cursor.Begin())
	switch {
	case behind:
		c.after, _ = stream.ParseID(*start.LastEventID)
		got = w.resumed(t, c, p, got)
	case want != nil:
		c.isGap(t, got[0], *want)
		got = got[1:]
		fallthrough
	default:
		c.isPosition(t, got[0], after, p.first, p.last())
	}
	if len(got) > 1 && start.LastEventID != nil {
		t.Fatalf("begins with %+v", got)
	}
	w.take(t, c, p, got[1:])
}

// resumed checks what a client is told by a tail that may be behind, and returns the
// position and what follows it.
func (w *trial) resumed(t *rapid.T, c *client, p *plain, got []sse.Message) []sse.Message {
	if got[0].Type == stream.TypeGap && len(got) > 1 {
		w.isGapNow(t, c, p, got[0], got[1])
		return got[1:]
	}
	b := boundsIn(t, got[0])
	if b.First > c.after+1 || b.First > p.first || b.Last > p.last() || b.Last < c.after {
		t.Fatalf("position %+v after %d, and there are %d to %d", got[0], c.after, p.first, p.last())
	}
	c.isPosition(t, got[0], c.after, b.First, b.Last)
	return got
}

// connect resumes a client that is dropped.
func (w *trial) connect(t *rapid.T, c *client) {
	if c.cursor != nil {
		return
	}
	start := lastHad(strconv.FormatUint(c.after, 10))
	start.Log = c.log
	want := w.model[c.name].evicted(c.after)
	if want != nil {
		c.after = want.First - 1
	}
	w.start(t, c, start, want, c.after)
}

// pick returns a client that is, or is not, connected; nil if there is none.
func (w *trial) pick(t *rapid.T, connected bool) *client {
	var some []*client
	for _, c := range w.clients {
		if (c.cursor != nil) == connected {
			some = append(some, c)
		}
	}
	if len(some) == 0 {
		return nil
	}
	return rapid.SampledFrom(some).Draw(t, "client")
}

// on does something with a client that is, or is not, connected.
func (w *trial) on(connected bool, do func(*rapid.T, *client)) func(*rapid.T) {
	return func(t *rapid.T) {
		if c := w.pick(t, connected); c != nil {
			do(t, c)
		}
	}
}

func (w *trial) readAll(t *rapid.T, c *client) {
	for w.read(t, c) {
	}
}

// idle has the client of an idle connection told its position.
func (w *trial) idle(t *rapid.T, c *client) {
	c.letGo(t)
	p := c.cursor.Idle()
	if len(p) == 0 {
		return
	}
	for _, m := range c.parse(t, p) {
		c.isPassed(t, m, w.model[c.name])
	}
}

// read takes what the cursor gives next, and reports whether there was anything.
func (w *trial) read(t *rapid.T, c *client) bool {
	c.letGo(t)
	p := w.model[c.name]
	b, changed, err := c.cursor.Next()
	c.held, c.was, c.changed = b, bytes.Clone(b), nil
	switch {
	case err == io.EOF:
		c.isComplete(t, p)
		return false
	case errors.Is(err, store.ErrStopped) && w.dead:
		return false
	case err != nil:
		t.Fatal(err)
	case c.left == 0 && !c.once:
		t.Fatalf("goes on at the limit, with %.100q", b)
	case len(b) == 0:
		c.changed = changed
		w.mayWait(t, c, p)
		return false
	}
	w.take(t, c, p, c.parse(t, b))
	return true
}

// take checks what the client got.
func (w *trial) take(t *rapid.T, c *client, p *plain, got []sse.Message) {
	for ; len(got) > 0; got = got[1:] {
		switch got[0].Type {
		case stream.TypeGap:
			if len(got) < 2 {
				t.Fatal("a gap without a position in the same write")
			}
			w.isGapNow(t, c, p, got[0], got[1])
			got = got[1:]
		case stream.TypePosition:
			c.isPassed(t, got[0], p)
		case stream.TypeEnd:
			c.isEnd(t, got[0], p)
		default:
			w.isEvent(t, c, got[0], p)
		}
	}
}

func (c *client) wants(e store.Event) bool {
	return c.types == nil || slices.Contains(c.types, e.Type)
}

// pass checks that the client wants none of the events up to seq, and moves on.
func (c *client) pass(t *rapid.T, seq uint64, p *plain) {
	if seq < c.after || seq > p.last() {
		t.Fatalf("goes from %d to %d of %d", c.after, seq, p.last())
	}
	for c.after < seq {
		if c.after++; c.wants(p.at(c.after)) {
			t.Fatalf("event %d is skipped", c.after)
		}
	}
}

// isComplete checks that the response may end.
func (c *client) isComplete(t *rapid.T, p *plain) {
	switch {
	case c.once:
		c.pass(t, max(c.after, c.until), p)
		if c.ends && !c.ended {
			t.Fatalf("ended after %d of a closed stream, and was not told", c.after)
		}
	case c.left > 0 && !c.ended:
		t.Fatalf("ended after %d, %d events before the limit", c.after, c.left)
	}
}

// mayWait checks that there is nothing for the client.
func (w *trial) mayWait(t *rapid.T, c *client, p *plain) {
	if c.once {
		t.Fatal("waits, and does not follow")
	}
	if !w.exact {
		return
	}
	had := c.after
	c.pass(t, p.last(), p)
	// What has expired since then is told by the next heartbeat.
	if passed := c.after - had; w.age == 0 && passed*4 > p.last()+1-p.first {
		t.Fatalf("%d events were passed of %d to %d, and it was not told", passed, p.first, p.last())
	}
	c.after = had
	select {
	case <-c.changed:
		t.Fatal("is told to look again, and nothing has changed")
	default:
	}
}

// isGapNow checks a gap that the client meets while it is connected, and the
// position that follows it.
func (w *trial) isGapNow(t *rapid.T, c *client, p *plain, gap, position sse.Message) {
	var got stream.Gap
	if err := json.Unmarshal([]byte(gap.Data), &got); err != nil {
		t.Fatal(err)
	}
	after, _ := stream.ParseID(got.LastEventID)
	c.pass(t, after, p) // what was filtered out before the gap
	want := p.evicted(after)
	if want == nil {
		t.Fatalf("a gap after %d, and first is %d: %+v", after, p.first, gap)
	}
	if !w.exact { // as it was when the followers were told
		if got.First <= after+1 || got.First > p.first || got.Last > p.last() {
			t.Fatalf("a gap after %d, and there are %d to %d: %+v", after, p.first, p.last(), gap)
		}
		missed := got.First - after - 1
		want.First, want.Last, want.Missed = got.First, got.Last, &missed
	}
	if c.once { // its last is that of the start
		want.Last = got.Last
	}
	c.isGap(t, gap, *want)
	c.isPosition(t, position, want.First-1, want.First, want.Last)
	c.after = want.First - 1
}

// parse reads whole messages, as a client does.
func (c *client) parse(t *rapid.T, p []byte) []sse.Message {
	c.response = append(c.response, p...)
	if !bytes.HasSuffix(p, []byte("\n\n")) {
		t.Fatalf("does not end with an event: %.100q", p)
	}
	return parseAll(t, p)
}

func parseAll(t *rapid.T, p []byte) (got []sse.Message) {
	r := sse.NewReader(bytes.NewReader(p), 1<<20)
	for {
		m, err := r.Next()
		if err == io.EOF {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, m)
	}
}

func (c *client) isGap(t *rapid.T, m sse.Message, want stream.Gap) {
	var got stream.Gap
	if err := json.Unmarshal([]byte(m.Data), &got); err != nil || m.Type != stream.TypeGap {
		t.Fatalf("not a gap: %+v, %v", m, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("gap (-want +got):\n%s", diff)
	}
}

// boundsIn are those that a position tells.
func boundsIn(t *rapid.T, m sse.Message) (b store.Bounds) {
	if err := json.Unmarshal([]byte(m.Data), &b); err != nil || m.Type != stream.TypePosition {
		t.Fatalf("not a position: %+v, %v", m, err)
	}
	return b
}

func (c *client) isPosition(t *rapid.T, m sse.Message, after, first, last uint64) {
	got := boundsIn(t, m)
	if m.ID != strconv.FormatUint(after, 10) || got.First != first || got.Last != last || got.Log == "" {
		t.Fatalf("position %+v; want %d of %d to %d", m, after, first, last)
	}
	c.log = got.Log
}

// isPassed checks a position that moves the client past what it does not want.
func (c *client) isPassed(t *rapid.T, m sse.Message, p *plain) {
	after, ok := stream.ParseID(m.ID)
	if !ok || c.types == nil {
		t.Fatalf("position %+v", m)
	}
	c.pass(t, after, p)
}

func (c *client) isEnd(t *rapid.T, m sse.Message, p *plain) {
	if want := fmt.Sprintf(`{"last":%d}`, p.last()); !p.closed || m.Data != want || c.ended || c.after != p.last() {
		t.Fatalf("end after %d: %s, want %s", c.after, m.Data, want)
	}
	c.ended = true
}

var toLF = strings.NewReplacer("\r\n", "\n", "\r", "\n")

// isEvent checks that it is the next one that the client wants.
func (w *trial) isEvent(t *rapid.T, c *client, m sse.Message, p *plain) {
	seq, ok := stream.ParseID(m.ID)
	if !ok || seq <= c.after || c.ended {
		t.Fatalf("event %s after %d", m.ID, c.after)
	}
	c.pass(t, seq-1, p)
	c.after = seq
	if c.left--; c.left+1 == 0 {
		t.Fatal("an event over the limit")
	}
	if w.exact && seq < p.first || seq > p.last() || c.once && seq > c.until {
		t.Fatalf("event %d is served, and there are %d to %d", seq, p.first, p.last())
	}
	if want := p.at(seq); m.Type != want.Type || m.Data != toLF.Replace(string(want.Data)) || !c.wants(want) {
		t.Fatalf("event %d is %s %.100q; want %s %.100q", seq, m.Type, m.Data, want.Type, want.Data)
	}
}

// letGo checks that what the cursor gave has stayed as it was until now.
func (c *client) letGo(t *rapid.T) {
	if !bytes.Equal(c.held, c.was) {
		t.Fatal("what a cursor gave was overwritten")
	}
	c.held = nil
	c.was = nil
}

// drop disconnects. The response as a whole leaves the client with its last ID.
func (c *client) drop(t *rapid.T) {
	if c.cursor == nil {
		return
	}
	c.letGo(t)
	c.cursor.Close()
	c.cursor, c.changed = nil, nil
	got := parseAll(t, c.response)
	if id := got[len(got)-1].ID; id != strconv.FormatUint(c.after, 10) {
		t.Fatalf("is left with the ID %s, want %d", id, c.after)
	}
}
