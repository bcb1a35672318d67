package stream

import (
	"encoding/json"
	"strconv"

	"lastevent/store"
	"lastevent/stream/sse"
)

// Types of the events that a stream sends about itself. Nobody can publish them.
const (
	TypePosition = "position"
	TypeGap      = "gap"
	TypeEnd      = "end"
)

// Reserved reports whether events of the type cannot be published.
func Reserved(typ string) bool {
	return typ == TypePosition || typ == TypeGap || typ == TypeEnd
}

// Reasons of a [Gap].
const (
	ReasonEvicted = "evicted" // no longer retained, or deleted
	ReasonAhead   = "ahead"   // the client's ID is greater than last
	ReasonUnknown = "unknown" // what the client sent is not an ID
	ReasonReset   = "reset"   // the client's ID is of another log
	ReasonCorrupt = "corrupt" // stored, but not whole
)

// A Gap is a span that a client will never get.
type Gap struct {
	// Stream is the one that the gap is in, where a response has several.
	Stream string `json:"stream,omitempty"`
	Reason string `json:"reason"`
	// LastEventID is the ID after which the events are missing, as the client sent
	// it, up to 128 bytes.
	LastEventID string `json:"lastEventId"`
	// First and Last are the bounds of what there is; the stream goes on with First.
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	// Missed is how many events the gap spans; nil where that cannot be known.
	Missed *uint64 `json:"missed"`
}

// maxEcho is how much of what a client sent for an ID it gets back, in bytes.
const maxEcho = 128

// gapAfter is the gap of a client at after that goes on with next.
func gapAfter(reason string, after, next, last uint64) Gap {
	missed := next - after - 1
	return Gap{
		Reason:      reason,
		LastEventID: strconv.FormatUint(after, 10),
		First:       next,
		Last:        last,
		Missed:      &missed,
	}
}

// A Format is how what a cursor gives is written. Each method appends to dst.
type Format interface {
	Event(dst []byte, e store.Event) []byte
	// Position tells the client the ID that it goes on after.
	Position(dst []byte, after uint64, b store.Bounds) []byte
	Gap(dst []byte, g Gap) []byte
	// End says that the log is closed and all of it was given.
	End(dst []byte, b store.Bounds) []byte
}

// SSE is the format of Server-Sent Events.
var SSE Format = sseFormat{}

type sseFormat struct{}

func (sseFormat) Event(dst []byte, e store.Event) []byte {
	return sse.AppendEvent(dst, e.Type, e.Seq, e.Data)
}

func (sseFormat) Position(dst []byte, after uint64, b store.Bounds) []byte {
	return sse.AppendEvent(dst, TypePosition, after, mustJSON(struct {
		Log   string `json:"log"`
		First uint64 `json:"first"`
		Last  uint64 `json:"last"`
	}{b.Log, b.First, b.Last}))
}

func (sseFormat) Gap(dst []byte, g Gap) []byte {
	return sse.AppendControl(dst, TypeGap, mustJSON(g))
}

func (sseFormat) End(dst []byte, b store.Bounds) []byte {
	return appendEnd(dst, "", b)
}

func appendEnd(dst []byte, stream string, b store.Bounds) []byte {
	return sse.AppendControl(dst, TypeEnd, mustJSON(struct {
		Stream string `json:"stream,omitempty"`
		Last   uint64 `json:"last"`
	}{stream, b.Last}))
}

// mustJSON encodes a value of this package, of which there is none that fails.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
