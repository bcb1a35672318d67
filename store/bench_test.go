package store

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func BenchmarkAppend(b *testing.B) {
	for _, producers := range []int{1, 64, 1024} {
		b.Run(fmt.Sprint("producers=", producers), func(b *testing.B) {
			db := OpenForTest(b, tempFile(b), Options{Retention: Retention{Events: 100_000}})
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for range producers {
				wg.Go(func() {
					for next.Add(1) <= int64(b.N) {
						batch := Batch{Events: []Event{{Type: "message", Data: make([]byte, 100)}}}
						if _, err := db.Log("s").Append(context.Background(), batch); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

func BenchmarkRead(b *testing.B) {
	const events = 100_000
	db := OpenForTest(b, tempFile(b), Options{})
	for range events / 1000 {
		var batch Batch
		for range 1000 {
			batch.Events = append(batch.Events, Event{Type: "message", Data: make([]byte, 100)})
		}
		if _, err := db.Log("s").Append(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	n := 0
	for b.Loop() {
		_, err := db.Log("s").Read(b.Context(), 0, func(Event) bool {
			n++
			return true
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	if n != b.N*events {
		b.Errorf("%d events were read; want %d", n, b.N*events)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkBlock checks a block and takes from it what goes over the wire, or its
// events one by one; an operation is a block.
func BenchmarkBlock(b *testing.B) {
	for name, data := range map[string]string{"text": "0123456789 0123456789", "fields": "0123456789\r0123456789"} {
		var key, value []byte
		w := blockWriter{name: "s", put: func(k, v []byte) { key, value = k, v }}
		for seq := uint64(1); key == nil; seq++ {
			w.add(&Event{Seq: seq, Type: "message", Time: time.Unix(int64(seq), 0), Data: []byte(data)}, 0)
		}
		parse := func() block {
			got, err := parseBlock(key, value)
			if err != nil {
				b.Fatal(err)
			}
			return got
		}
		first, last := parse().first, parse().last
		if name == "text" {
			b.Run("some", func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(value)))
				for b.Loop() {
					if len(parse().text(first+1, last)) == 0 {
						b.Fatal("nothing")
					}
				}
			})
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(value)))
			for b.Loop() {
				n := first
				for d := parse().events(); d.more(); n++ {
				}
				if n != last+1 {
					b.Fatal(n)
				}
			}
		})
	}
}
