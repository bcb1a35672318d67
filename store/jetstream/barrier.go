package jetstream

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"lastevent/store"
)

// A barrier is a message that is stored, in place of the one before it, to learn that
// JetStream stores now and how far it has come: a replica that has the barrier has all
// that was stored before. All who wait for one at a time share it.
type barrierRound struct {
	done chan struct{}
	seq  uint64
	err  error
}

// barrier tries once to store one.
func (db *DB) barrier(ctx context.Context) error {
	_, err := db.tryBarrier(ctx)
	return err
}

func (db *DB) tryBarrier(ctx context.Context) (uint64, error) {
	seq, err := db.publish(ctx, &nats.Msg{
		Subject: db.origin.Load().barrier(),
		Header:  nats.Header{"Nats-Rollup": {"sub"}},
	})
	db.tried(err)
	if err != nil {
		return 0, err
	}
	db.mu.Lock()
	again := seq < db.barriers.last
	db.barriers.last = seq
	db.mu.Unlock()
	if again { // another JetStream stream, of the same name
		db.recheck()
	}
	return seq, nil
}

// strictFrom returns a JetStream sequence that is not before anything that was stored
// before the call. A single replica is never behind.
func (db *DB) strictFrom(ctx context.Context) (uint64, error) {
	if db.replicas.Load() == 1 {
		return 0, nil
	}
	db.mu.Lock()
	r := db.barriers.next
	if r == nil {
		r = &barrierRound{done: make(chan struct{})}
		db.barriers.next = r
	}
	idle := !db.barriers.running
	db.barriers.running = true
	db.mu.Unlock()
	if idle && !db.spawn(db.runBarriers) {
		return 0, store.ErrStopped
	}
	select {
	case <-r.done:
		return r.seq, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (db *DB) runBarriers() {
	for {
		db.mu.Lock()
		r := db.barriers.next
		db.barriers.next = nil
		if r == nil {
			db.barriers.running = false
			db.mu.Unlock()
			return
		}
		db.mu.Unlock()
		for deadline := time.Now().Add(patience / 2); ; {
			r.seq, r.err = db.tryBarrier(db.ctx)
			if r.err == nil || db.ctx.Err() != nil || time.Now().After(deadline) {
				break
			}
			pause(db.ctx, 50*time.Millisecond)
		}
		close(r.done)
	}
}

// renewEvery is after how many seconds the JetStream stream is looked at, which may have
// been created anew.
const renewEvery = 5

// probe stores a barrier whenever nothing else was stored for a second, so that Err
// tells the truth, and looks after the JetStream stream when that fails.
func (db *DB) probe() {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for n := 1; ; n++ {
		select {
		case <-ticker.C:
		case <-db.ctx.Done():
			return
		}
		db.forget()
		if n%renewEvery == 0 {
			db.renew()
		}
		db.mu.Lock()
		idle := time.Since(db.stored)
		db.mu.Unlock()
		if idle < time.Second {
			continue
		}
		if err := db.barrier(db.ctx); err != nil && idle > unreadyAfter {
			db.renew()
			// The server that this one talks to may be cut off from the others.
			_ = db.nc.ForceReconnect() // it fails while there is no connection
		}
	}
}

// renew looks whether the JetStream stream was created anew, and creates it where it is
// gone.
func (db *DB) renew() {
	db.renewing.Lock()
	defer db.renewing.Unlock()
	now, err := db.ensure(db.ctx, "")
	if err != nil {
		if errors.As(err, new(lastingError)) {
			db.tried(err)
		}
		return
	}
	if now == *db.origin.Load() {
		return
	}
	db.origin.Store(&now)
	db.mu.Lock()
	db.streams, db.barriers.last = 0, 0
	logs := slices.Collect(maps.Values(db.logs))
	db.mu.Unlock()
	for _, k := range logs {
		k.reset()
	}
	db.recheck()
	if db.options.MaxStreams > 0 {
		db.spawn(func() { _, _ = db.Streams(db.ctx) }) // which counts them
	}
}

// forget drops what is known of logs that were not used for a while.
func (db *DB) forget() {
	db.mu.Lock()
	defer db.mu.Unlock()
	for name, k := range db.logs {
		k.dropChunks()
		if time.Since(k.used) > time.Minute && k.idle() {
			delete(db.logs, name)
		}
	}
}

func (k *log) idle() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.live == nil && !k.writing && len(k.queue) == 0
}
