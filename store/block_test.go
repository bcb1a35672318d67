package store

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// writtenBlocks returns the keys and values of the blocks that hold the events.
func writtenBlocks(name string, events ...Event) (keys, values [][]byte) {
	w := blockWriter{name: name, put: func(key, value []byte) {
		keys, values = append(keys, key), append(values, value)
	}}
	total := uint64(0)
	for i := range events {
		w.add(&events[i], total)
		total += uint64(events[i].size())
	}
	w.flush()
	return keys, values
}

// twoOf returns the block with the number of its events set to two.
func twoOf(value []byte) []byte {
	value = slices.Clone(value)
	binary.BigEndian.PutUint16(value[20:], 2)
	return value
}

// FuzzParseBlock reads blocks of any bytes, also behind a CRC that holds.
func FuzzParseBlock(f *testing.F) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	var events []Event
	for i := range 100 {
		events = append(events, Event{
			Seq:  uint64(i + 1),
			Time: at.Add(time.Duration(i/3) * time.Millisecond),
			Type: []string{"message", "", "time", "two\nlines"}[i/10%4],
			Data: []byte(strings.Repeat([]string{"data ", "a\r", "b\n"}[i/20%3], i)),
		})
	}
	keys, values := writtenBlocks("a/b", events...)
	for i := range keys {
		f.Add(keys[i], values[i], false)
		f.Add(keys[i], values[i][:len(values[i])-1], true)
	}
	f.Add([]byte{}, []byte{}, true)
	f.Add(blockKey(nil, "s", math.MaxUint64), values[0], true)
	f.Add(blockKey(nil, "s", math.MaxUint64), twoOf(values[0]), true)
	f.Add(blockKey(nil, "s", 3), make([]byte, blockHeader), true)
	f.Fuzz(func(t *testing.T, key, value []byte, mend bool) {
		value = slices.Clip(value)
		if mend && len(value) >= blockHeader {
			binary.BigEndian.PutUint32(value, crcOf(key, value))
		}
		b, err := parseBlock(key, value)
		if err != nil {
			return
		}
		next, total, size := b.first, b.total, 0
		if text := b.text(b.first+1, b.last); len(text) > len(value) {
			t.Fatalf("%d bytes of text in a block of %d", len(text), len(value))
		}
		for d := b.events(); d.more(); {
			e, before := d.event, d.total
			if e.Seq != next || e.Seq < b.first || e.Seq > b.last {
				t.Fatalf("event %d of the block of %d to %d; want %d", e.Seq, b.first, b.last, next)
			}
			if before != total {
				t.Fatalf("event %d has %d bytes before it; want %d", e.Seq, before, total)
			}
			next++
			total += uint64(e.size())
			size += e.size()
		}
		if size > len(value) {
			t.Fatalf("%d bytes of events in a block of %d", size, len(value))
		}
	})
}

// TestBlocks writes events of many sizes and reads them back.
func TestBlocks(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	var want []Event
	for i := range 3000 {
		want = append(want, Event{
			Seq:  uint64(i + 1),
			Time: at.Add(time.Duration(i*i) * time.Microsecond),
			Type: []string{"message", "", strings.Repeat("t", 200), "two\nlines"}[i/3%4],
			Data: []byte(strings.Repeat([]string{"x", "x\r", "\n"}[i/20%3], i)),
		})
	}
	keys, values := writtenBlocks("s", want...)
	next, total := 0, uint64(0)
	for i, key := range keys {
		b, err := parseBlock(key, values[i])
		if err != nil {
			t.Fatal(err)
		}
		if b.first != uint64(next+1) || b.total != total {
			t.Fatalf("block of %d to %d after %d bytes; want %d, %d", b.first, b.last, b.total, next+1, total)
		}
		if b.first < b.last && len(values[i]) > blockSize {
			t.Errorf("the block of %d to %d has %d bytes", b.first, b.last, len(values[i]))
		}
		for d := b.events(); d.more(); {
			e := d.event
			w := want[next]
			if e.Seq != w.Seq || !e.Time.Equal(w.Time) || e.Type != w.Type || string(e.Data) != string(w.Data) {
				t.Fatalf("got %+v; want %+v", e, w)
			}
			next++
			total += uint64(e.size())
		}
	}
	if next != len(want) {
		t.Errorf("%d events; want %d", next, len(want))
	}
}
