package jetstream

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"lastevent/store"
)

// importBytes is about how much of a log is imported with one message.
const importBytes = 256 << 10

// importCount is how many events a message has at most. With it go the receipts of its
// events, and JetStream takes a thousand messages at once.
const importCount = 500

// ErrExists: a log that is to be imported was written already.
var ErrExists = errors.New("stream is there already")

// Import copies a log with its sequences, times and idempotency keys. The log must never
// have been written; else the error is ErrExists. Events must go from b.First to b.Last.
// The log is not complete until Import has returned without an error.
func (db *DB) Import(ctx context.Context, name string, b store.Bounds, keys []store.UsedKey, events iter.Seq2[store.Event, error]) error {
	k := db.log(name)
	s, err := k.strict(ctx)
	if err != nil {
		return err
	}
	if s.newest.written() {
		return fmt.Errorf("stream %q: %w", name, ErrExists)
	}
	i := importer{k: k, origin: s.newest.origin, next: b.First, state: state{first: b.First, last: b.First - 1}}
	for e, err := range events {
		if err != nil {
			return err
		}
		if err := i.add(ctx, e); err != nil {
			return err
		}
	}
	if i.next != b.Last+1 {
		return fmt.Errorf("stream %q: events end before %d, and should end with %d", name, i.next, b.Last)
	}
	i.state.closed = b.Closed
	return i.finish(ctx, keys)
}

// An importer packs events into commits. All of a commit have one time.
type importer struct {
	k      *log
	origin *origin
	state  state // of the commit that is being packed
	data   []byte
	next   uint64
	sent   []js.PubAckFuture
}

func (i *importer) add(ctx context.Context, e store.Event) error {
	if e.Seq != i.next {
		return fmt.Errorf("stream %q: event %d comes where %d should", i.k.name, e.Seq, i.next)
	}
	if at := e.Time.UnixNano(); i.state.count > 0 && (at != i.state.time || len(i.data)+int(size(&e)) > importBytes || i.state.count == importCount) {
		if err := i.flush(ctx); err != nil {
			return err
		}
	}
	i.data = appendEvent(i.data, &e)
	if fits := int(i.k.db.nc.MaxPayload()) - overhead; len(i.data) > fits {
		return fmt.Errorf("stream %q: event %d: %w", i.k.name, e.Seq, tooLarge(len(i.data), fits))
	}
	i.state.time = e.Time.UnixNano()
	i.state.count++
	i.state.last = e.Seq
	i.state.total += size(&e)
	i.next++
	if e.Seq == i.state.first {
		i.state.firstTime = i.state.time
	}
	return nil
}

// commit returns the commit that is being packed.
func (i *importer) commit() *nats.Msg {
	i.state.nonce = rand.Uint64()
	i.state.number++
	c := commit{state: i.state, data: i.data}
	b := c.block()
	m := &nats.Msg{Subject: i.k.subject(i.origin), Data: b.encode(), Header: nats.Header{stateHeader: {i.state.encode()}}}
	if i.state.oldest == 0 {
		m.Header.Set(expectHeader, "0")
	}
	i.data, i.state.count = nil, 0
	return m
}

// flush sends the commit that is being packed. Only the first is awaited, as it must find
// the log never written.
func (i *importer) flush(ctx context.Context) (err error) {
	m := i.commit()
	if i.state.oldest > 0 {
		return i.send(m)
	}
	i.state.oldest, err = i.publish(ctx, m)
	return err
}

// finish has all receipts of older events stored, and then the last commit at once with
// its own: what was broken off before is seen not to be complete.
func (i *importer) finish(ctx context.Context, keys []store.UsedKey) error {
	next := i.state.last + 1 - uint64(i.state.count)
	var own []*nats.Msg
	for _, key := range keys {
		if key.Receipt.Count == 0 {
			i.state.closedBy = closedKey(hex.EncodeToString(key.Hash[:]), key.Digest)
			continue
		}
		m := &nats.Msg{
			Subject: i.k.keySubject(i.origin, hex.EncodeToString(key.Hash[:])),
			Data:    encodeReceipt(key.Digest, key.Receipt),
			Header:  nats.Header{},
		}
		if key.Receipt.Last >= next {
			own = append(own, m)
		} else if err := i.send(m); err != nil {
			return err
		}
	}
	if err := i.await(); err != nil {
		return err
	}
	i.state.keys = len(own)
	_, err := i.publish(ctx, append([]*nats.Msg{i.commit()}, own...)...)
	return err
}

// publish stores messages at once, the first of them a commit.
func (i *importer) publish(ctx context.Context, msgs ...*nats.Msg) (first uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		seq, err := i.k.db.publish(ctx, msgs...)
		switch {
		case err == nil:
			return seq - uint64(len(msgs)-1), nil
		case errors.Is(err, errConflict):
			return 0, fmt.Errorf("stream %q: %w", i.k.name, ErrExists)
		case !errors.Is(err, errAgain) || ctx.Err() != nil:
			return 0, fmt.Errorf("stream %q: %w", i.k.name, err)
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// send publishes a message that is awaited at the end.
func (i *importer) send(m *nats.Msg) error {
	sent, err := i.k.db.js.PublishMsgAsync(m, js.WithStallWait(patience), js.WithRetryAttempts(0)) // tried again, it would come out of turn
	if err != nil {
		return fmt.Errorf("stream %q: %w", i.k.name, err)
	}
	i.sent = append(i.sent, sent)
	if len(i.sent) < 4096 {
		return nil
	}
	return i.await()
}

// await waits until all that was sent is stored.
func (i *importer) await() error {
	for _, sent := range i.sent {
		select {
		case <-sent.Ok():
		case err := <-sent.Err():
			return fmt.Errorf("stream %q: %w", i.k.name, err)
		case <-time.After(patience):
			return fmt.Errorf("stream %q: %w", i.k.name, errMaybe)
		}
	}
	i.sent = i.sent[:0]
	return nil
}
