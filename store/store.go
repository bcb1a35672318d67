// Package store keeps numbered events in bounded, durable logs, many of them in
// one bbolt file.
//
// A [DB] is the file. A [Log] is the events of one stream in it: [Log.Append]
// numbers events and returns once they are on the disk, [Log.Read] reads them
// back, [Log.Follow] tells of new ones as they become durable. [Retention] says
// how much of each log is kept.
//
// What it promises:
//
//   - An event is acknowledged, read or followed only after it is synced.
//   - Sequences of a log are 1, 2, 3 … without a hole. None is used twice: not
//     after a crash, an eviction, a delete or a failed append.
//   - The append that exceeds the retention evicts in its own transaction.
//   - What is read is what was appended, checked by a CRC; what is stored but not
//     whole is a [CorruptError] that says which events are gone.
//
// Caveats: one process has the file open at a time. A sync that failed leaves the
// outcome of its appends unknown and ends writing for good ([ErrUnknown]); the
// next open reads from the file what became of them.
package store

import (
	"errors"
	"fmt"
	"time"
)

// An Event is one stored, numbered message.
type Event struct {
	Seq  uint64    // from 1, contiguous in a log; set by Append
	Time time.Time // of the append, never before its predecessor's; set by Append
	Type string
	Data []byte
}

// size is what an event counts against [Retention.Bytes].
func (e Event) size() int { return len(e.Type) + len(e.Data) }

// Bounds is what a log holds at one moment.
type Bounds struct {
	// Log names the numbering: sequences of logs with different names have nothing
	// to do with each other. It is drawn when the file is created.
	Log string
	// First is the sequence of the oldest retained event, Last that of the newest
	// durable one. A log without events has First = Last + 1.
	First, Last uint64
	// Bytes is the size of the retained events: their types and data.
	Bytes uint64
	// Closed: nothing will ever be appended again.
	Closed bool
	// Expires is when the event First expires; zero if it never does.
	Expires time.Time
}

// Retention is how much of each log is kept; a zero field is no limit.
type Retention struct {
	Events uint64        // the newest so many
	Bytes  uint64        // the newest whose types and data are no more than this
	Age    time.Duration // those younger than this
}

// A Batch is what one append makes durable: all of it, or nothing.
type Batch struct {
	// Events are stored next to each other. Append sets Seq and Time of each and
	// keeps no reference to any of it once it has returned.
	Events []Event
	// Close closes the log for good, after the events if there are any.
	Close bool
	// Key, if it is not empty, makes the append idempotent: while its last event is
	// retained, a second one with the key appends nothing and gets the first one's
	// receipt. It is not kept where there is nothing to append or close.
	Key string
	// Digest stands for what is asked for under the key.
	Digest [32]byte
}

// A Receipt is the answer to an append.
type Receipt struct {
	Last  uint64 // sequence of the batch's last event; of the log's, if it has none
	Count int    // how many events were appended
	// Replayed: nothing was appended now, as the key had been used.
	Replayed bool
}

// A UsedKey is an idempotency key that is in use.
type UsedKey struct {
	Hash    [16]byte // the beginning of the key's SHA-256
	Digest  [32]byte // of what was asked for under the key
	Receipt Receipt
}

// Errors of this package; what is returned wraps them in words. After each but
// ErrUnknown nothing of the refused append is stored.
var (
	// ErrLocked: another process has the file open.
	ErrLocked = errors.New("is in use by another process")
	// ErrVersion: the file was written by a lastevent with another format.
	ErrVersion = errors.New("has another format")
	// ErrTooLarge: an event is larger than the bytes that its log retains.
	ErrTooLarge = errors.New("event is larger than what is retained")
	// ErrClosed: the log is closed.
	ErrClosed = errors.New("stream is closed")
	// ErrKeyReused: the key was used for something else.
	ErrKeyReused = errors.New("idempotency key was used for another request")
	// ErrTooManyStreams: the log would be one more than Options.MaxStreams.
	ErrTooManyStreams = errors.New("too many streams")
	// ErrNoSpace: the disk is full. Appends work again once there is room.
	ErrNoSpace = errors.New("no space left for events")
	// ErrUnknown: a sync failed, so whether the events are stored shows only when
	// the file is opened again.
	ErrUnknown = errors.New("outcome unknown")
	// ErrUnavailable: the store cannot be reached now, and may be later.
	ErrUnavailable = errors.New("store cannot be reached")
	// ErrStopped: the DB takes no more appends, because it was closed or because
	// a sync failed.
	ErrStopped = errors.New("store has stopped writing")
)

// A CorruptError says which events are stored but not whole, or are missing where
// they should be stored. Reading can go on after Last.
type CorruptError struct {
	Stream      string
	First, Last uint64
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("stream %q: events %d to %d are corrupt", e.Stream, e.First, e.Last)
}
