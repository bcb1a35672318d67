package jetstream

import (
	"reflect"
	"testing"
)

func FuzzParseState(f *testing.F) {
	s := state{first: 3, last: 9, oldest: 7, evicted: 5, total: 99, time: 1, firstTime: 1, count: 2, keys: 1, nonce: 1 << 63, number: 4, closedBy: closedKey("h", [32]byte{7})}
	f.Add(s.encode())
	f.Add("1 1 0 0 0 0 0 0 false 0 0 0 1 -")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseState(text)
		if err != nil {
			return
		}
		again, err := parseState(s.encode())
		if err != nil || again != s {
			t.Fatalf("%q is %+v, and comes back as %+v, %v", text, s, again, err)
		}
	})
}

func FuzzParseBlock(f *testing.F) {
	b := block{3, 2, 1, []byte{1, 'a', 1, 'b', 0, 0}}
	f.Add(b.encode())
	b.count = 3
	f.Add(b.encode())
	f.Add([]byte{200})
	f.Fuzz(func(t *testing.T, p []byte) {
		b, err := parseBlock(p)
		if err != nil {
			return
		}
		events, whole := b.whole()
		if whole != (len(events) == b.count) || len(events) > 0 && events[0].Seq != b.first {
			t.Fatalf("%d of %d events: %t", len(events), b.count, whole)
		}
		same := b
		same.data, same.count = nil, len(events)
		for i := range events {
			same.data = appendEvent(same.data, &events[i])
		}
		same, err = parseBlock(same.encode())
		if again, ok := same.whole(); err != nil || !ok || !reflect.DeepEqual(again, events) || same.next() != b.first+uint64(len(events)) {
			t.Fatalf("%+v come back as %+v, %v", events, again, err)
		}
	})
}
