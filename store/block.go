package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"slices"
	"strings"
	"time"

	"lastevent/stream/sse"
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
//	form (1), length of the index (3)
//	index, of each event: time since the one before, length of what there is of it
//	what there is of each event
//
// with lengths and times in the index as uvarints and all else big-endian. What there
// is of an event is, in the form text, what goes over the wire, so that a replay only
// copies; in the form fields, for what would not come back from the wire as it was,
// its type and its data, the length of the type before them as a uvarint. The running
// total of bytes lets retention be reckoned from any block that is whole.
const (
	// blockSize is below half a page of 4 KiB, so that two blocks fill a page and
	// an append rewrites no more than one neighbour. An event that is larger than
	// that is a block of its own.
	blockSize   = 1950
	blockHeader = 4 + 8 + 8 + 2 + 4
	maxInBlock  = 1<<16 - 1
)

// A form is how events are stored in a block.
type form byte

const (
	formText form = iota
	formFields
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

	// The open block; count is 0 if there is none.
	form             form
	header           [blockHeader]byte
	index, body, one []byte
	count            int
	lastSeq          uint64
	lastTime         int64
}

// add stores e; total is the bytes of all events of the log before it.
func (w *blockWriter) add(e *Event, total uint64) {
	f := w.encode(e)
	need := blockHeader + len(w.index) + 2*binary.MaxVarintLen64 + len(w.body) + len(w.one)
	if w.count > 0 && (f != w.form || need > blockSize || w.count == maxInBlock) {
		w.flush()
	}
	at := e.Time.UnixNano()
	if w.count == 0 {
		w.form, w.lastTime = f, at
		binary.BigEndian.PutUint64(w.header[4:], uint64(at))
		binary.BigEndian.PutUint64(w.header[12:], total)
	}
	w.index = binary.AppendUvarint(w.index, uint64(at-w.lastTime))
	w.index = binary.AppendUvarint(w.index, uint64(len(w.one)))
	w.body = append(w.body, w.one...)
	w.count++
	w.lastSeq, w.lastTime = e.Seq, at
}

// encode sets one to what is stored of the event.
func (w *blockWriter) encode(e *Event) form {
	if strings.ContainsAny(e.Type, "\r\n") || bytes.IndexByte(e.Data, '\r') >= 0 {
		w.one = binary.AppendUvarint(w.one[:0], uint64(len(e.Type)))
		w.one = append(append(w.one, e.Type...), e.Data...)
		return formFields
	}
	w.one = sse.AppendEvent(w.one[:0], e.Type, e.Seq, e.Data)
	return formText
}

// flush stores the open block, if there is one.
func (w *blockWriter) flush() {
	if w.count == 0 {
		return
	}
	key := blockKey(nil, w.name, w.lastSeq)
	value := slices.Concat(w.header[:], w.index, w.body)
	binary.BigEndian.PutUint16(value[20:], uint16(w.count))
	binary.BigEndian.PutUint32(value[22:], uint32(w.form)<<24|uint32(len(w.index)))
	binary.BigEndian.PutUint32(value, crcOf(key, value))
	w.put(key, value)
	w.index, w.body, w.count = w.index[:0], w.body[:0], 0
}

// A block is a stored block whose CRC holds.
type block struct {
	first, last uint64
	time        int64  // of the first event
	total       uint64 // bytes of all events of the log before first
	form        form
	index, body []byte
}

// parseBlock checks a stored block. It fails on one that is not whole.
func parseBlock(key, value []byte) (block, error) {
	if len(key) < 8 || len(value) < blockHeader || binary.BigEndian.Uint32(value) != crcOf(key, value) {
		return block{}, errNotBlock
	}
	last := binary.BigEndian.Uint64(key[len(key)-8:])
	count := uint64(binary.BigEndian.Uint16(value[20:]))
	form, index := form(value[22]), binary.BigEndian.Uint32(value[22:])&(1<<24-1)
	rest := value[blockHeader:]
	if count == 0 || count > last || last == math.MaxUint64 || form > formFields || uint64(index) > uint64(len(rest)) {
		return block{}, errNotBlock
	}
	return block{
		first: last - count + 1,
		last:  last,
		time:  int64(binary.BigEndian.Uint64(value[4:])),
		total: binary.BigEndian.Uint64(value[12:]),
		form:  form,
		index: rest[:index],
		body:  rest[index:],
	}, nil
}

// text returns what goes over the wire of the events from one to another, both of
// which it holds; nil where it does not parse. The form must be text.
func (b block) text(from, to uint64) []byte {
	if from == b.first && to == b.last {
		return b.body
	}
	start, end := uint64(0), uint64(0)
	d := decoder{index: b.index}
	for seq := b.first; seq <= to; seq++ {
		if seq == from {
			start = end
		}
		d.uvarint()
		if end += d.uvarint(); d.index == nil || end > uint64(len(b.body)) {
			return nil
		}
	}
	return b.body[start:end]
}

// events returns a decoder in front of the block's first event.
func (b block) events() decoder {
	return decoder{form: b.form, index: b.index, body: b.body, left: b.last - b.first + 1, seq: b.first - 1, time: b.time, next: b.total}
}

// A decoder goes through the events of a block. What does not parse ends it early.
type decoder struct {
	event Event  // Data may be part of the block
	seq   uint64 // the event's
	time  int64  // the event's, Unix nanoseconds
	total uint64 // bytes of all events of the log before it

	form  form
	index []byte // of the events after it; nil after what does not parse
	body  []byte
	left  uint64 // so many
	next  uint64 // total of the one after it
}

// more moves on to the next event, if there is one.
func (d *decoder) more() bool {
	if d.left == 0 {
		return false
	}
	since, n := d.uvarint(), d.uvarint()
	if d.index == nil || n > uint64(len(d.body)) {
		d.left = 0
		return false
	}
	one := d.body[:n:n]
	d.body = d.body[n:]
	var typ []byte
	if typ, d.event.Data = fieldsOf(d.form, one); typ == nil {
		d.left = 0
		return false
	}
	if string(typ) != d.event.Type {
		d.event.Type = string(typ)
	}
	d.left--
	d.seq++
	d.time += int64(since)
	d.total = d.next
	d.next += uint64(d.event.size())
	d.event.Seq, d.event.Time = d.seq, time.Unix(0, d.time)
	return true
}

// fieldsOf returns the type and the data of what there is of an event. The type is
// nil where that does not parse.
func fieldsOf(f form, one []byte) (typ, data []byte) {
	if f == formText {
		return sse.Fields(one)
	}
	n, size := binary.Uvarint(one)
	if size <= 0 || n > uint64(len(one)-size) {
		return nil, nil
	}
	one = one[size:]
	return one[:n:n], one[n:]
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.index)
	if n <= 0 {
		d.index = nil
		return 0
	}
	d.index = d.index[n:]
	return v
}
