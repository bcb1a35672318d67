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
	i := importer{k: k, next: b.First, state: state{log: db.ID(), first: b.First, last: b.First - 1}}
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
	if err := i.flush(ctx); err != nil {
		return err
	}
	if err := i.receipts(keys); err != nil {
		return err
	}
	return i.await()
}

// An importer packs events into commits. All of a commit have one time.
type importer struct {
	k     *log
	state state // of the commit that is being packed
	data  []byte
	next  uint64
	sent  []js.PubAckFuture
}

func (i *importer) add(ctx context.Context, e store.Event) error {
	if e.Seq != i.next {
		return fmt.Errorf("stream %q: event %d comes where %d should", i.k.name, e.Seq, i.next)
	}
	if at := e.Time.UnixNano(); i.state.count > 0 && (at != i.state.time || len(i.data) > importBytes) {
		if err := i.flush(ctx); err != nil {
			return err
		}
	}
	i.data = appendEvent(i.data, &e)
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

// flush sends the commit that is being packed. Only the first is awaited, as it must find
// the log never written.
func (i *importer) flush(ctx context.Context) error {
	i.state.nonce = rand.Uint64()
	i.state.number++
	m := &nats.Msg{Subject: i.k.subject, Data: i.data, Header: nats.Header{stateHeader: {i.state.encode()}}}
	i.data, i.state.count = nil, 0
	if i.state.oldest > 0 {
		return i.send(m)
	}
	m.Header.Set(expectHeader, "0")
	for {
		seq, err := i.k.db.publish(ctx, m)
		switch {
		case err == nil:
			i.state.oldest = seq
			return nil
		case errors.Is(err, errConflict):
			return fmt.Errorf("stream %q: %w", i.k.name, ErrExists)
		case !errors.Is(err, errAgain) || ctx.Err() != nil:
			return fmt.Errorf("stream %q: %w", i.k.name, err)
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// send publishes a message that is awaited at the end.
func (i *importer) send(m *nats.Msg) error {
	sent, err := i.k.db.js.PublishMsgAsync(m, js.WithStallWait(patience))
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

func (i *importer) receipts(keys []store.UsedKey) error {
	for _, key := range keys {
		if err := i.send(&nats.Msg{
			Subject: i.k.db.subject("k", token(i.k.name), hex.EncodeToString(key.Hash[:])),
			Data:    encodeReceipt(key.Digest, key.Receipt),
		}); err != nil {
			return err
		}
	}
	return nil
}
