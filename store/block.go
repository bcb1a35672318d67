package store

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"iter"
	"math"
	"time"
)

// A block is the stored form of consecutive events of one log. Its key is
//
//	stream name, 0x00, sequence of the last event (8 bytes)
//
// so that seeking a sequence finds the block that holds it. Its value is
//
//	CRC-32C of the key and of what follows (4)
//	time of the first event, Unix nanoseconds (8)
//	bytes of all events of the log before this block (8)
//	number of events (2)
//	each event: time since the one before, length of type, type, length of data, data
//
// with lengths and times as uvarints and all else big-endian. The running total of
// bytes lets retention be reckoned from any block that is whole.
const (
	// blockSize is below half a page of 4 KiB, so that two blocks fill a page and
	// an append rewrites no more than one neighbour. An event that is larger than
	// that is a block of its own.
	blockSize   = 1950
	blockHeader = 4 + 8 + 8 + 2
	maxInBlock  = 1<<16 - 1
)

var (
	castagnoli  = crc32.MakeTable(crc32.Castagnoli)
	errNotBlock = errors.New("not whole")
)

// blockKey appends the key of the block that ends with seq.
func blockKey(dst []byte, name string, seq uint64) []byte {
	dst = append(append(dst, name...), 0)
	return binary.BigEndian.AppendUint64(dst, seq)
}

// crcOf is the CRC-32C of a key and of its value after the CRC.
func crcOf(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value[4:])
}

// A blockWriter packs consecutive events into blocks.
type blockWriter struct {
	name string
	put  func(key, value []byte)

	buf      []byte // the open block; empty if there is none
	count    int
	lastSeq  uint64
	lastTime int64
}

// add stores e; total is the bytes of all events of the log before it.
func (w *blockWriter) add(e *Event, total uint64) {
	need := 3*binary.MaxVarintLen64 + e.size()
	if w.count > 0 && (len(w.buf)+need > blockSize || w.count == maxInBlock) {
		w.flush()
	}
	at := e.Time.UnixNano()
	if w.count == 0 {
		w.buf = make([]byte, blockHeader, max(blockSize, blockHeader+need))
		binary.BigEndian.PutUint64(w.buf[4:], uint64(at))
		binary.BigEndian.PutUint64(w.buf[12:], total)
		w.lastTime = at
	}
	w.buf = binary.AppendUvarint(w.buf, uint64(at-w.lastTime))
	w.buf = binary.AppendUvarint(w.buf, uint64(len(e.Type)))
	w.buf = append(w.buf, e.Type...)
	w.buf = binary.AppendUvarint(w.buf, uint64(len(e.Data)))
	w.buf = append(w.buf, e.Data...)
	w.count++
	w.lastSeq, w.lastTime = e.Seq, at
}

// flush stores the open block, if there is one.
func (w *blockWriter) flush() {
	if w.count == 0 {
		return
	}
	key := blockKey(nil, w.name, w.lastSeq)
	binary.BigEndian.PutUint16(w.buf[20:], uint16(w.count))
	binary.BigEndian.PutUint32(w.buf, crcOf(key, w.buf))
	w.put(key, w.buf)
	w.buf, w.count = nil, 0
}

// A block is a stored block whose CRC holds.
type block struct {
	first, last uint64
	time        int64  // of the first event
	total       uint64 // bytes of all events of the log before first
	body        []byte
}

// parseBlock checks a stored block. It fails on one that is not whole.
func parseBlock(key, value []byte) (block, error) {
	if len(key) < 8 || len(value) < blockHeader || binary.BigEndian.Uint32(value) != crcOf(key, value) {
		return block{}, errNotBlock
	}
	last := binary.BigEndian.Uint64(key[len(key)-8:])
	count := uint64(binary.BigEndian.Uint16(value[20:]))
	if count == 0 || count > last || last == math.MaxUint64 {
		return block{}, errNotBlock
	}
	return block{
		first: last - count + 1,
		last:  last,
		time:  int64(binary.BigEndian.Uint64(value[4:])),
		total: binary.BigEndian.Uint64(value[12:]),
		body:  value[blockHeader:],
	}, nil
}

// events yields the block's events, each with the bytes of the log before it.
// Data is part of the block. A body that does not parse ends it early.
func (b block) events() iter.Seq2[Event, uint64] {
	return func(yield func(Event, uint64) bool) {
		at, total, typ := b.time, b.total, ""
		d := decoder{b.body}
		for seq := b.first; seq <= b.last; seq++ {
			since, t, data := d.uvarint(), d.bytes(), d.bytes()
			if d.buf == nil {
				return
			}
			if string(t) != typ {
				typ = string(t)
			}
			at += int64(since)
			e := Event{Seq: seq, Time: time.Unix(0, at), Type: typ, Data: data}
			if !yield(e, total) {
				return
			}
			total += uint64(e.size())
		}
	}
}

// A decoder reads the fields of a block's body; after a field that does not
// parse, buf is nil.
type decoder struct{ buf []byte }

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.buf)
	if n <= 0 {
		d.buf = nil
		return 0
	}
	d.buf = d.buf[n:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.buf)) {
		d.buf = nil
	}
	if d.buf == nil {
		return nil
	}
	b := d.buf[:n:n]
	d.buf = d.buf[n:]
	return b
}
