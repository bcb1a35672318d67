package stream

import (
	"context"
	"errors"
	"io"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"lastevent/store"
	"lastevent/stream/sse"
)

// A Subscription is what a client asks for.
type Subscription struct {
	Start Start
	// Types are those of the events that it gets; none are all.
	Types []string
	// Limit is how many events it gets; 0 is no limit.
	Limit uint64
	// Once ends it with the event that is the last when it begins.
	Once bool
	// Format is how it is written; nil is SSE. Only a subscription that is Once can
	// have another.
	Format Format
}

// A Cursor is one client's moving position in a log. It is for one goroutine.
type Cursor struct {
	log    Log
	ctx    context.Context // for what is asked of the log
	format Format
	types  []string

	set *Set
	// Where the cursor follows.
	name string
	tail *tail
	// rewrite appends an event of the tail, where it cannot be given as it is.
	rewrite func(dst, event []byte, seq uint64) []byte

	bounds  store.Bounds // at the start
	gap     *Gap         // that it starts with
	resumes bool         // it starts by the client's ID
	start   uint64       // the position that it starts with

	settling bool  // the start moves past what is evicted
	firstErr error // of settle

	after uint64  // its position
	told  uint64  // the ID that the client holds
	until uint64  // where it ends
	left  *uint64 // events until the limit is reached
	shown shown   // to other goroutines

	given, replayed uint64 // events so far, and those of them that were read from the log

	ended bool // what the response ends with was given
	buf   *[]byte
}

// Subscribe returns a cursor. Close must be called when the client is gone. The
// context is for what the cursor asks of the log.
func (s *Set) Subscribe(ctx context.Context, name string, sub Subscription) (*Cursor, error) {
	c := &Cursor{
		set:    s,
		log:    s.open(name),
		ctx:    ctx,
		format: sub.Format,
		types:  sub.Types,
		until:  math.MaxUint64,
		left:   new(uint64),
	}
	if c.format == nil {
		c.format = SSE
	}
	if *c.left = sub.Limit; sub.Limit == 0 {
		*c.left = math.MaxUint64
	}
	if !sub.Once {
		t, err := s.join(ctx, name)
		if err != nil {
			return nil, err
		}
		c.log, c.name, c.tail = t.log, name, t
	}
	if err := c.seek(sub); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// seek sets the cursor's position, and where it ends.
func (c *Cursor) seek(sub Subscription) (err error) {
	var known *store.Bounds
	if c.tail != nil {
		known = &c.tail.view.Load().bounds
	}
	if c.after, c.gap, c.bounds, err = sub.Start.seek(c.ctx, c.log, known); err != nil {
		return err
	}
	c.start, c.told = c.after, c.after
	c.resumes = sub.Start.LastEventID != nil
	if !sub.Once {
		return nil
	}
	c.until = max(c.after, c.bounds.Last)
	if sub.Limit == 0 {
		return nil
	}
	*c.left = math.MaxUint64
	return c.limitPage(sub.Limit)
}

// Bounds are those of the log when the subscription began.
func (c *Cursor) Bounds() store.Bounds { return c.bounds }

// Finished reports whether the client had all of a closed log when it resumed.
func (c *Cursor) Finished() bool {
	return c.resumes && c.gap == nil && c.bounds.Closed && c.start == c.bounds.Last
}

// Begin returns what the response begins with: the position, after a gap where
// there is one, and the first events. It must be called once, before Next.
func (c *Cursor) Begin() []byte {
	first := c.settle()
	c.show()
	return append(c.BeginCut(), first...)
}

// BeginCut is Begin, without events, for a response that is cut right after it.
func (c *Cursor) BeginCut() []byte {
	var p []byte
	if c.gap != nil {
		p = c.appendGap(p, *c.gap)
	}
	return c.format.Position(p, c.start, c.bounds)
}

// settle takes what comes first. A client that resumes keeps its ID; any other start
// moves, while nothing was told yet, past what is evicted, and so has no gap. An error
// is for Next, for good.
func (c *Cursor) settle() (first []byte) {
	if c.resumes {
		return nil
	}
	c.settling = true
	for moved := true; moved; {
		c.start = c.after
		first, _, c.firstErr = c.step()
		moved = len(first) == 0 && c.told > c.start
	}
	c.settling = false
	return first
}

// passEvicted does that part of settle which tells no event.
func (c *Cursor) passEvicted() {
	if b := c.currentBounds(); !c.resumes && c.after+1 < b.First {
		c.settling = true
		c.skip(ReasonEvicted, b.First, b)
		c.settling = false
	}
}

// Next returns what comes after the cursor's position and moves it on. It does not
// wait: where nothing has come yet, p is empty, and changed is closed when it is time
// to ask again. The bytes are valid until the next call of a method.
//
// io.EOF says that the response is complete. Any other error is the log's, or the
// context's.
func (c *Cursor) Next() (p []byte, changed <-chan struct{}, err error) {
	for {
		c.release()
		if err = c.firstErr; err == nil {
			p, changed, err = c.step()
		}
		c.show()
		if len(p) > 0 || err != nil {
			return p, changed, err
		}
		if c.mustTell() {
			if p = c.position(nil, c.currentBounds()); len(p) > 0 {
				return p, nil, nil
			}
		}
		if changed != nil {
			return nil, changed, nil
		}
		// All of it was filtered out.
		if err := c.ctx.Err(); err != nil {
			return nil, nil, err
		}
	}
}

// Behind reports whether Next has to read the log, as what comes next is not in the
// stream's tail.
func (c *Cursor) Behind() bool {
	if c.tail == nil {
		return true
	}
	return c.tail.view.Load().behind(c.after)
}

// mustTell reports whether so much was filtered out that the client, if it does not
// get an ID, may meet a gap when it resumes: a quarter of what is retained.
func (c *Cursor) mustTell() bool {
	if c.told == c.after {
		return false
	}
	b := c.currentBounds()
	return c.after-c.told >= (b.Last+1-b.First)/4
}

// Idle returns what an idle connection is to be sent: the position, if events were
// filtered out since the client last got an ID, or nothing.
func (c *Cursor) Idle() []byte {
	if c.types == nil || c.told == c.after {
		return nil
	}
	return c.position(nil, c.currentBounds())
}

// step gives what there is in one place: in a block of the tail, or in one read of
// the log. It gives nothing where all of that was filtered out.
//
// It is what an idle connection's goroutine calls, so it and Next keep their frames
// small, for the smallest stack to do.
func (c *Cursor) step() (p []byte, changed <-chan struct{}, err error) {
	if *c.left == 0 {
		return nil, nil, io.EOF
	}
	if c.tail == nil {
		p, err = c.stepOnce()
		return p, nil, err
	}
	v := c.tail.view.Load()
	b := &v.bounds
	if b.Log != c.bounds.Log {
		return c.reset(b), nil, nil
	}
	if !b.Expires.IsZero() && !time.Now().Before(b.Expires) {
		if b, err = c.newBounds(); err != nil {
			return nil, nil, err
		}
	}
	switch {
	case c.after+1 < b.First:
		p = c.skip(ReasonEvicted, b.First, b)
	case c.after >= v.bounds.Last && v.bounds.Closed:
		p, err = c.end(&v.bounds)
	case c.after >= v.bounds.Last:
		changed = v.changed
	case c.after+1 < v.first():
		p, err = c.replay()
	case c.types != nil || c.rewrite != nil:
		p = c.pick(v.block(c.after))
	default:
		var last uint64
		p, last = v.block(c.after).after(c.after, *c.left)
		c.moveTo(last, last-c.after)
	}
	return p, changed, err
}

// stepOnce is step where the cursor does not follow.
func (c *Cursor) stepOnce() ([]byte, error) {
	if c.after >= c.until {
		return c.end(&c.bounds)
	}
	return c.replay()
}

func (c *Cursor) newBounds() (*store.Bounds, error) {
	b, err := c.log.Bounds(c.ctx)
	return &b, err
}

// moveTo moves the cursor to the event that it gave last.
func (c *Cursor) moveTo(seq, events uint64) {
	*c.left -= events
	c.given += events
	c.after, c.told = seq, seq
}

// end gives what a complete response ends with, and then io.EOF.
func (c *Cursor) end(b *store.Bounds) (p []byte, err error) {
	if c.ended {
		return nil, io.EOF
	}
	c.ended = true
	if c.told != c.after {
		p = c.position(p, b)
	}
	if b.Closed && c.after >= b.Last {
		p = c.format.End(p, *b)
	}
	if len(p) == 0 {
		err = io.EOF
	}
	return p, err
}

// skip moves the cursor behind a gap, to go on with next.
func (c *Cursor) skip(reason string, next uint64, b *store.Bounds) []byte {
	if c.settling && reason == ReasonEvicted {
		c.after, c.told, c.bounds = next-1, next-1, *b
		c.until = max(c.until, c.after)
		return nil
	}
	g := gapAfter(reason, c.after, next, b.Last)
	c.after = next - 1
	return c.position(c.appendGap(nil, g), b)
}

// reset begins anew, as the log is another one now.
func (c *Cursor) reset(b *store.Bounds) []byte {
	g := Gap{Reason: ReasonReset, LastEventID: strconv.FormatUint(c.after, 10), First: b.First, Last: b.Last}
	c.after, c.bounds = b.First-1, *b
	return c.position(c.appendGap(nil, g), b)
}

// position tells the client its ID.
func (c *Cursor) position(p []byte, b *store.Bounds) []byte {
	c.told = c.after
	return c.format.Position(p, c.after, *b)
}

// currentBounds are the newest that need no question.
func (c *Cursor) currentBounds() *store.Bounds {
	if c.tail == nil {
		return &c.bounds
	}
	return &c.tail.view.Load().bounds
}

// pick gives the events of the block after the cursor's position that the client
// wants, copied.
func (c *Cursor) pick(b *block) []byte {
	p := c.buffer()
	for seq := c.after + 1; seq < b.next() && *c.left > 0 && len(p) < blockSize; seq++ {
		c.after = seq
		event := b.event(seq)
		if !wants(c.types, sse.TypeOf(event)) {
			continue
		}
		if c.rewrite != nil {
			p = c.rewrite(p, event, seq)
		} else {
			p = append(p, event...)
		}
		c.moveTo(seq, 1)
	}
	*c.buf = p
	return p
}

// maxScan is how many bytes of events one read of the log goes through.
const maxScan = 1 << 20

// A textLog stores events as they go over the wire. [store.Log] is one, and says what
// ReadText promises.
type textLog interface {
	ReadText(ctx context.Context, after, to uint64, dst []byte, size int) (text []byte, last uint64, b store.Bounds, err error)
}

// replay gives events that are not in the tail.
func (c *Cursor) replay() ([]byte, error) {
	from, given := c.after, c.given
	defer func() { c.replayed += c.given - given }()
	log, ok := c.log.(textLog)
	if !ok || c.types != nil || c.format != SSE {
		b, err := c.readEvents()
		return c.readTo(from, b, err)
	}
	to := min(c.until, from+min(*c.left, math.MaxUint64-from))
	p, last, b, err := log.ReadText(c.ctx, from, to, c.buffer(), blockSize)
	if b.First > from+1 { // evicted meanwhile
		p = p[:0]
	} else if last > from {
		c.moveTo(last, last-from)
	}
	*c.buf = p
	return c.readTo(from, b, err)
}

// readEvents reads events one by one.
func (c *Cursor) readEvents() (store.Bounds, error) {
	p, scanned := c.buffer(), 0
	b, err := c.log.Read(c.ctx, c.after, func(e store.Event) bool {
		if e.Seq != c.after+1 || e.Seq > c.until {
			return false
		}
		c.after = e.Seq
		if wants(c.types, e.Type) {
			p = c.format.Event(p, e)
			c.moveTo(e.Seq, 1)
		}
		scanned += len(e.Data)
		return len(p) < blockSize && scanned < maxScan && *c.left > 0
	})
	*c.buf = p
	return b, err
}

// readTo gives what a read of the log after from has brought.
func (c *Cursor) readTo(from uint64, b store.Bounds, err error) ([]byte, error) {
	var corrupt *store.CorruptError
	switch {
	case b.Log != "" && b.Log != c.bounds.Log: // the tail will hear of it
		return nil, io.ErrUnexpectedEOF
	case c.after > from || c.after >= c.until:
		return *c.buf, nil
	case err != nil && !errors.As(err, &corrupt):
		return nil, err
	case c.after+1 < b.First:
		return c.skip(ReasonEvicted, b.First, &b), nil
	case corrupt != nil:
		return c.skip(ReasonCorrupt, corrupt.Last+1, &b), nil
	}
	return nil, io.ErrUnexpectedEOF
}

// buffers are for what is not shared by clients. One that a large event has grown
// is not kept.
var buffers = sync.Pool{New: func() any {
	b := make([]byte, 0, blockSize+blockSize/8)
	return &b
}}

func (c *Cursor) buffer() []byte {
	c.buf = buffers.Get().(*[]byte)
	return (*c.buf)[:0]
}

func (c *Cursor) release() {
	if c.buf != nil && cap(*c.buf) <= 2*blockSize {
		buffers.Put(c.buf)
	}
	c.buf = nil
}

// wants reports whether the type is one of the types, of which none are all.
func wants[T string | []byte](types []string, typ T) bool {
	return types == nil || slices.ContainsFunc(types, func(t string) bool { return t == string(typ) })
}

// Close gives up the cursor.
func (c *Cursor) Close() {
	c.release()
	if c.tail != nil {
		c.set.leave(c.name, c.tail)
	}
}
