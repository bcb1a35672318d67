package stream_test

import (
	"bytes"
	"io"
	"path/filepath"
	"sync"
	"testing"

	"lastevent/store"
	"lastevent/stream"
)

func BenchmarkWake(b *testing.B) {
	const clients = 1000
	log := newMemory(store.Retention{Events: 1})
	set := log.set()
	cursors := make([]*stream.Cursor, clients)
	for i := range cursors {
		cursors[i] = subscribe(b, set, "x", stream.Start{}, 0)
		defer cursors[i].Close()
	}
	var wg sync.WaitGroup
	woken := make(chan struct{})
	for _, c := range cursors {
		wg.Go(func() {
			for {
				p, changed, err := c.Next()
				switch {
				case err == io.EOF || err != nil:
					return
				case len(p) == 0:
					<-changed
				case bytes.HasSuffix(p, []byte("data: stop\n\n")):
					return
				default:
					woken <- struct{}{}
				}
			}
		})
	}
	event := events(1, 100)
	b.ReportAllocs()
	for b.Loop() {
		add(b, log, event...)
		for range clients {
			<-woken
		}
	}
	add(b, log, store.Event{Type: "message", Data: []byte("stop")})
	wg.Wait()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/clients, "ns/client")
}

func BenchmarkNextFromTail(b *testing.B) {
	benchmarkNext(b, true)
}

func BenchmarkNextFromLog(b *testing.B) {
	benchmarkNext(b, false)
}

// benchmarkNext reads 512 KiB of small events from the store again and again.
func benchmarkNext(b *testing.B, inTail bool) {
	db, err := store.Open(filepath.Join(b.TempDir(), "x.db"), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	set := newSet(func(name string) stream.Log { return db.Log(name) })
	if inTail {
		live := subscribe(b, set, "x", stream.Start{}, 0)
		defer live.Close()
	}
	add(b, db.Log("x"), events(4096, 100)...)
	c := subscribe(b, set, "x", stream.Start{Earliest: true}, 0)
	b.ReportAllocs()
	for b.Loop() {
		if p := next(b, c); len(p) == 0 {
			b.StopTimer()
			c.Close()
			c = subscribe(b, set, "x", stream.Start{Earliest: true}, 0)
			b.StartTimer()
		}
	}
	c.Close()
}

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
	set := stream.NewSet(db.Log, db.Streams)
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

func BenchmarkParseID(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if id, ok := stream.ParseID("12345678901234567890"); !ok || id != 12345678901234567890 {
			b.Fatal(id, ok)
		}
	}
}
