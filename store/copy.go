package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// renumberBy is how much higher the sequences of a restored file are: more than can
// have been given out since the backup was taken.
const renumberBy = 1 << 32

// copyCommit is about how many bytes a copy writes in a transaction.
const copyCommit = 8 << 20

// A copier writes a new file of what a survey finds whole.
type copier struct {
	bolt  *bolt.DB
	path  string
	shift uint64 // is added to each sequence

	tx                  *bolt.Tx
	events, keys, order *bolt.Bucket
	size                int // of what was put in the transaction
	blocks              blockWriter
	total               uint64 // bytes of all events of the log up to the last one in blocks
	err                 error  // the first
}

// newCopier creates the file, which must not exist. Until it is finished it is not on
// the disk.
func newCopier(path string, mode fs.FileMode, shift uint64) (*copier, error) {
	b, err := bolt.Open(path, mode, &bolt.Options{
		PageSize:        pageSize,
		FreelistType:    bolt.FreelistMapType,
		InitialMmapSize: mmapSize,
		NoStatistics:    true,
		NoSync:          true,
		OpenFile: func(path string, flag int, mode os.FileMode) (*os.File, error) {
			return os.OpenFile(path, flag|os.O_EXCL, mode)
		},
	})
	if err != nil {
		return nil, err
	}
	c := &copier{bolt: b, path: path, shift: shift}
	c.blocks.put = func(k, v []byte) { c.put(c.events, k, v) }
	if err := b.Update(createBuckets); err != nil {
		return nil, errors.Join(err, c.abort())
	}
	if err := c.begin(); err != nil {
		return nil, errors.Join(err, c.abort())
	}
	return c, nil
}

func (c *copier) begin() (err error) {
	if c.tx, err = c.bolt.Begin(true); err != nil {
		return err
	}
	c.events, c.keys, c.order = c.tx.Bucket(eventsBucket), c.tx.Bucket(keysBucket), c.tx.Bucket(orderBucket)
	c.events.FillPercent = 1
	c.size = 0
	return nil
}

// put stores a pair, in a transaction with others. After an error it does nothing.
func (c *copier) put(b *bolt.Bucket, k, v []byte) {
	if c.err != nil {
		return
	}
	if c.err = b.Put(k, v); c.err != nil {
		return
	}
	if c.size += len(k) + len(v); c.size >= copyCommit {
		if c.err = c.tx.Commit(); c.err == nil {
			c.err = c.begin()
		}
	}
}

// add copies the block's events from one on.
func (c *copier) add(name string, b block, from uint64) {
	w := &c.blocks
	for d := b.events(); d.more(); {
		if d.seq < from {
			continue
		}
		e := d.event
		e.Seq += c.shift
		if w.count > 0 && (w.name != name || w.lastSeq+1 != e.Seq || c.total != d.total) {
			w.flush()
		}
		w.name, c.total = name, d.next
		w.add(&e, d.total)
	}
}

// has reports whether any event of the stream, from one to another, was copied.
func (c *copier) has(name string, first, last uint64) bool {
	c.blocks.flush()
	if c.err != nil {
		return true
	}
	key := blockKey(nil, name, first)
	k, v := c.events.Cursor().Seek(key)
	b, err := parseBlock(k, v)
	return err == nil && bytes.HasPrefix(k, key[:len(name)+1]) && b.first <= last
}

// receipt copies the receipt of a key, unless there is one.
func (c *copier) receipt(name string, k, digest []byte, r Receipt) {
	if c.err != nil || c.keys.Get(k) != nil {
		return
	}
	r.Last += c.shift
	k = bytes.Clone(k)
	v, order := encodeReceipt(name, k, digest, r)
	c.put(c.keys, k, v)
	c.put(c.order, order, nil)
}

// finish completes the file and has it on the disk.
func (c *copier) finish(m fileMeta, streams map[string]*surveyed) error {
	c.blocks.flush()
	if m.base > math.MaxUint64-renumberBy {
		c.err = errors.Join(c.err, errTooHigh)
	}
	for _, name := range slices.Sorted(maps.Keys(streams)) {
		s := streams[name].final()
		if c.shift > 0 && s.last >= math.MaxUint64-c.shift {
			c.err = errors.Join(c.err, fmt.Errorf("stream %q: %w", name, errTooHigh))
		}
		s.first, s.last = s.first+c.shift, s.last+c.shift
		if c.err == nil {
			c.put(c.tx.Bucket(stateBucket), []byte(name), s.encode(name))
		}
	}
	if c.err == nil {
		c.err = m.put(c.tx.Bucket(metaBucket))
	}
	if c.err == nil {
		c.err = c.tx.Commit()
	}
	if c.err == nil { // so that both meta pages say the same
		c.err = c.bolt.Update(func(*bolt.Tx) error { return nil })
	}
	if c.err == nil {
		c.err = c.bolt.Sync()
	}
	if c.err != nil {
		return errors.Join(c.err, c.abort())
	}
	return c.bolt.Close()
}

var errTooHigh = errors.New("the sequences are too high to be set higher")

// abort leaves nothing.
func (c *copier) abort() error {
	if c.tx != nil && c.tx.DB() != nil {
		_ = c.tx.Rollback() // what it would say is of no use
	}
	return errors.Join(c.bolt.Close(), os.Remove(c.path))
}
