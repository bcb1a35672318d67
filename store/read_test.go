package store

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"lastevent/stream/sse"
)

// What ReadText appends is what Read yields, as it goes over the wire: for any events,
// from anywhere to anywhere.
func TestReadText(t *testing.T) {
	db := OpenForTest(t, tempFile(t), Options{Retention: Retention{Events: 300}})
	names := 0
	rapid.Check(t, func(t *rapid.T) {
		names++
		l := db.Log(strings.Repeat("s", names%200+1))
		event := rapid.Custom(func(t *rapid.T) Event {
			return Event{
				Type: rapid.SampledFrom([]string{"message", "time", "", "with\nline\rends", strings.Repeat("long", 50)}).Draw(t, "type"),
				Data: []byte(strings.Repeat(rapid.StringN(0, 20, -1).Draw(t, "data")+rapid.SampledFrom([]string{"", "\n", "\r\n", "\ndata: "}).Draw(t, "end"),
					rapid.IntRange(0, 40).Draw(t, "times"))),
			}
		})
		if _, err := l.Append(t.Context(), Batch{Events: rapid.SliceOfN(event, 1, 200).Draw(t, "events")}); err != nil {
			t.Fatal(err)
		}
		bounds, err := l.Bounds(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		after := rapid.Uint64Range(0, bounds.Last+2).Draw(t, "after")
		to := rapid.Uint64Range(after, bounds.Last+2).Draw(t, "to")
		size := rapid.IntRange(1, 10_000).Draw(t, "size")

		text, last, b, err := l.ReadText(t.Context(), after, to, []byte("begin"), size)
		if err != nil || b != bounds {
			t.Fatalf("%+v, %v; want %+v", b, err, bounds)
		}
		want, wantLast := []byte("begin"), after
		if _, err := l.Read(t.Context(), after, func(e Event) bool {
			if e.Seq <= last {
				want = sse.AppendEvent(want, e.Type, e.Seq, e.Data)
				wantLast = e.Seq
			}
			return e.Seq < last
		}); err != nil {
			t.Fatal(err)
		}
		if string(text) != string(want) || last != wantLast || last > to {
			t.Fatalf("after %d to %d: up to %d, %d bytes; want up to %d, %d bytes", after, to, last, len(text), wantLast, len(want))
		}
		if len(text) < size && last < min(to, b.Last) {
			t.Fatalf("only %d of %d bytes, up to %d; want up to %d", len(text), size, last, min(to, b.Last))
		}
	})
}
