package stream

import (
	"context"
	"strconv"
	"time"

	"lastevent/store"
)

// A Start says where a subscription begins. The zero Start is live: after the
// newest event. At most one of its fields may be set, but for Log.
type Start struct {
	// LastEventID is what the client says it had last; nil if it said nothing. What
	// cannot be resumed from begins with a gap.
	LastEventID *string
	notID       bool // LastEventID is not one of this response, whatever it looks like
	// Log is the log that the client had LastEventID from; empty if it did not say.
	Log string
	// Earliest begins with the oldest retained event.
	Earliest bool
	// Newest begins with so many of the newest retained events.
	Newest uint64
	// Since begins with the first event that is not older.
	Since time.Time
}

// ParseID reads an event ID: 1 to 20 decimal digits, at most 2^64-1.
func ParseID(s string) (uint64, bool) {
	if len(s) == 0 || len(s) > 20 {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	id, err := strconv.ParseUint(s, 10, 64)
	return id, err == nil
}

// seek returns the position to begin after, behind the gap that there may be, and the
// log's bounds at that moment. Known are those that the log's follower was told last,
// which are behind where others append; nil: there is none.
func (s Start) seek(ctx context.Context, log Log, known *store.Bounds) (after uint64, gap *Gap, b store.Bounds, err error) {
	var before uint64
	if !s.Since.IsZero() {
		if before, err = log.Before(ctx, s.Since); err != nil {
			return 0, nil, b, err
		}
	}
	if known != nil && s.within(*known) {
		b = *known
	} else if b, err = log.Bounds(ctx); err != nil {
		return 0, nil, b, err
	}
	oldest := b.First - 1
	switch {
	case s.LastEventID != nil:
		after, gap = s.resume(b)
	case s.Earliest:
		after = oldest
	case s.Newest > 0:
		after = max(b.Last-min(b.Last, s.Newest), oldest)
	case !s.Since.IsZero():
		after = max(before, oldest)
	default:
		after = b.Last
	}
	return after, gap, b, nil
}

// within reports whether bounds that are behind are enough to resume by.
func (s Start) within(b store.Bounds) bool {
	if s.LastEventID == nil || s.Log != "" && s.Log != b.Log || !b.Expires.IsZero() && !time.Now().Before(b.Expires) {
		return false
	}
	id, ok := ParseID(*s.LastEventID)
	return ok && id <= b.Last
}

// resume returns the position of the client's ID, or the one behind the gap that
// there is.
func (s Start) resume(b store.Bounds) (uint64, *Gap) {
	id, ok := ParseID(*s.LastEventID)
	lost := Gap{LastEventID: *s.LastEventID, First: b.First, Last: b.Last}
	switch {
	case s.Log != "" && s.Log != b.Log:
		lost.Reason = ReasonReset
	case !ok || s.notID:
		lost.Reason = ReasonUnknown
	case id > b.Last:
		lost.Reason = ReasonAhead
	case id+1 < b.First:
		lost = gapAfter(ReasonEvicted, id, b.First, b.Last)
	default:
		return id, nil
	}
	if len(lost.LastEventID) > maxEcho {
		lost.LastEventID = lost.LastEventID[:maxEcho]
	}
	return b.First - 1, &lost
}
