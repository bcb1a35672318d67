package stream_test

import (
	"path/filepath"
	"testing"

	"lastevent/store"
	"lastevent/stream"
)

// BenchmarkReplay reads events of 100 bytes from the log; an operation is an event.
func BenchmarkReplay(b *testing.B) {
	db, err := store.Open(filepath.Join(b.TempDir(), "test.db"), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	const stored = 200_000
	events := make([]store.Event, stored)
	for i := range events {
		events[i] = store.Event{Type: "message", Data: make([]byte, 100)}
	}
	if _, err := db.Log("s").Append(b.Context(), store.Batch{Events: events}); err != nil {
		b.Fatal(err)
	}
	set := stream.NewSet(func(name string) stream.Log { return db.Log(name) }, db.Streams)
	b.ReportAllocs()
	for n := b.N; n > 0; n -= stored {
		c, err := set.Subscribe(b.Context(), "s", stream.Subscription{Start: earliest, Limit: uint64(min(n, stored))})
		if err != nil {
			b.Fatal(err)
		}
		for {
			if p, _, _ := c.Next(); len(p) == 0 {
				break
			}
		}
		c.Close()
	}
}
