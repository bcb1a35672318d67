package stream

import (
	"cmp"
	"errors"

	"lastevent/store"
)

// Span returns the position that the response begins after, which Begin may move, and
// the one that it ends with; the latter only of a subscription that is Once.
func (c *Cursor) Span() (after, until uint64) { return c.start, c.until }

// limitPage ends the response before the event that exceeds the limit, or with
// until if there is none. What is filtered out in front of that event, the page
// has gone past.
func (c *Cursor) limitPage(limit uint64) error {
	if c.types == nil {
		c.until = min(c.until, c.after+min(limit, c.until-c.after))
		return nil
	}
	found, after := uint64(0), c.after
	for after < c.until {
		var corrupt *store.CorruptError
		from, scanned := after, 0
		b, err := c.log.Read(c.ctx, after, func(e store.Event) bool {
			if wants(c.types, e.Type) {
				if found == limit {
					c.until = min(c.until, e.Seq-1)
					return false
				}
				found++
			}
			after = e.Seq
			scanned += len(e.Data)
			return scanned < maxScan && after < c.until
		})
		switch {
		case errors.As(err, &corrupt):
			after = corrupt.Last
		case err != nil || c.ctx.Err() != nil:
			return cmp.Or(err, c.ctx.Err())
		case after == from && b.First <= after+1:
			return nil
		}
		after = max(after, b.First-1)
	}
	return nil
}
