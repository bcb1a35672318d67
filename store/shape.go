package store

import (
	"bytes"
	"encoding/binary"
)

// What follows the name and its NUL in the keys of the buckets. As no name holds a NUL,
// it tells by itself which bucket a key is of.
const (
	blockTail  = 8
	recordTail = keyHash
	orderTail  = 8 + keyHash
)

func isStateKey(key []byte) bool  { return len(key) > 0 && bytes.IndexByte(key, 0) < 0 }
func isBlockKey(key []byte) bool  { return nameOf(key, blockTail) != "" }
func isRecordKey(key []byte) bool { return nameOf(key, recordTail) != "" }
func isOrderKey(key []byte) bool  { return nameOf(key, orderTail) != "" }

// nameOf returns the name in a key with so many bytes behind; empty if it is none.
func nameOf(key []byte, tail int) string {
	end := len(key) - tail - 1
	if end <= 0 || bytes.IndexByte(key, 0) != end {
		return ""
	}
	return string(key[:end])
}

func bigEndian(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

// parses reports whether all of the block's events do.
func (b block) parses() bool {
	n, d := uint64(0), b.events()
	for d.more() {
		n++
	}
	return n == b.last-b.first+1 && len(d.index) == 0 && len(d.body) == 0
}

// span returns the edges of the block's events from one on: at the first, and behind
// the last with its time. Ascending says whether their times do, and bytes is their size.
func (b block) span(from uint64) (low, high edge, ascending bool, bytes uint64) {
	ascending = true
	for d := b.events(); d.more(); {
		switch {
		case d.seq < from:
			continue
		case d.seq == from:
			low = edge{d.seq, d.time, d.total}
		case d.time < high.time:
			ascending = false
		}
		bytes += uint64(d.event.size())
		high = edge{d.seq + 1, d.time, d.next}
	}
	return low, high, ascending, bytes
}
