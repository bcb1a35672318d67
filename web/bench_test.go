package web_test

import (
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"lastevent/store"
	"lastevent/web"
)

// BenchmarkLive publishes an event and waits until all live clients have it. What is
// reported a delivery includes its share of the append, which is nearly all of the
// allocations: delivering needs none.
func BenchmarkLive(b *testing.B) {
	for _, clients := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint("clients=", clients), func(b *testing.B) { benchmarkLive(b, clients) })
	}
}

func benchmarkLive(b *testing.B, clients int) {
	s := overTCP(b, setup{retention: store.Retention{Events: 1000}, config: func(c *web.Config) { c.Heartbeat = time.Hour }})
	s.publish(b, "x", "1")
	received := make(chan int, clients)
	for range clients {
		sub := s.subscribe(b, "/sse/x")
		sub.position(b)
		go func() {
			buf := make([]byte, 4<<10)
			for {
				n, err := sub.Read(buf)
				if err != nil {
					return
				}
				received <- n
			}
		}()
	}
	s.untilLive(b, clients)
	log, batch := s.db.Log("x"), store.Batch{Events: []store.Event{{Type: "message", Data: make([]byte, 100)}}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b.ResetTimer()
	for range b.N {
		if _, err := log.Append(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
		for range clients { // an event is one read
			<-received
		}
	}
	b.StopTimer()
	runtime.ReadMemStats(&after)
	deliveries := float64(b.N) * float64(clients)
	allocs := float64(after.Mallocs-before.Mallocs) / deliveries
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/deliveries, "ns/delivery")
	b.ReportMetric(allocs, "allocs/delivery")
	if clients >= 1000 && b.N >= 10 && allocs >= 0.5 {
		b.Errorf("%.2f allocations a delivery", allocs)
	}
}

// BenchmarkSubscribe comes, has one event and goes.
func BenchmarkSubscribe(b *testing.B) {
	s := overTCP(b, setup{})
	s.publish(b, "x", "1")
	b.ReportAllocs()
	for b.Loop() {
		conn := s.dial()
		if _, err := io.WriteString(conn, "GET /sse/x?from=-1&limit=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); err != nil {
			b.Fatal(err)
		}
		conn.Close()
	}
}
