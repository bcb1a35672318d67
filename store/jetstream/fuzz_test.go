package jetstream

import "testing"

func FuzzParseState(f *testing.F) {
	s := state{log: "k7f3q2", first: 3, last: 9, oldest: 7, evicted: 5, total: 99, time: 1, firstTime: 1, count: 2, keys: 1, nonce: 1 << 63, number: 4, closedBy: closedKey("h", [32]byte{7})}
	f.Add(s.encode())
	f.Add("1 a 1 0 0 0 0 0 0 false 0 0 0 1 -")
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

func FuzzEvents(f *testing.F) {
	f.Add([]byte{1, 'a', 1, 'b', 0, 0}, 2)
	f.Add([]byte{200}, 1)
	f.Fuzz(func(t *testing.T, data []byte, count int) {
		if count < 0 || count > 1000 {
			return
		}
		c := commit{state: state{last: 1000, count: count}, data: data}
		events, whole := c.whole()
		var encoded []byte
		for i := range events {
			encoded = appendEvent(encoded, &events[i])
		}
		if again, ok := (&commit{state: state{last: 1000, count: len(events)}, data: encoded}).whole(); !ok || len(again) != len(events) || whole && len(events) != count {
			t.Fatalf("%d of %d events come back as %d", len(events), count, len(again))
		}
	})
}
