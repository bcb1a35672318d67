package jetstream_test

import (
	"fmt"
	"iter"
	"slices"
	"testing"
	"time"

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
