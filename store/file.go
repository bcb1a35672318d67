package store

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"slices"
)

// A fileReader reads a file that nobody writes to, page by page, and goes by nothing
// in it that it has not looked at: no damage makes it fault, run in circles, or take
// more memory than an event and two bits for each page that the file has.
//
// What is not as it should be is reported, and what there is of it is handed on all
// the same: blocks, states and receipts have checksums of their own.
type fileReader struct {
	fileCheck
	meta    checkMeta
	size    int64
	torn    bool    // one of the meta pages is not intact
	free    pageSet // the pages of the free list; nil if that is not whole
	freed   uint64  // how many they are
	before  pageSet // used, as it was before the trees were gone through
	buckets map[string]bucketRef
	// rootDamaged: not all buckets may be there.
	rootDamaged bool
	damaged     func(error)
}

// A bucketRef is where a bucket is: its root page; 0 if that is inline.
type bucketRef struct {
	root   uint64
	inline []byte
}

// A pair is an element of a leaf.
type pair struct {
	flags      uint32
	key, value []byte
}

// openPages opens the file for reading, locked against those that write. The errors
// are those of Open; any other damage is told to damaged.
func openPages(path string, damaged func(error)) (p *fileReader, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err = lockShared(f, lockTimeout); err == nil {
		_ = dropCache(f) // not on all file systems
		p, err = readPages(f, damaged)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return p, nil
}

// readPages is openPages for a file that is open, and that nobody writes to.
func readPages(f *os.File, damaged func(error)) (*fileReader, error) {
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%w: it is not a regular file", ErrForeign)
	case info.Size() == 0:
		return nil, fmt.Errorf("%w: it is empty", ErrForeign)
	}
	m, err := readCheckMeta(f)
	if err != nil {
		return nil, err
	}
	p := &fileReader{meta: m, size: info.Size(), buckets: map[string]bucketRef{}, damaged: damaged}
	p.f, p.pages = f, m.pages
	if held := uint64(p.size) / checkPageSize; m.pages > held {
		damaged(fmt.Errorf("it is truncated: it should hold at least %d bytes and has %d", m.pages*checkPageSize, p.size))
		p.pages = max(held, 2)
	}
	p.used = newPageSet(p.pages)
	p.torn = !metaIntact(f, 0) || !metaIntact(f, 1)
	if err := p.readFree(); err != nil {
		damaged(err)
		clear(p.used) // what it claimed
	}
	err = p.readRoot()
	p.before = slices.Clone(p.used)
	return p, err
}

// metaIntact reports whether a meta page has its checksum.
func metaIntact(f io.ReaderAt, id int64) bool {
	var b [checkMetaSize + 8]byte
	if _, err := f.ReadAt(b[:], id*checkPageSize+checkHeadSize); err != nil {
		return false
	}
	sum := fnv.New64a()
	sum.Write(b[:checkMetaSize])
	return sum.Sum64() == checkOrder.Uint64(b[checkMetaSize:])
}

// again forgets what was met in the trees, so that they can be gone through once more.
func (p *fileReader) again() { copy(p.used, p.before) }

// readFree reads the free list, which is taken as a whole or not at all.
func (p *fileReader) readFree() error {
	if err := p.checkFreeList(p.meta.freeList); err != nil {
		return err
	}
	h, err := p.readHead("free list", p.meta.freeList, checkFreeList)
	if err != nil {
		return err
	}
	next, n := p.readIDs(p.meta.freeList, h.pages), uint64(h.count)
	if n == 0xFFFF {
		if n, err = next(); err != nil {
			return err
		}
	}
	free := newPageSet(p.pages)
	for range n {
		id, err := next()
		if err != nil {
			return err
		}
		free.add(id)
	}
	p.free, p.freed = free, n
	clear(p.used) // to which the check has added what is free
	return p.use("free list", p.meta.freeList, h.pages)
}

// readRoot finds the buckets. Where the page that holds them is damaged, some are
// missing; where it is whole and holds others, the file is foreign.
func (p *fileReader) readRoot() error {
	pairs, h, err := p.leaf("root", p.meta.root)
	if err == nil {
		err = p.use("root", p.meta.root, h.pages)
	}
	if err != nil {
		p.damaged(err)
	}
	ours := err != nil
	p.rootDamaged = err != nil
	for _, e := range pairs {
		if e.flags != checkIsBucket || len(e.value) < checkBucketSize {
			p.damaged(fmt.Errorf("%w: root page %d holds what is not a bucket", ErrDamaged, p.meta.root))
			continue
		}
		p.buckets[string(e.key)] = bucketRef{checkOrder.Uint64(e.value), bytes.Clone(e.value[checkBucketSize:])}
	}
	for _, name := range allBuckets {
		_, found := p.buckets[string(name)]
		ours = ours || found
	}
	if !ours {
		return fmt.Errorf("%w: it is another program's bbolt file", ErrForeign)
	}
	return nil
}

// bucket calls visit with what a bucket holds, in its order. Keys and values are valid
// only during the call. belongs says whether a key is one of the bucket.
func (p *fileReader) bucket(name string, belongs func(key []byte) bool, visit func(key, value []byte)) {
	ref, ok := p.buckets[name]
	if !ok {
		p.damaged(fmt.Errorf("%w: the bucket %s is missing", ErrDamaged, name))
		return
	}
	t := treeWalk{p, name, belongs, visit, nil}
	if ref.root != 0 {
		t.page(ref.root, nil, nil, 0)
		return
	}
	where := "the bucket " + name
	if len(ref.inline) < checkHeadSize || checkOrder.Uint16(ref.inline[8:]) != checkLeaf {
		p.damaged(fmt.Errorf("%w: %s has a wrong head", ErrDamaged, where))
	}
	pairs, _, err := pairsOf(where, ref.inline)
	if err != nil {
		p.damaged(err)
	}
	t.pairs(where, pairs, nil, nil)
}

// A treeWalk goes through the tree of one bucket.
type treeWalk struct {
	p       *fileReader
	bucket  string
	belongs func(key []byte) bool
	visit   func(key, value []byte)
	last    []byte // the key visited last
}

// page goes through the tree below a page, whose keys are from low on and before high;
// nil is no bound.
func (t *treeWalk) page(id uint64, low, high []byte, depth int) {
	p := t.p
	what := "bucket " + t.bucket + " has"
	switch {
	case id < 2 || id >= p.pages:
		p.damaged(fmt.Errorf("%w: %s page %d, which is not one of 2 to %d", ErrDamaged, what, id, p.pages-1))
		return
	case p.used.has(id):
		p.damaged(fmt.Errorf("%w: %s page %d, which is used twice", ErrDamaged, what, id))
		return
	case p.free.has(id):
		p.damaged(fmt.Errorf("%w: %s page %d, which is free", ErrDamaged, what, id))
	}
	h, err := p.readHead(what, id, checkLeaf, checkBranch)
	if err == nil && h.kind == checkBranch {
		t.branch(h, id, low, high, depth)
		return
	}
	pairs, leaf, err2 := p.leaf(what, id)
	if err == nil {
		err = err2
	}
	if err != nil {
		p.damaged(err)
	}
	if len(pairs) > 0 && !t.any(pairs, low, high) {
		// It is another tree's page, or one whose keys are damaged: it is left to who
		// finds use for it.
		p.damaged(fmt.Errorf("%w: %s page %d, which belongs elsewhere", ErrDamaged, what, id))
		return
	}
	if err := p.use(what, id, leaf.pages); err != nil {
		p.damaged(err)
		return
	}
	t.pairs(leaf.name, pairs, low, high)
}

func (t *treeWalk) branch(h checkHead, id uint64, low, high []byte, depth int) {
	p := t.p
	if depth == checkMaxHeight {
		p.damaged(fmt.Errorf("%w: the tree of bucket %s goes on for ever", ErrDamaged, t.bucket))
		return
	}
	says := h.pages
	h.pages = min(says, checkMaxPages)
	page, err := p.readPage(h, id)
	if err != nil {
		p.damaged(err)
		return
	}
	children, size, err := childrenOf(h, page)
	if h.pages = (size-1)/checkPageSize + 1; h.pages != says && err == nil {
		err = fmt.Errorf("%w: %s goes on for %d pages and holds %d bytes", ErrDamaged, h.name, says, size)
	}
	if err != nil {
		p.damaged(err)
	}
	if err := p.use(h.name, id, h.pages); err != nil {
		p.damaged(err)
		return
	}
	for _, c := range children {
		if c.id > 1 && c.id < p.pages {
			readAhead(p.f, int64(c.id)*checkPageSize, checkPageSize)
		}
	}
	for i, c := range children {
		from, to := low, high
		if i > 0 {
			from = c.key
		}
		if i+1 < len(children) {
			to = children[i+1].key
		}
		t.page(c.id, from, to, depth+1)
	}
}

// any reports whether any of the pairs may be where it is.
func (t *treeWalk) any(pairs []pair, low, high []byte) bool {
	for _, e := range pairs {
		if t.belongs(e.key) && within(e.key, low, high) {
			return true
		}
	}
	return false
}

func within(key, low, high []byte) bool {
	return (low == nil || bytes.Compare(key, low) >= 0) && (high == nil || bytes.Compare(key, high) < 0)
}

func (t *treeWalk) pairs(where string, pairs []pair, low, high []byte) {
	for i, e := range pairs {
		switch {
		case e.flags != 0:
			t.p.damaged(fmt.Errorf("%w: element %d of %s is not a value", ErrDamaged, i, where))
		case !within(e.key, low, high) || bytes.Compare(e.key, t.last) <= 0:
			t.p.damaged(fmt.Errorf("%w: element %d of %s is out of order", ErrDamaged, i, where))
		default:
			t.last = append(t.last[:0], e.key...)
		}
		t.visit(e.key, e.value)
	}
}

// A branchElement is what a branch page holds of a child.
type branchElement struct {
	id  uint64
	key []byte // nil if it cannot be gone by
}

// childrenOf returns the children that a branch page names and the bytes that it takes,
// also where the error says that not all is as it should be.
func childrenOf(h checkHead, page []byte) (children []branchElement, size uint64, err error) {
	elements := page[checkHeadSize:]
	n := min(int(h.count), len(elements)/checkElementSize)
	if n == 0 || n < int(h.count) {
		err = fmt.Errorf("%w: %s has %d elements", ErrDamaged, h.name, h.count)
	}
	var before []byte
	expected := uint64(n * checkElementSize) // keys follow the elements, without a hole
	for i := range n {
		at := i * checkElementSize
		c := branchElement{id: checkOrder.Uint64(elements[at+8:])}
		start := uint64(at) + uint64(checkOrder.Uint32(elements[at:]))
		end := start + uint64(checkOrder.Uint32(elements[at+4:]))
		if start != expected && err == nil {
			err = fmt.Errorf("%w: %s has element %d in a wrong place", ErrDamaged, h.name, i)
		}
		expected = end
		if end <= uint64(len(elements)) && bytes.Compare(elements[start:end], before) > 0 {
			c.key = elements[start:end]
			before = c.key
		} else {
			err = fmt.Errorf("%w: %s has element %d out of order", ErrDamaged, h.name, i)
		}
		children = append(children, c)
	}
	return children, min(expected+checkHeadSize, uint64(len(page))), err
}

// maxUnsure is the size up to which a leaf is read whose head does not say so.
const maxUnsure = 64 << 20

// leaf reads a page as a leaf, whatever its head says, and returns what it makes of it
// beside the error that says what is wrong. The head has the pages that it takes.
func (p *fileReader) leaf(what string, id uint64) ([]pair, checkHead, error) {
	h, err := p.readHead(what, id, checkLeaf)
	if err != nil {
		h = checkHead{name: fmt.Sprintf("%s page %d", what, id), kind: checkLeaf, pages: 1}
	}
	page := make([]byte, checkPageSize)
	if id < 2 || id >= p.pages {
		return nil, h, err
	}
	if err := p.read(page, id); err != nil {
		return nil, h, err
	}
	pairs, size, err2 := pairsOf(h.name, page)
	limit := max(h.pages, min(p.pages-id, maxUnsure/checkPageSize))
	if size > len(page) && uint64(size) <= limit*checkPageSize {
		page = make([]byte, size)
		if err := p.read(page, id); err != nil {
			return nil, h, err
		}
		pairs, size, err2 = pairsOf(h.name, page)
	}
	takes := uint64(max(size, 1)-1)/checkPageSize + 1
	switch {
	case err == nil && err2 == nil && takes != h.pages:
		err = fmt.Errorf("%w: %s goes on for %d pages and holds %d bytes", ErrDamaged, h.name, h.pages, size)
	case err == nil:
		err = err2
	}
	if err != nil {
		if h.pages = 1; takes <= limit {
			h.pages = takes
		}
	}
	return pairs, h, err
}

// pairsOf returns the elements of a leaf that lie within it, and the size that all
// should take. An error says that not all is as it should be.
func pairsOf(name string, page []byte) (pairs []pair, size int, err error) {
	if len(page) < checkHeadSize {
		return nil, 0, fmt.Errorf("%w: %s has %d bytes", ErrDamaged, name, len(page))
	}
	elements := page[checkHeadSize:]
	count := int(checkOrder.Uint16(page[10:]))
	if len(elements) == 0 && count == 0 {
		return nil, len(page), nil // the page of an empty bucket
	}
	n := countOf(elements, count)
	if n != count || count == 0 {
		err = fmt.Errorf("%w: %s should have %d elements and says %d", ErrDamaged, name, n, count)
	}
	if most := len(elements) / checkElementSize; n > most {
		err = fmt.Errorf("%w: %s has no room for %d elements", ErrDamaged, name, n)
		n = most
	}
	end := uint64(n * checkElementSize)
	for i := range n {
		at := i * checkElementSize
		start := uint64(at) + uint64(checkOrder.Uint32(elements[at+4:]))
		if start != end {
			if err == nil {
				err = fmt.Errorf("%w: %s has element %d in a wrong place", ErrDamaged, name, i)
			}
			if i == 0 {
				start = end // of all that countOf went by
			}
		}
		keyEnd := start + uint64(checkOrder.Uint32(elements[at+8:]))
		end = keyEnd + uint64(checkOrder.Uint32(elements[at+12:]))
		if end <= uint64(len(elements)) {
			pairs = append(pairs, pair{checkOrder.Uint32(elements[at:]), elements[start:keyEnd], elements[keyEnd:end]})
		}
	}
	if err == nil && len(pairs) < n {
		err = fmt.Errorf("%w: %s holds %d bytes on %d", ErrDamaged, name, end, len(elements))
	}
	return pairs, int(min(end, 1<<40)) + checkHeadSize, err
}

// countOf returns how many elements there are. The first key follows them, so that its
// place tells as well as the count; where these differ, the second element tells which
// is right, as its key follows the first one's value.
func countOf(elements []byte, count int) int {
	if len(elements) < 2*checkElementSize {
		return count
	}
	first, second := elements, elements[checkElementSize:]
	placed := int64(checkOrder.Uint32(first[4:]))
	next := checkElementSize + int64(checkOrder.Uint32(second[4:])) -
		int64(checkOrder.Uint32(first[8:])) - int64(checkOrder.Uint32(first[12:]))
	byPlace := int(placed / checkElementSize)
	switch {
	case placed == int64(count)*checkElementSize, placed%checkElementSize != 0:
		return count
	case count > 1 && next == int64(count)*checkElementSize:
		return count
	case byPlace > 1 && next == placed, byPlace == 1 && count != 1:
		return byPlace
	}
	return count
}

// orphans returns the leaves that no tree leads to and that are not free: those below
// damaged pages. What is free is of older commits, and must not come back. The trees
// must have been gone through; without a whole free list there are none.
func (p *fileReader) orphans() (ids []uint64) {
	if p.free == nil {
		return nil
	}
	for id := uint64(2); id < p.pages; id++ {
		if p.used.has(id) || p.free.has(id) {
			continue
		}
		if h, err := p.readHead("", id, checkLeaf); err == nil {
			ids = append(ids, id)
			id += h.pages - 1
		}
	}
	return ids
}

// unaccounted is how many pages are neither in use nor free.
func (p *fileReader) unaccounted() (n int) {
	for id := uint64(2); id < p.pages; id++ {
		if !p.used.has(id) && !p.free.has(id) {
			n++
		}
	}
	return n
}
