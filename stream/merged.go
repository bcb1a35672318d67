package stream

import (
	"context"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"lastevent/store"
	"lastevent/stream/sse"
)

// MaxStreams is how many streams one response can have: as many connections as a
// browser has to a host over HTTP/1.1, of which each stream would cost it one.
const MaxStreams = 6

// A Merged is cursors of several streams that share a response. The IDs in it hold
// the positions in all of them, in their order, and after a "~" the index of the
// stream that an event is from: 41.17.0~1. Order holds within a stream.
type Merged struct {
	cursors []*Cursor
	names   []string
	after   []uint64 // the cursors' positions, as an ID holds them
	bounds  []store.Bounds
	turn    int // the cursor to ask next
	text    []byte

	any    chan struct{} // closed when one of the cursors' logs has changed
	closed chan struct{}
}

// SubscribeAll returns the cursors of the streams, of which there are 1 to
// MaxStreams. Each has the types, and they share the limit.
func (s *Set) SubscribeAll(ctx context.Context, names []string, sub Subscription) (*Merged, error) {
	n := len(names)
	m := &Merged{
		names:  names,
		after:  make([]uint64, n),
		bounds: make([]store.Bounds, n),
		closed: make(chan struct{}),
	}
	left := sub.Limit
	if left == 0 {
		left = math.MaxUint64
	}
	starts := splitStart(sub.Start, n)
	for i, name := range names {
		sub := Subscription{Start: starts[i], Types: sub.Types, Format: &mergedFormat{m, i}}
		c, err := s.Subscribe(ctx, name, sub)
		if err != nil {
			m.Close()
			return nil, err
		}
		c.left = &left
		c.rewrite = func(dst, event []byte, seq uint64) []byte {
			typ, _, data := sse.Split(event)
			dst = append(append(dst, typ...), "id: "...)
			dst = append(append(dst, m.id(i, seq)...), '\n')
			return append(dst, data...)
		}
		m.cursors = append(m.cursors, c)
		m.after[i], m.bounds[i] = c.after, c.bounds
	}
	return m, nil
}

// splitStart returns each stream's start. An ID that does not hold a position for
// each is none for any.
func splitStart(start Start, n int) []Start {
	starts := slices.Repeat([]Start{start}, n)
	if start.LastEventID == nil {
		return starts
	}
	parts := SplitID(*start.LastEventID)
	for i := range starts {
		if len(parts) == n {
			starts[i].LastEventID = &parts[i]
		} else {
			starts[i].notID = true
		}
	}
	return starts
}

// SplitID returns the positions, each an ID, that an ID of several streams holds;
// nil if it is none.
func SplitID(id string) []string {
	id, _, _ = strings.Cut(id, "~")
	parts := strings.Split(id, ".")
	for _, part := range parts {
		if _, ok := ParseID(part); !ok {
			return nil
		}
	}
	return parts
}

// id returns the ID of the event seq of stream i, which is then its position. It is
// valid until the next call.
func (m *Merged) id(i int, seq uint64) []byte {
	m.after[i] = seq
	m.text = append(m.position(m.after), '~')
	m.text = strconv.AppendInt(m.text, int64(i), 10)
	return m.text
}

func (m *Merged) position(after []uint64) []byte {
	m.text = m.text[:0]
	for i, after := range after {
		if i > 0 {
			m.text = append(m.text, '.')
		}
		m.text = strconv.AppendUint(m.text, after, 10)
	}
	return m.text
}

// Bounds are those of the streams' logs when the subscription began.
func (m *Merged) Bounds() []store.Bounds {
	bounds := make([]store.Bounds, len(m.cursors))
	for i, c := range m.cursors {
		bounds[i] = c.bounds
	}
	return bounds
}

// Finished reports whether the client had all of all logs, and all are closed.
func (m *Merged) Finished() bool {
	for _, c := range m.cursors {
		if !c.Finished() {
			return false
		}
	}
	return true
}

// Begin returns what the response begins with: the gaps that there are, the position,
// and the first events. It must be called once, before Next.
func (m *Merged) Begin() []byte {
	var first []byte
	for i, c := range m.cursors { // before any of their IDs is told
		c.passEvicted()
		m.after[i] = c.after
	}
	for _, c := range m.cursors {
		first = append(first, c.settle()...)
		c.show()
	}
	return append(m.BeginCut(), first...)
}

// BeginCut is Begin, without events, for a response that is cut right after it.
func (m *Merged) BeginCut() []byte {
	var p []byte
	starts := make([]uint64, len(m.cursors))
	for i, c := range m.cursors {
		starts[i], m.bounds[i] = c.start, c.bounds
		if c.gap != nil {
			p = c.appendGap(p, *c.gap)
		}
	}
	return m.appendPosition(p, starts)
}

// Next is [Cursor.Next] for all streams in turn.
func (m *Merged) Next() (p []byte, changed <-chan struct{}, err error) {
	var all [MaxStreams]<-chan struct{}
	ended := 0
	for range m.cursors {
		i := m.turn
		m.turn = (m.turn + 1) % len(m.cursors)
		p, changed, err := m.cursors[i].Next()
		switch {
		case err == io.EOF:
			ended++
		case err != nil || len(p) > 0:
			return p, nil, err
		}
		all[i] = changed
	}
	if ended == len(m.cursors) {
		return nil, nil, io.EOF
	}
	return nil, m.anyOf(all), nil
}

// anyOf returns a channel that is closed when one of the channels is. While none is,
// it is the same one.
func (m *Merged) anyOf(all [MaxStreams]<-chan struct{}) <-chan struct{} {
	select {
	case <-m.any:
	default:
		if m.any != nil {
			return m.any
		}
	}
	changed := make(chan struct{})
	m.any = changed
	go func() {
		defer close(changed)
		select {
		case <-all[0]:
		case <-all[1]:
		case <-all[2]:
		case <-all[3]:
		case <-all[4]:
		case <-all[5]:
		case <-m.closed:
		}
	}()
	return changed
}

// Behind is [Cursor.Behind] for all streams: it reports whether one of them is.
func (m *Merged) Behind() bool { return slices.ContainsFunc(m.cursors, (*Cursor).Behind) }

// Idle is [Cursor.Idle] for all streams: the last position holds all.
func (m *Merged) Idle() (p []byte) {
	for _, c := range m.cursors {
		if position := c.Idle(); position != nil {
			p = position
		}
	}
	return p
}

// Close gives up the cursors.
func (m *Merged) Close() {
	close(m.closed)
	for _, c := range m.cursors {
		c.Close()
	}
}

func (m *Merged) appendPosition(dst []byte, after []uint64) []byte {
	type bounds struct {
		Stream string `json:"stream"`
		First  uint64 `json:"first"`
		Last   uint64 `json:"last"`
	}
	data := struct {
		Log     string   `json:"log"`
		Streams []bounds `json:"streams"`
	}{Log: m.bounds[0].Log}
	for i, b := range m.bounds {
		data.Streams = append(data.Streams, bounds{m.names[i], b.First, b.Last})
	}
	return sse.AppendEventText(dst, TypePosition, string(m.position(after)), mustJSON(data))
}

// A mergedFormat is the format of one of the streams.
type mergedFormat struct {
	m *Merged
	i int
}

func (f *mergedFormat) Event(dst []byte, e store.Event) []byte {
	return sse.AppendEventText(dst, e.Type, string(f.m.id(f.i, e.Seq)), e.Data)
}

func (f *mergedFormat) Position(dst []byte, after uint64, b store.Bounds) []byte {
	f.m.after[f.i], f.m.bounds[f.i] = after, b
	return f.m.appendPosition(dst, f.m.after)
}

func (f *mergedFormat) Gap(dst []byte, g Gap) []byte {
	g.Stream = f.m.names[f.i]
	return SSE.Gap(dst, g)
}

func (f *mergedFormat) End(dst []byte, b store.Bounds) []byte {
	return appendEnd(dst, f.m.names[f.i], b)
}
