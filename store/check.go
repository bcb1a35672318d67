package store

import (
	"bufio"
	"bytes"
	"cmp"
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

	// checkMaxRoot is more pages than a root page goes on for: bbolt splits a leaf
	// of more than four buckets, and one is at most a name of 32 KiB and 1 KiB.
	checkMaxRoot = 64
)

var checkOrder = binary.NativeEndian

// checkFile says why bbolt must not open f, or nil. bbolt maps the file into memory
// and believes it: a damaged one makes it panic, partly in a goroutine of its own,
// or kills the process by a fault.
//
// Checked is what bbolt relies on until the first bucket is open: the meta pages,
// the size, the free list, the root page, and the heads of the pages it names. The
// trees are not walked; so a free list that names a page deep in one of them passes.
//
// f is only read, in time bounded by the length of the free list and in constant
// memory. Errors other than ErrForeign and ErrDamaged are those of reading f.
func checkFile(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: it is not a regular file", ErrForeign)
	}
	if info.Size() == 0 {
		return fmt.Errorf("%w: it is empty; if it is not wanted, remove it and a new one is made", ErrForeign)
	}
	m, err := readCheckMeta(f)
	if err != nil {
		return err
	}
	if m.pages > uint64(info.Size())/checkPageSize {
		return fmt.Errorf("%w: it is truncated: it should hold at least %d bytes and has %d",
			ErrDamaged, m.pages*checkPageSize, info.Size())
	}
	c := &fileCheck{f: f, pages: m.pages}
	if err := c.checkRoot(m.root); err != nil {
		return err
	}
	return c.checkFreeList(m.freeList)
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
	f     *os.File
	pages uint64      // how many the file has; page IDs are less
	used  []checkSpan // the pages met so far
}

// checkSpan is a page and those it goes on for: IDs from first up to before end.
type checkSpan struct{ first, end uint64 }

// checkHead is the head of a page. Its name, for errors, is like "root page 3".
type checkHead struct {
	name        string
	kind, count uint16
	pages       uint64 // 1 and the overflow
}

// readHead checks the head of a page and notes it as used. what names the page.
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
	c.used = append(c.used, checkSpan{id, id + h.pages})
	return h, nil
}

// read fills b from the start of a page.
func (c *fileCheck) read(b []byte, id uint64) error {
	if _, err := c.f.ReadAt(b, int64(id)*checkPageSize); err != nil {
		return fmt.Errorf("cannot be read: %w", err)
	}
	return nil
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
	if h.pages > checkMaxRoot {
		return fmt.Errorf("%w: %s goes on for %d pages, more than buckets take", ErrDamaged, h.name, h.pages)
	}
	page := make([]byte, h.pages*checkPageSize)
	if err := c.read(page, id); err != nil {
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
	return nil
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
		_, err := c.readHead("bucket", root, checkLeaf, checkBranch)
		return err
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
	slices.SortFunc(c.used, func(a, b checkSpan) int { return cmp.Compare(a.first, b.first) })
	for i, s := range c.used[1:] {
		if s.first < c.used[i].end {
			return fmt.Errorf("%w: page %d is used twice", ErrDamaged, s.first)
		}
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
	used, last := c.used, uint64(1)
	for range n {
		free, err := next()
		if err != nil {
			return err
		}
		if free <= last || free >= c.pages {
			return fmt.Errorf("%w: %s names page %d after page %d, up to %d", ErrDamaged, h.name, free, last, c.pages-1)
		}
		for len(used) > 0 && used[0].end <= free {
			used = used[1:]
		}
		if len(used) > 0 && used[0].first <= free {
			return fmt.Errorf("%w: %s names page %d, which is in use", ErrDamaged, h.name, free)
		}
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
