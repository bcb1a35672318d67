package store

import (
	"bytes"
	"slices"
	"testing"
	"time"
)

// FuzzBlocks writes events in blocks of both forms and reads them back; and of a block
// in which one byte is another, or missing, it reads nothing.
func FuzzBlocks(f *testing.F) {
	f.Add("message", []byte("data"), uint8(1), uint32(0), uint16(0), byte(1))
	f.Add("", []byte{}, uint8(255), uint32(1<<31), uint16(7), byte(0))
	f.Add("time", bytes.Repeat([]byte("x"), 1950), uint8(3), uint32(15_000_000), uint16(21), byte(1<<7))
	f.Add("a: b\xff", []byte("\x00\n"), uint8(100), uint32(1), uint16(1000), byte(255))
	f.Add("a\nb", []byte("data"), uint8(14), uint32(1), uint16(40), byte(1))
	f.Add("time", []byte("a\r\nb\rc"), uint8(15), uint32(1), uint16(33), byte(0))
	f.Fuzz(func(t *testing.T, typ string, data []byte, count uint8, step uint32, at uint16, flip byte) {
		start := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
		var want []Event
		data = data[:min(len(data), 1000)]
		for i := range int(count % 16) {
			e := Event{Seq: uint64(i + 1), Time: start.Add(time.Duration(i*i) * time.Duration(step)), Type: typ, Data: data}
			switch i % 5 {
			case 1:
				e.Data = bytes.Repeat(data, i/5)
			case 2:
				e.Type += "2"
			case 4:
				e.Type += "\n"
			case 3:
				e.Data = data[:len(data)/(i+1)]
			}
			want = append(want, e)
		}
		keys, values := writtenBlocks("stream", want...)
		next, total := 0, uint64(0)
		for i, key := range keys {
			b, err := parseBlock(key, values[i])
			if err != nil || b.first != uint64(next+1) || b.total != total {
				t.Fatalf("block %d is of %d on, after %d bytes, %v; want %d, %d", i, b.first, b.total, err, next+1, total)
			}
			for d := b.events(); d.more(); {
				e := d.event
				w := want[next]
				if e.Seq != w.Seq || !e.Time.Equal(w.Time) || e.Type != w.Type || !bytes.Equal(e.Data, w.Data) {
					t.Fatalf("got %+v; want %+v", e, w)
				}
				next++
				total += uint64(e.size())
			}
			if uint64(next) != b.last {
				t.Fatalf("the block up to %d yields events up to %d", b.last, next)
			}
		}
		if next != len(want) {
			t.Fatalf("%d events; want %d", next, len(want))
		}
		for i := range keys {
			whole := slices.Concat(keys[i], values[i])
			where := int(at) % len(whole)
			if flip == 0 {
				whole = slices.Delete(whole, where, where+1)
			} else {
				whole[where] ^= flip
			}
			n := len(keys[i])
			if b, err := parseBlock(whole[:n], whole[n:]); err == nil {
				t.Fatalf("a block with byte %d another is taken for one of %d to %d", where, b.first, b.last)
			}
		}
	})
}
