package store

import (
	"bytes"
	"fmt"
	"iter"
	"sort"

	bolt "go.etcd.io/bbolt"
)

// A tree is a bucket of a transaction that writes. It looks at a leaf before bbolt
// changes it: bbolt believes what a leaf says of itself. Of one that goes on for too
// many pages it would free pages that are in use, and beside one whose first key is not
// the key that leads to it, it would keep an old page in its place.
type tree struct {
	*bolt.Bucket
	pages *pageReader
}

// A pageReader reads the pages as they are when a transaction begins.
type pageReader struct {
	opened *fileCheck // what was found then; its leaves are those not looked at since

	pages    uint64            // how many the file has
	branches map[uint64][]byte // that were read, by ID; nil for a leaf
	buffers  [][]byte          // for branches, of earlier transactions
	leaf     [checkPageSize]byte
}

// keptBuffers is how many buffers are kept for the next transaction.
const keptBuffers = 64

// begin forgets what was read.
func (r *pageReader) begin(tx *bolt.Tx) {
	r.pages = uint64(tx.Size()) / checkPageSize
	if r.branches == nil {
		r.branches = map[uint64][]byte{}
	}
	for _, b := range r.branches {
		if b != nil && len(r.buffers) < keptBuffers {
			r.buffers = append(r.buffers, b)
		}
	}
	clear(r.branches)
}

// tree returns a bucket of the transaction.
func (r *pageReader) tree(b *bolt.Bucket) *tree { return &tree{b, r} }

// Put is that of the bucket, where the leaf is sound.
func (t *tree) Put(key, value []byte) error {
	l, err := t.leafAt(key, false)
	if err == nil {
		err = t.look(l)
	}
	if err != nil {
		return err
	}
	return t.Bucket.Put(key, value)
}

// A place is where a leaf is: its page, the key that leads to it and the one that leads
// to the next. A leaf that is the root has no keys, the last one none to the next.
type place struct {
	id       uint64 // 0: the bucket has no page of its own, or no leaf need be looked at
	from, to []byte
}

// leafAt returns the place of the leaf where bbolt looks for a key, or of the one with
// the keys before it.
func (t *tree) leafAt(key []byte, before bool) (p place, err error) {
	if t.pages.opened.leafCount == 0 {
		return p, nil
	}
	p.id = uint64(t.Root())
	for range checkMaxHeight {
		if p.id == 0 || t.pages.opened.leaves.has(p.id) {
			return p, nil
		}
		branch, err := t.pages.branch(p.id)
		if branch == nil {
			return p, err
		}
		n := branchCount(branch)
		i, found := sort.Find(n, func(i int) int { return bytes.Compare(key, branchKey(branch, i)) })
		if !found || before {
			i = max(0, i-1)
		}
		if i+1 < n {
			p.to = branchKey(branch, i+1)
		}
		p.from, p.id = branchKey(branch, i), branchChild(branch, i)
	}
	return p, fmt.Errorf("%w: a tree goes on for ever", errUnreadable)
}

// places yields the leaves where keys from one up to another are, or would be: to the
// end, if that is nil.
func (t *tree) places(from, to []byte) iter.Seq2[place, error] {
	return func(yield func(place, error) bool) {
		for {
			p, err := t.leafAt(from, false)
			if !yield(p, err) || err != nil || p.to == nil || to != nil && bytes.Compare(p.to, to) >= 0 {
				return
			}
			from = p.to
		}
	}
}

// lookToRemove looks at the leaf of a key that is to be removed, and around.
func (t *tree) lookToRemove(key []byte) error {
	p, err := t.leafAt(key, false)
	if err != nil {
		return err
	}
	return t.lookAround(p)
}

// lookAround looks at a leaf and at its neighbours, with one of which bbolt merges it if
// what is removed leaves little.
func (t *tree) lookAround(p place) error {
	err := t.look(p)
	if p.from != nil && err == nil {
		err = t.lookAt(p.from, true)
	}
	if p.to != nil && err == nil {
		err = t.lookAt(p.to, false)
	}
	return err
}

func (t *tree) lookAt(key []byte, before bool) error {
	p, err := t.leafAt(key, before)
	if err != nil {
		return err
	}
	return t.look(p)
}

// look says, by an error that wraps errUnreadable, what is wrong with a leaf. One that
// was looked at before, or that bbolt wrote since, is sound.
func (t *tree) look(p place) error {
	if !t.pages.opened.leaves.has(p.id) {
		return nil
	}
	err := t.pages.look(p)
	if err == nil {
		t.pages.opened.leaves.remove(p.id)
		t.pages.opened.leafCount--
	}
	return err
}

// look reads of a leaf its head, its elements and its keys.
func (r *pageReader) look(p place) error {
	page := r.leaf[:]
	if err := r.read(page, p.id, 0); err != nil {
		return err
	}
	wrong := func(what string) error { return fmt.Errorf("%w: page %d %s", errUnreadable, p.id, what) }
	count, pages := int(checkOrder.Uint16(page[10:])), uint64(checkOrder.Uint32(page[12:]))+1
	end := uint64(checkHeadSize + count*checkElementSize)
	switch {
	case checkOrder.Uint64(page) != p.id || checkOrder.Uint16(page[8:]) != checkLeaf:
		return wrong("is not the leaf that it should be")
	case pages > r.pages-p.id || end > pages*checkPageSize || count == 0 && p.from != nil:
		return wrong("has a wrong head")
	case end > checkPageSize:
		page = make([]byte, end)
		if err := r.read(page, p.id, 0); err != nil {
			return err
		}
	}
	for id := p.id + 1; id < p.id+pages; id++ {
		if r.opened.used.has(id) {
			return wrong("goes on over pages that are not its own")
		}
	}
	last, key := []byte(nil), []byte(nil)
	for i := range count {
		e := page[checkHeadSize+i*checkElementSize:]
		at := uint64(checkHeadSize+i*checkElementSize) + uint64(checkOrder.Uint32(e[4:]))
		keySize, valueSize := uint64(checkOrder.Uint32(e[8:])), uint64(checkOrder.Uint32(e[12:]))
		if checkOrder.Uint32(e) != 0 || at != end || keySize > bolt.MaxKeySize || end+keySize+valueSize > pages*checkPageSize {
			return wrong("has an element in a wrong place")
		}
		if end+keySize <= uint64(len(page)) {
			key = page[end : end+keySize]
		} else {
			key = make([]byte, keySize)
			if err := r.read(key, p.id, end); err != nil {
				return err
			}
		}
		switch {
		case bytes.Compare(key, last) <= 0:
			return wrong("has keys out of order")
		case i == 0 && p.from != nil && !bytes.Equal(key, p.from):
			return wrong("begins with another key than the one that leads to it")
		case p.to != nil && bytes.Compare(key, p.to) >= 0:
			return wrong("has keys of the next one")
		}
		last = key
		end += keySize + valueSize
	}
	if (end-1)/checkPageSize != pages-1 {
		return wrong("goes on for a wrong number of pages")
	}
	return nil
}

// branch returns a branch page, or nil for a leaf. Opening the file has checked all
// branches that there were.
func (r *pageReader) branch(id uint64) ([]byte, error) {
	if b, ok := r.branches[id]; ok {
		return b, nil
	}
	var b []byte
	if n := len(r.buffers); n > 0 {
		b, r.buffers = r.buffers[n-1][:checkPageSize], r.buffers[:n-1]
	} else {
		b = make([]byte, checkPageSize)
	}
	if err := r.read(b, id, 0); err != nil {
		return nil, err
	}
	if checkOrder.Uint16(b[8:]) != checkBranch {
		r.buffers = append(r.buffers, b)
		b = nil
	} else if pages := int(checkOrder.Uint32(b[12:])) + 1; pages > 1 {
		b = make([]byte, pages*checkPageSize)
		if err := r.read(b, id, 0); err != nil {
			return nil, err
		}
	}
	r.branches[id] = b
	return b, nil
}

// read fills b from a place in a page.
func (r *pageReader) read(b []byte, id, at uint64) error {
	if id < 2 || id >= r.pages {
		return fmt.Errorf("%w: there is no page %d", errUnreadable, id)
	}
	if _, err := r.opened.f.ReadAt(b, int64(id*checkPageSize+at)); err != nil {
		return fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return nil
}

func branchCount(branch []byte) int { return int(checkOrder.Uint16(branch[10:])) }

func branchChild(branch []byte, i int) uint64 {
	return checkOrder.Uint64(branch[checkHeadSize+i*checkElementSize+8:])
}

func branchKey(branch []byte, i int) []byte {
	e := branch[checkHeadSize+i*checkElementSize:]
	return e[checkOrder.Uint32(e):][:checkOrder.Uint32(e[4:])]
}

// later returns the key that comes after the other.
func later(a, b []byte) []byte {
	if bytes.Compare(a, b) < 0 {
		return b
	}
	return a
}
