package store

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"slices"
)

var (
	// ErrForeign: the file is not a log of lastevent. It is empty, another
	// program's, or made with other settings.
	ErrForeign = errors.New("is not a lastevent log")
	// ErrDamaged: the file is truncated or its content makes no sense.
	ErrDamaged = errors.New("is damaged")
)

// The layout of a bbolt file, in the byte order of the machine:
//
//	page    ID u64, kind u16, count u16, overflow u32, then the elements of a leaf
//	        or the IDs of a free list; overflow is how many pages it goes on for
//	meta    in pages 0 and 1, after 16 bytes: magic u32, version u32, page size u32,
//	        flags u32, root bucket, free list's page u64, number of pages u64,
//	        transaction u64, FNV-1a of all these u64
//	bucket  root page u64, sequence u64; root 0: its only page follows at once
//	element of a leaf: flags u32, position u32, key size u32, value size u32
//	element of a branch: position u32, key size u32, page u64
//
// A position counts from the start of its element; keys and values follow the
// elements in their order, without a hole. A free list of 0xFFFF IDs or more has
// that as its count, and the true one before the IDs.
const (
	checkPageSize    = 4096
	checkHeadSize    = 16 // before the elements, the IDs or the meta
	checkMetaSize    = 56 // before the checksum
	checkBucketSize  = 16
	checkElementSize = 16

	checkMagic      = 0xED0CDAED
	checkVersion    = 2
	checkNoFreeList = 1<<64 - 1 // as its page

	checkBranch   = 0x01 // the kinds of pages
	checkLeaf     = 0x02
	checkFreeList = 0x10

	checkIsBucket = 0x01 // the flag of an element

	// checkMaxPages is more than a root or a branch page goes on for: bbolt splits a
	// page of more than four elements, and one is at most a key of 32 KiB and 1 KiB.
	checkMaxPages = 64
	// checkMaxHeads is of how many pages a file has, at most, where the heads of all
	// leaves are read.
	checkMaxHeads = 4096
	// checkMaxHeight is more than the branch pages of a tree on top of one another.
	checkMaxHeight = 32
)

var checkOrder = binary.NativeEndian

// checkFile says why bbolt must not open f, or nil. bbolt maps the file into memory
// and believes it: a damaged one makes it panic, partly in a goroutine of its own,
// or kills the process by a fault.
//
// Checked is what bbolt relies on to open it, and to find its way to a leaf: the meta
// pages, the size, the free list, the root page, the heads of the pages it names, and
// which pages the branch pages name. Each page may be in one place only: bbolt would
// follow a loop for ever, and take for current what is a free page of an older commit.
// Of the leaves below branch pages no more than the heads are read, and of a large file
// not these: a commit looks at those that it changes.
//
// f is only read: a page in a hundred, as a rule, and the free list. It takes two bits
// of memory a page. Errors other than ErrForeign and ErrDamaged are those of reading f.
func checkFile(f *os.File) (*fileCheck, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: it is not a regular file", ErrForeign)
	}
	if info.Size() == 0 {
		return nil, fmt.Errorf("%w: it is empty; if it is not wanted, remove it and a new one is made", ErrForeign)
	}
	m, err := readCheckMeta(f)
	if err != nil {
		return nil, err
	}
	if m.pages > uint64(info.Size())/checkPageSize {
		return nil, fmt.Errorf("%w: it is truncated: it should hold at least %d bytes and has %d",
			ErrDamaged, m.pages*checkPageSize, info.Size())
	}
	c := &fileCheck{f: f, pages: m.pages, used: newPageSet(m.pages), leaves: newPageSet(m.pages)}
	if m.pages <= checkMaxHeads {
		readAhead(f, 0, int64(m.pages)*checkPageSize)
	}
	if err := c.checkRoot(m.root); err != nil {
		return nil, err
	}
	return c, c.checkFreeList(m.freeList)
}

// checkMeta is what the check needs of a meta page.
type checkMeta struct {
	root, freeList, pages, tx uint64
}

// readCheckMeta returns the meta that bbolt goes by: that of the latest transaction
// among the intact ones. A commit that was torn leaves one of the two damaged.
func readCheckMeta(f *os.File) (checkMeta, error) {
	var b [2 * checkPageSize]byte
	if _, err := f.ReadAt(b[:], 0); err != nil && err != io.EOF {
		return checkMeta{}, fmt.Errorf("cannot be read: %w", err)
	}
	var latest checkMeta
	var bolt, intact bool
	for _, at := range []int{0, checkPageSize} {
		p := b[at+checkHeadSize:]
		if checkOrder.Uint32(p) != checkMagic {
			continue
		}
		bolt = true
		sum := fnv.New64a()
		sum.Write(p[:checkMetaSize])
		if sum.Sum64() != checkOrder.Uint64(p[checkMetaSize:]) {
			continue
		}
		if v := checkOrder.Uint32(p[4:]); v != checkVersion {
			return latest, fmt.Errorf("%w: it has version %d of bbolt's format, not %d", ErrForeign, v, checkVersion)
		}
		if size := checkOrder.Uint32(p[8:]); size != checkPageSize {
			return latest, fmt.Errorf("%w: its pages have %d bytes, not %d", ErrForeign, size, checkPageSize)
		}
		m := checkMeta{
			root:     checkOrder.Uint64(p[16:]),
			freeList: checkOrder.Uint64(p[32:]),
			pages:    checkOrder.Uint64(p[40:]),
			tx:       checkOrder.Uint64(p[48:]),
		}
		if !intact || m.tx > latest.tx {
			latest, intact = m, true
		}
	}
	switch {
	case !bolt:
		return latest, fmt.Errorf("%w: it is not a bbolt file", ErrForeign)
	case !intact:
		return latest, fmt.Errorf("%w: neither of its two meta pages is intact", ErrDamaged)
	case latest.freeList == checkNoFreeList:
		return latest, fmt.Errorf("%w: it is a bbolt file without a free list", ErrForeign)
	}
	return latest, nil
}

// fileCheck is the check of one file beyond its meta pages.
type fileCheck struct {
	f      *os.File
	pages  uint64  // how many the file has; page IDs are less
	used   pageSet // those met so far; in the end those that are free, too
	leaves pageSet // of used, where those of trees begin

	leafCount int
}

// A pageSet has a bit for each page.
type pageSet []uint64

func newPageSet(pages uint64) pageSet { return make(pageSet, pages/64+1) }

func (s pageSet) has(id uint64) bool { return id/64 < uint64(len(s)) && s[id/64]&(1<<(id%64)) != 0 }
func (s pageSet) add(id uint64)      { s[id/64] |= 1 << (id % 64) }
func (s pageSet) remove(id uint64)   { s[id/64] &^= 1 << (id % 64) }

// use notes pages as used. what names the first.
func (c *fileCheck) use(what string, id, pages uint64) error {
	if id < 2 || id >= c.pages {
		return fmt.Errorf("%w: %s page %d is not one of 2 to %d", ErrDamaged, what, id, c.pages-1)
	}
	for end := id + pages; id < end; id++ {
		if c.used.has(id) {
			return fmt.Errorf("%w: page %d is used twice", ErrDamaged, id)
		}
		c.used.add(id)
	}
	return nil
}

// checkHead is the head of a page. Its name, for errors, is like "root page 3".
type checkHead struct {
	name        string
	kind, count uint16
	pages       uint64 // 1 and the overflow
}

// readHead checks the head of a page. what names the page.
func (c *fileCheck) readHead(what string, id uint64, kinds ...uint16) (checkHead, error) {
	h := checkHead{name: fmt.Sprintf("%s page %d", what, id)}
	if id < 2 || id >= c.pages {
		return h, fmt.Errorf("%w: %s is not one of 2 to %d", ErrDamaged, h.name, c.pages-1)
	}
	var b [checkHeadSize]byte
	if err := c.read(b[:], id); err != nil {
		return h, err
	}
	h.kind = checkOrder.Uint16(b[8:])
	h.count = checkOrder.Uint16(b[10:])
	h.pages = uint64(checkOrder.Uint32(b[12:])) + 1
	if self := checkOrder.Uint64(b[:]); self != id {
		return h, fmt.Errorf("%w: %s calls itself page %d", ErrDamaged, h.name, self)
	}
	if !slices.Contains(kinds, h.kind) {
		return h, fmt.Errorf("%w: %s is of kind %#x", ErrDamaged, h.name, h.kind)
	}
	if h.pages > c.pages-id {
		return h, fmt.Errorf("%w: %s goes on for %d pages, beyond page %d", ErrDamaged, h.name, h.pages, c.pages-1)
	}
	return h, nil
}

// read fills b from the start of a page.
func (c *fileCheck) read(b []byte, id uint64) error {
	if _, err := c.f.ReadAt(b, int64(id)*checkPageSize); err != nil {
		return fmt.Errorf("cannot be read: %w", err)
	}
	return nil
}

// readPage reads the page whose head is h, with those that it goes on for.
func (c *fileCheck) readPage(h checkHead, id uint64) ([]byte, error) {
	if h.pages > checkMaxPages {
		return nil, fmt.Errorf("%w: %s goes on for %d pages, more than it takes", ErrDamaged, h.name, h.pages)
	}
	page := make([]byte, h.pages*checkPageSize)
	return page, c.read(page, id)
}

// checkRoot checks the page that holds the buckets: a leaf, as a log has few of them.
func (c *fileCheck) checkRoot(id uint64) error {
	h, err := c.readHead("root", id, checkLeaf, checkBranch)
	if err != nil {
		return err
	}
	if h.kind == checkBranch {
		return fmt.Errorf("%w: it is a bbolt file with many buckets", ErrForeign)
	}
	page, err := c.readPage(h, id)
	if err != nil {
		return err
	}
	size, err := checkElements(h.name, page, func(flags uint32, value []byte) error {
		if flags != checkIsBucket {
			return fmt.Errorf("%w: %s holds what is not a bucket", ErrDamaged, h.name)
		}
		return c.checkBucket(h.name, value)
	})
	if err != nil {
		return err
	}
	if uint64(size-1)/checkPageSize != h.pages-1 {
		return fmt.Errorf("%w: %s goes on for %d pages and holds %d bytes", ErrDamaged, h.name, h.pages, size)
	}
	return c.use("root", id, h.pages)
}

// checkBucket checks a bucket in the root page, which name is of.
func (c *fileCheck) checkBucket(name string, value []byte) error {
	if len(value) < checkBucketSize {
		return fmt.Errorf("%w: %s holds a bucket of %d bytes", ErrDamaged, name, len(value))
	}
	root, page := checkOrder.Uint64(value), value[checkBucketSize:]
	if root != 0 {
		if len(page) != 0 {
			return fmt.Errorf("%w: %s holds a bucket of %d bytes", ErrDamaged, name, len(value))
		}
		height, err := c.height(root, func([]checkChild) {})
		if err != nil {
			return err
		}
		last, err := c.height(root, slices.Reverse)
		if err != nil {
			return err
		}
		if last != height {
			return fmt.Errorf("%w: the tree of page %d is higher at one end", ErrDamaged, root)
		}
		return c.checkTree("bucket", checkChild{id: root}, height)
	}
	name = "a bucket in " + name
	if len(page) < checkHeadSize || checkOrder.Uint64(page) != 0 ||
		checkOrder.Uint16(page[8:]) != checkLeaf || checkOrder.Uint32(page[12:]) != 0 {
		return fmt.Errorf("%w: %s has a wrong head", ErrDamaged, name)
	}
	size, err := checkElements(name, page, func(flags uint32, _ []byte) error {
		if flags != 0 {
			return fmt.Errorf("%w: %s holds what is not a value", ErrDamaged, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if size != len(page) {
		return fmt.Errorf("%w: %s holds %d bytes on %d", ErrDamaged, name, size, len(page))
	}
	return nil
}

// height is how many branch pages are above each leaf of a tree: as many as there are
// on the way to the first leaf, in the order that sort gives the children. A leaf that
// cannot be read may be among them.
func (c *fileCheck) height(root uint64, sort func(children []checkChild)) (int, error) {
	id := root
	h, err := c.readHead("bucket", id, checkLeaf, checkBranch)
	for height := range checkMaxHeight {
		if err != nil || h.kind == checkLeaf {
			return height, err
		}
		var children []checkChild
		if children, err = c.children(h, id); err != nil {
			return 0, err
		}
		sort(children)
		for _, child := range children {
			id = child.id
			if h, err = c.readHead("bucket", id, checkLeaf, checkBranch); !errors.Is(err, ErrDamaged) {
				break
			}
		}
	}
	return 0, fmt.Errorf("%w: the tree of page %d goes on for ever", ErrDamaged, root)
}

// checkTree checks the branch pages of a tree, and notes its pages as used.
func (c *fileCheck) checkTree(what string, at checkChild, height int) error {
	if height == 0 {
		if err := c.use(what, at.id, 1); err != nil {
			return err
		}
		c.leaves.add(at.id)
		c.leafCount++
		return c.checkLeaf(what, at.id)
	}
	h, err := c.readHead(what, at.id, checkBranch)
	if err != nil {
		return err
	}
	if err := c.use(what, at.id, h.pages); err != nil {
		return err
	}
	children, err := c.children(h, at.id)
	if err != nil {
		return err
	}
	if at.key != nil && !bytes.Equal(at.key, children[0].key) {
		return fmt.Errorf("%w: %s begins with another key than the one that leads to it", ErrDamaged, h.name)
	}
	what = "leaf"
	if height > 1 {
		what = "branch"
		for _, child := range children { // one after another they would take as long as they are many
			readAhead(c.f, int64(child.id)*checkPageSize, checkPageSize)
		}
	}
	for _, child := range children {
		if err := c.checkTree(what, child, height-1); err != nil {
			return err
		}
	}
	return nil
}

// checkLeaf checks that a leaf is not a branch page, which could lead bbolt in a circle.
// Any other kind bbolt does not read.
func (c *fileCheck) checkLeaf(what string, id uint64) error {
	if c.pages > checkMaxHeads {
		return nil
	}
	h, err := c.readHead(what, id, checkBranch)
	if err == nil {
		return fmt.Errorf("%w: %s is of kind %#x", ErrDamaged, h.name, h.kind)
	}
	if errors.Is(err, ErrDamaged) {
		return nil
	}
	return err
}

// A checkChild is an element of a branch page: a page and its first key.
type checkChild struct {
	id  uint64
	key []byte
}

// children returns what a branch page names, of which there is one at least. Its keys
// must ascend: bbolt would not find again what it puts between others, and leave an
// old page in its place.
func (c *fileCheck) children(h checkHead, id uint64) ([]checkChild, error) {
	page, err := c.readPage(h, id)
	if err != nil {
		return nil, err
	}
	elements := page[checkHeadSize:]
	if h.count == 0 {
		return nil, fmt.Errorf("%w: %s has no elements", ErrDamaged, h.name)
	}
	if int(h.count)*checkElementSize > len(elements) {
		return nil, fmt.Errorf("%w: %s has no room for %d elements", ErrDamaged, h.name, h.count)
	}
	children := make([]checkChild, h.count)
	var before []byte
	for i := range children {
		element := elements[i*checkElementSize:]
		start := uint64(checkOrder.Uint32(element))
		end := start + uint64(checkOrder.Uint32(element[4:]))
		if end > uint64(len(element)) {
			return nil, fmt.Errorf("%w: element %d of %s is outside of it", ErrDamaged, i, h.name)
		}
		key := element[start:end]
		if i > 0 && bytes.Compare(before, key) >= 0 {
			return nil, fmt.Errorf("%w: element %d of %s is out of order", ErrDamaged, i, h.name)
		}
		before = key
		children[i] = checkChild{checkOrder.Uint64(element[8:]), key}
	}
	return children, nil
}

// checkElements calls visit for each element of a leaf and returns the leaf's size in
// bytes. It insists on the place that bbolt gives them, and on ascending keys.
func checkElements(name string, page []byte, visit func(flags uint32, value []byte) error) (int, error) {
	count := int(checkOrder.Uint16(page[10:]))
	end := checkHeadSize + count*checkElementSize
	if end > len(page) {
		return 0, fmt.Errorf("%w: %s has no room for %d elements", ErrDamaged, name, count)
	}
	var last []byte
	for i := range count {
		at := checkHeadSize + i*checkElementSize
		flags, pos := checkOrder.Uint32(page[at:]), checkOrder.Uint32(page[at+4:])
		keySize, valueSize := checkOrder.Uint32(page[at+8:]), checkOrder.Uint32(page[at+12:])
		rest := page[end:]
		if uint64(at)+uint64(pos) != uint64(end) || uint64(keySize)+uint64(valueSize) > uint64(len(rest)) {
			return 0, fmt.Errorf("%w: %s has element %d in a wrong place", ErrDamaged, name, i)
		}
		key, value := rest[:keySize], rest[keySize:keySize+valueSize]
		if bytes.Compare(key, last) <= 0 {
			return 0, fmt.Errorf("%w: %s has the key of element %d out of order", ErrDamaged, name, i)
		}
		if err := visit(flags, value); err != nil {
			return 0, err
		}
		last = key
		end += len(key) + len(value)
	}
	return end, nil
}

// checkFreeList checks the free list, also against the pages noted as used.
func (c *fileCheck) checkFreeList(id uint64) error {
	h, err := c.readHead("free list", id, checkFreeList)
	if err != nil {
		return err
	}
	if err := c.use("free list", id, h.pages); err != nil {
		return err
	}
	next := c.readIDs(id, h.pages)
	n := uint64(h.count)
	if n == 0xFFFF {
		if n, err = next(); err != nil {
			return err
		}
	}
	// bbolt finds room for the list before it writes it, maybe in pages from the list.
	if n >= c.pages || h.pages != freeListPages(n) && h.pages != freeListPages(n+h.pages) {
		return fmt.Errorf("%w: %s goes on for %d pages and holds %d IDs", ErrDamaged, h.name, h.pages, n)
	}
	last := uint64(1)
	for range n {
		free, err := next()
		if err != nil {
			return err
		}
		if free <= last || free >= c.pages {
			return fmt.Errorf("%w: %s names page %d after page %d, up to %d", ErrDamaged, h.name, free, last, c.pages-1)
		}
		if c.used.has(free) {
			return fmt.Errorf("%w: %s names page %d, which is in use", ErrDamaged, h.name, free)
		}
		c.used.add(free)
		last = free
	}
	return nil
}

// readIDs returns a function that reads the IDs of a free list one by one.
func (c *fileCheck) readIDs(id, pages uint64) func() (uint64, error) {
	body := io.NewSectionReader(c.f, int64(id)*checkPageSize+checkHeadSize, int64(pages)*checkPageSize-checkHeadSize)
	r := bufio.NewReaderSize(body, 16*checkPageSize)
	var b [8]byte
	return func() (uint64, error) {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return 0, fmt.Errorf("cannot be read: %w", err)
		}
		return checkOrder.Uint64(b[:]), nil
	}
}

// freeListPages is how many pages bbolt takes for a free list of n IDs.
func freeListPages(n uint64) uint64 {
	if n >= 0xFFFF {
		n++
	}
	return (checkHeadSize+8*n)/checkPageSize + 1
}
