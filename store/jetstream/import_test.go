package jetstream_test

import (
	"crypto/sha256"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"lastevent/store"
	"lastevent/store/jetstream"
)

// eventsAt yields events from first to last, each with a time of its own, so that each is
// a message of its own.
func eventsAt(first, last uint64) iter.Seq2[store.Event, error] {
	return func(yield func(store.Event, error) bool) {
		for seq := first; seq <= last; seq++ {
			e := store.Event{Seq: seq, Time: time.Unix(int64(seq), 0), Type: "t", Data: fmt.Append(nil, seq)}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Each imported log is listed once, as it is.
func TestImportedStreams(t *testing.T) {
	db := open(t, newURL(t), jetstream.Options{})
	var want []store.Stream
	for i := range uint64(20) {
		b := store.Bounds{Log: db.ID(), First: 3, Last: 2 + i, Closed: i%2 == 0}
		for e := range eventsAt(b.First, b.Last) {
			b.Bytes += uint64(len(e.Type) + len(e.Data))
		}
		name := fmt.Sprintf("s%02d", i)
		if err := db.Import(ctx, name, b, nil, eventsAt(b.First, b.Last)); err != nil {
			t.Fatal(err)
		}
		want = append(want, store.Stream{Name: name, Bounds: b})
	}
	if got, err := db.Streams(ctx); err != nil || !slices.Equal(got, want) {
		t.Errorf("streams %+v, %v; want %+v", got, err, want)
	}
}

// What was not imported to the end does not look as if it was, wherever it was broken off:
// here by a limit on JetStream's messages.
func TestImportBrokenOff(t *testing.T) {
	var keys []store.UsedKey
	for i := range byte(3) {
		keys = append(keys, store.UsedKey{Hash: [16]byte{i}, Receipt: store.Receipt{Last: uint64(i) + 1, Count: 1}})
	}
	keys = append(keys, store.UsedKey{Hash: [16]byte{9}, Receipt: store.Receipt{Last: 3}})
	for limit := int64(2); ; limit++ {
		url := newURL(t)
		db := open(t, url, jetstream.Options{})
		setLimit(t, url, limit)
		b := store.Bounds{Log: db.ID(), First: 1, Last: 3, Bytes: 6, Closed: true}
		err := db.Import(ctx, "s", b, keys, eventsAt(1, 3))
		streams, listErr := db.Streams(ctx)
		complete := len(streams) == 1 && streams[0].Bounds == b
		if listErr != nil || complete != (err == nil) {
			t.Errorf("with room for %d messages: %v, and there is %+v, %v", limit, err, streams, listErr)
		}
		if err == nil {
			if limit < 1+3+3 { // the barrier, the events, the keys of events
				t.Errorf("%d messages were enough", limit)
			}
			return
		}
	}
}

// Messages that nobody takes for a moment are not stored after those that follow them.
func TestImportStaysInOrder(t *testing.T) {
	db := open(t, newURL(t), jetstream.Options{})
	stream, err := db.JetStreamForTest().Stream(ctx, db.Name())
	if err != nil {
		t.Fatal(err)
	}
	takes := stream.CachedInfo().Config
	not := takes
	not.RePublish, not.Subjects = nil, takes.Subjects[1:]
	update := func(config js.StreamConfig) {
		if _, err := db.JetStreamForTest().UpdateStream(ctx, config); err != nil {
			t.Error(err)
		}
	}
	err = db.Import(ctx, "s", store.Bounds{First: 1, Last: 60}, nil, func(yield func(store.Event, error) bool) {
		next, stop := iter.Pull2(eventsAt(1, 60))
		defer stop()
		for e, err, ok := next(); ok && yield(e, err); e, err, ok = next() {
			switch e.Seq {
			case 20:
				update(not)
			case 30: // of the messages before, the first at least have had no answer
				time.Sleep(10 * time.Millisecond)
				update(takes)
			}
		}
	})
	if err == nil {
		t.Errorf("imported, and holds %d events", len(all(t, db, "s")))
	}
}

// setLimit bounds how many messages JetStream takes.
func setLimit(t *testing.T, url string, limit int64) {
	t.Helper()
	address, name, _ := strings.Cut(strings.TrimPrefix(strings.TrimSuffix(url, "?replicas=1"), "nats://"), "/")
	nc, err := nats.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	server, err := js.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := server.Stream(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	config.MaxMsgs = limit
	if _, err := server.UpdateStream(ctx, config); err != nil {
		t.Fatal(err)
	}
}

// All keys of many events of one time are in use.
func TestImportKeys(t *testing.T) {
	const last = 1200
	db := open(t, newURL(t), jetstream.Options{})
	b := store.Bounds{Log: db.ID(), First: 1, Last: last}
	var keys []store.UsedKey
	for seq := range uint64(last) {
		hash := sha256.Sum256(fmt.Append(nil, "key ", seq+1))
		keys = append(keys, store.UsedKey{Hash: [16]byte(hash[:]), Digest: hash, Receipt: store.Receipt{Last: seq + 1, Count: 1}})
	}
	at := time.Unix(1, 0)
	err := db.Import(ctx, "s", b, keys, func(yield func(store.Event, error) bool) {
		for seq := uint64(1); seq <= last && yield(store.Event{Seq: seq, Time: at}, nil); seq++ {
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, seq := range []uint64{1, 499, 500, 501, 1000, 1001, last} {
		key := fmt.Sprint("key ", seq)
		if r, used, err := db.Log("s").Used(ctx, key, sha256.Sum256([]byte(key))); !used || r.Last != seq || err != nil {
			t.Errorf("%s: %+v, %v, %v", key, r, used, err)
		}
	}
}
