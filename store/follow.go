package store

import (
	"context"
	"slices"
)

// A follower is told of one log's commits.
type follower struct {
	f func(Bounds, []Event)
}

// Follow calls f at once, before it returns, with the bounds and no events, and
// from then on after each commit that changes the log: with the new bounds, and
// with the events appended, of which f may have been told before. f is never called
// twice at a time. It must not keep the events, must not wait, as all appends wait
// for it, and must not call the DB. After stop has returned it is not called again.
func (l *Log) Follow(ctx context.Context, f func(Bounds, []Event)) (stop func(), err error) {
	db := l.db
	fol := &follower{f}
	db.mu.Lock()
	defer db.mu.Unlock()
	b, err := l.Bounds(ctx)
	if err != nil {
		return nil, err
	}
	db.followers[l.name] = append(db.followers[l.name], fol)
	f(b, nil)
	return func() {
		db.mu.Lock()
		defer db.mu.Unlock()
		rest := slices.DeleteFunc(db.followers[l.name], func(x *follower) bool { return x == fol })
		if db.followers[l.name] = rest; len(rest) == 0 {
			delete(db.followers, l.name)
		}
	}, nil
}

// tell calls the followers of the logs that the commit changed.
func (db *DB) tell(c *commit) {
	db.mu.Lock()
	defer db.mu.Unlock()
	for name, l := range c.logs {
		if !l.changed {
			continue
		}
		for _, fol := range db.followers[name] {
			fol.f(db.boundsOf(l.state), l.events)
		}
	}
}
