package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

var checkOptions = bolt.Options{
	Timeout:      time.Second, // a database that panicked keeps its lock
	PageSize:     checkPageSize,
	FreelistType: bolt.FreelistMapType,
	NoSync:       true,
	NoGrowSync:   true,
}

// checkHealthy returns a file with a bucket of each shape (inline, a leaf, a tree) in its
// root page and with a free list. It is the same each time, for which it needs a free
// list of the array type and one bucket a transaction.
var checkHealthy = sync.OnceValue(func() checkImage {
	dir, err := os.MkdirTemp("", "")
	checkMust(err)
	defer os.RemoveAll(dir)
	o := checkOptions
	o.FreelistType = bolt.FreelistArrayType
	b, err := bolt.Open(filepath.Join(dir, "db"), 0o600, &o)
	checkMust(err)
	fill := func(name string, from, n, size int) {
		checkMust(b.Update(func(tx *bolt.Tx) error {
			bucket, err := tx.CreateBucketIfNotExists([]byte(name))
			checkMust(err)
			checkPut(bucket, from, n, size)
			return nil
		}))
	}
	fill("lastevent", 0, 2, 4)
	for i := range 5 {
		fill("old", 3*i, 3, 1500)
		fill("events", 5*i, 5, 900)
		fill("streams", 4*i, 4, 60)
	}
	checkMust(b.Update(func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("old")) }))
	for i := range 3 {
		fill("streams", i, 1, 70)
	}
	checkMust(b.Close())
	data, err := os.ReadFile(filepath.Join(dir, "db"))
	checkMust(err)
	im := checkImage(data)
	return im[:im.pages()*checkPageSize]
})

// checkUpdateRoot opens each bucket and writes the root page and the free list.
func checkUpdateRoot(tx *bolt.Tx) error {
	err := tx.ForEach(func([]byte, *bolt.Bucket) error { return nil })
	_, createErr := tx.CreateBucketIfNotExists([]byte("probe"))
	return errors.Join(err, createErr)
}

// checkUpdate writes the buckets as well, but for those deeper than one page.
func checkUpdate(tx *bolt.Tx) error {
	for _, name := range []string{"lastevent", "streams"} {
		b, err := tx.CreateBucketIfNotExists([]byte(name))
		if err != nil {
			return err
		}
		checkPut(b, 0, 10, 200)
	}
	return checkUpdateRoot(tx)
}

func TestCheckFileHealthy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	im := checkHealthy()
	if n := len(im.freeIDs()) / 8; n < 5 {
		t.Fatalf("the free list has %d pages; the tests need some", n)
	}
	if err := im.check(t, path); err != nil {
		t.Fatal(err)
	}
	if err := im.opens(t, path, checkUpdate); err != nil {
		t.Fatal(err)
	}
}

// Whatever bbolt commits passes.
func TestCheckFileCommits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	b, err := bolt.Open(path, 0o600, &checkOptions)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	check := func() {
		t.Helper()
		if err := checkErr(f); err != nil {
			t.Fatal(err)
		}
	}
	check()

	random := rand.New(rand.NewPCG(1, 2))
	buckets := []string{"a", "b", "c", strings.Repeat("long name ", 1000)}
	for range 150 {
		err := b.Update(func(tx *bolt.Tx) error {
			name := []byte(buckets[random.IntN(len(buckets))])
			if random.IntN(8) == 0 && tx.Bucket(name) != nil {
				return tx.DeleteBucket(name)
			}
			bucket, err := tx.CreateBucketIfNotExists(name)
			if err != nil {
				return err
			}
			if random.IntN(4) == 0 {
				if _, err := bucket.CreateBucketIfNotExists([]byte("nested")); err != nil {
					return err
				}
			}
			checkPut(bucket, random.IntN(100), random.IntN(30), 1<<random.IntN(14))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		check()
	}

	// The free list grows to a second page, and shrinks again.
	if err := b.Update(func(tx *bolt.Tx) error {
		for i := range 60 {
			bucket, err := tx.CreateBucketIfNotExists(fmt.Appendf(nil, "%d", i/20))
			if err != nil {
				return err
			}
			checkPut(bucket, i, 1, 10*checkPageSize)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []int{-1, 1} {
		for i := range 60 {
			if err := b.Update(func(tx *bolt.Tx) error {
				bucket := tx.Bucket(fmt.Appendf(nil, "%d", i/20))
				if step < 0 {
					return bucket.Delete(fmt.Appendf(nil, "key %06d", i))
				}
				checkPut(bucket, i, 1, 10*checkPageSize)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			check()
		}
		if step < 0 && b.Stats().FreePageN < 512 {
			t.Fatalf("the free list has %d pages; the test needs more than a page of them", b.Stats().FreePageN)
		}
	}
}

// checkSparse makes a file whose free list has n IDs, and returns that list's page and
// content. Nearly all of the file is a hole.
func checkSparse(t *testing.T, path string, n uint64) (*os.File, uint64, checkImage) {
	t.Helper()
	im := slices.Clone(checkHealthy())
	first := uint64(len(im)) / checkPageSize
	id, pages := first+n, freeListPages(n)
	im.setMeta(32, id)
	im.setMeta(40, id+pages)

	list := make(checkImage, pages*checkPageSize)
	checkOrder.PutUint64(list, id)
	checkOrder.PutUint16(list[8:], checkFreeList)
	checkOrder.PutUint16(list[10:], uint16(min(n, 0xFFFF)))
	checkOrder.PutUint32(list[12:], uint32(pages-1))
	ids := list[checkHeadSize:]
	if n >= 0xFFFF {
		checkOrder.PutUint64(ids, n)
		ids = ids[8:]
	}
	for i := range n {
		checkOrder.PutUint64(ids[8*i:], first+i)
	}

	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	_, err = f.WriteAt(im, 0)
	_, listErr := f.WriteAt(list, int64(id)*checkPageSize)
	if err := errors.Join(err, listErr); err != nil {
		t.Fatal(err)
	}
	return f, id, list
}

// Free lists about as long as fits on a page, and longer than their count can say.
func TestCheckFileFreeListLength(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	lengths := []uint64{0xFFFE, 0xFFFF, 65_915, 65_916, 65_917}
	for n := uint64(500); n < 515; n++ {
		lengths = append(lengths, n)
	}
	for _, n := range lengths {
		f, _, _ := checkSparse(t, path, n)
		if err := checkErr(f); err != nil {
			t.Fatalf("%d IDs: %v", n, err)
		}
		b, err := bolt.Open(path, 0o600, &checkOptions)
		if err != nil {
			t.Fatal(err)
		}
		if got := b.Stats().FreePageN; got != int(n) {
			t.Fatalf("bbolt reads %d IDs, not %d", got, n)
		}
		if err := errors.Join(b.Update(checkUpdateRoot), b.Close()); err != nil {
			t.Fatal(err)
		}
		if err := checkErr(f); err != nil {
			t.Errorf("%d IDs, written by bbolt: %v", n, err)
		}
	}
}

func TestCheckFileFreeListLongCount(t *testing.T) {
	const n = 0xFFFF + 100
	f, id, list := checkSparse(t, filepath.Join(t.TempDir(), "db"), n)
	for _, count := range []uint64{n + 1000, 1<<61 + n, 1<<64 - 1} {
		checkOrder.PutUint64(list[checkHeadSize:], count)
		if _, err := f.WriteAt(list, int64(id)*checkPageSize); err != nil {
			t.Fatal(err)
		}
		words := fmt.Sprintf("goes on for %d pages and holds %d IDs", freeListPages(n), count)
		if err := checkErr(f); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), words) {
			t.Errorf("got %v; want %q", err, words)
		}
	}
}

// Root pages that are just full, and longer than a page.
func TestCheckFileRootLength(t *testing.T) {
	const inline = checkElementSize + checkBucketSize + checkHeadSize // an empty bucket but for its name
	full := (checkPageSize-checkHeadSize)/2 - inline
	for _, n := range []int{full - 1, full, full + 1, bolt.MaxKeySize} {
		path := filepath.Join(t.TempDir(), "db")
		b, err := bolt.Open(path, 0o600, &checkOptions)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(b.Update(func(tx *bolt.Tx) error {
			for _, c := range "ab" {
				if _, err := tx.CreateBucket([]byte(strings.Repeat(string(c), n))); err != nil {
					return err
				}
			}
			return nil
		}), b.Close()); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := checkErr(f); err != nil {
			t.Errorf("names of %d bytes: %v", n, err)
		}
	}
}

func checkBreak(damage func(checkImage)) func(checkImage) checkImage {
	return func(im checkImage) checkImage {
		im = slices.Clone(im)
		damage(im)
		return im
	}
}

// checkDamages is what can be wrong with a file, and what is said of it.
var checkDamages = []struct {
	name   string
	damage func(im checkImage) checkImage
	kind   error
	words  string
}{
	{"empty", func(checkImage) checkImage { return nil }, ErrForeign, "is not a lastevent log: it is empty; if it is not wanted, remove it"},
	{"text", func(checkImage) checkImage { return checkImage("Dear diary") }, ErrForeign, "not a bbolt file"},
	{"zeros", func(im checkImage) checkImage { return make(checkImage, len(im)) }, ErrForeign, "not a bbolt file"},
	{"version", checkBreak(func(im checkImage) { im.setMeta(4, checkPageSize<<32|3) }), ErrForeign, "version 3 of bbolt's format, not 2"},
	{"page size", checkBreak(func(im checkImage) { im.setMeta(4, 8192<<32|checkVersion) }), ErrForeign, "its pages have 8192 bytes, not 4096"},
	{"no free list", checkBreak(func(im checkImage) { im.setMeta(32, checkNoFreeList) }), ErrForeign, "without a free list"},
	{"many buckets", checkBreak(func(im checkImage) { im.root()[8] = checkBranch }), ErrForeign, "many buckets"},

	{"meta pages", checkBreak(func(im checkImage) { im[40]++; im[checkPageSize+60]++ }), ErrDamaged, "neither of its two meta pages is intact"},
	{"a meta page cut", func(im checkImage) checkImage { return im[:50] }, ErrDamaged, "neither of its two meta pages is intact"},
	{"cut by a byte", func(im checkImage) checkImage { return im[:len(im)-1] }, ErrDamaged, "is damaged: it is truncated: it should hold at least"},
	{"more pages", checkBreak(func(im checkImage) { im.setMeta(40, 1<<63) }), ErrDamaged, "is truncated"},

	{"root is a meta page", checkBreak(func(im checkImage) { im.setMeta(16, 1) }), ErrDamaged, "root page 1 is not one of 2 to"},
	{"root is beyond the end", checkBreak(func(im checkImage) { im.setMeta(16, im.pages()) }), ErrDamaged, "is not one of 2 to"},
	{"root is far beyond the end", checkBreak(func(im checkImage) { im.setMeta(16, 1<<52+3) }), ErrDamaged, "is not one of 2 to"},
	{"root ID", checkBreak(func(im checkImage) { im.root()[1]++ }), ErrDamaged, "calls itself page"},
	{"root of two kinds", checkBreak(func(im checkImage) { im.root()[8] = checkLeaf | checkBranch }), ErrDamaged, "is of kind 0x3"},
	{"root is the free list", checkBreak(func(im checkImage) { im.setMeta(16, im.freeListID()) }), ErrDamaged, "is of kind 0x10"},
	{"root beyond the end", checkBreak(func(im checkImage) {
		checkOrder.PutUint32(im.root()[12:], uint32(im.pages()-im.rootID()))
	}), ErrDamaged, "pages, beyond page"},
	{"root too long", func(im checkImage) checkImage {
		im = append(slices.Clone(im), make(checkImage, 100*checkPageSize)...)
		im.setMeta(40, im.pages()+100)
		im.root()[12] = 99
		return im
	}, ErrDamaged, "goes on for 100 pages, more than"},
	{"root longer", func(im checkImage) checkImage {
		im = append(slices.Clone(im), make(checkImage, 10*checkPageSize)...)
		im.setMeta(40, im.pages()+10)
		im.root()[12] = 1
		return im
	}, ErrDamaged, "goes on for 2 pages and holds"},
	{"root count", checkBreak(func(im checkImage) { im.root()[11] = 0xFF }), ErrDamaged, "has no room for 65283 elements"},
	{"element more", checkBreak(func(im checkImage) { im.root()[10]++ }), ErrDamaged, "has element 0 in a wrong place"},
	{"element position", checkBreak(func(im checkImage) { checkOrder.PutUint32(im.element(1)[4:], 1<<32-1) }), ErrDamaged, "has element 1 in a wrong place"},
	{"element key size", checkBreak(func(im checkImage) { checkOrder.PutUint32(im.element(1)[8:], 1<<32-1) }), ErrDamaged, "has element 1 in a wrong place"},
	{"element value size", checkBreak(func(im checkImage) { checkOrder.PutUint32(im.element(2)[12:], 1<<31) }), ErrDamaged, "has element 2 in a wrong place"},
	{"element without a key", checkBreak(func(im checkImage) {
		e := im.element(0)
		e[12], e[8] = e[12]+e[8], 0
	}), ErrDamaged, "has the key of element 0 out of order"},
	{"element order", checkBreak(func(im checkImage) { im.bucketName(1)[0] = 'a' }), ErrDamaged, "has the key of element 1 out of order"},
	{"element is a value", checkBreak(func(im checkImage) { im.element(0)[0] = 0 }), ErrDamaged, "holds what is not a bucket"},
	{"bucket too short", checkBreak(func(im checkImage) { im.element(2)[12] = 8 }), ErrDamaged, "holds a bucket of 8 bytes"},
	{"bucket too long", checkBreak(func(im checkImage) { im.element(2)[12] = 20 }), ErrDamaged, "holds a bucket of 20 bytes"},
	{"bucket at a meta page", checkBreak(func(im checkImage) { im.bucket(0)[0] = 1 }), ErrDamaged, "bucket page 1 is not one of 2 to"},
	{"bucket beyond the end", checkBreak(func(im checkImage) { im.bucket(0)[7] = 1 }), ErrDamaged, "is not one of 2 to"},
	{"bucket at the free list", checkBreak(func(im checkImage) { checkOrder.PutUint64(im.bucket(0), im.freeListID()) }), ErrDamaged, "is of kind 0x10"},
	{"bucket at the root", checkBreak(func(im checkImage) { checkOrder.PutUint64(im.bucket(0), im.rootID()) }), ErrDamaged, "is used twice"},
	{"two buckets at a page", checkBreak(func(im checkImage) { copy(im.bucket(0), im.bucket(2)) }), ErrDamaged, "is used twice"},
	{"bucket page", checkBreak(func(im checkImage) { im.page(checkOrder.Uint64(im.bucket(2)))[1]++ }), ErrDamaged, "calls itself page"},
	{"inline bucket kind", checkBreak(func(im checkImage) { im.bucket(1)[24] = checkBranch }), ErrDamaged, "a bucket in root page"},
	{"inline bucket ID", checkBreak(func(im checkImage) { im.bucket(1)[16] = 4 }), ErrDamaged, "has a wrong head"},
	{"inline bucket overflow", checkBreak(func(im checkImage) { im.bucket(1)[28] = 1 }), ErrDamaged, "has a wrong head"},
	{"inline bucket count", checkBreak(func(im checkImage) { im.bucket(1)[27] = 1 }), ErrDamaged, "has no room for 258 elements"},
	{"inline bucket without an element", checkBreak(func(im checkImage) { im.bucket(1)[26] = 0 }), ErrDamaged, "holds 16 bytes on"},
	{"inline bucket in a bucket", checkBreak(func(im checkImage) { im.bucket(1)[32] = 1 }), ErrDamaged, "holds what is not a value"},
	{"inline bucket element", checkBreak(func(im checkImage) { im.bucket(1)[36]++ }), ErrDamaged, "has element 0 in a wrong place"},

	{"free list is a meta page", checkBreak(func(im checkImage) { im.setMeta(32, 0) }), ErrDamaged, "free list page 0 is not one of 2 to"},
	{"free list beyond the end", checkBreak(func(im checkImage) { im.setMeta(32, im.pages()) }), ErrDamaged, "is not one of 2 to"},
	{"free list is the root", checkBreak(func(im checkImage) { im.setMeta(32, im.rootID()) }), ErrDamaged, "is of kind 0x2"},
	{"free list ID", checkBreak(func(im checkImage) { im.freeList()[0]++ }), ErrDamaged, "calls itself page"},
	{"free list longer", checkBreak(func(im checkImage) { im.freeList()[12]++ }), ErrDamaged, "goes on for 2 pages and holds"},
	{"free list beyond the end", checkBreak(func(im checkImage) { im.freeList()[14]++ }), ErrDamaged, "goes on for 65537 pages, beyond page"},
	{"free list count", checkBreak(func(im checkImage) { checkOrder.PutUint16(im.freeList()[10:], 0xFFFE) }), ErrDamaged, "holds 65534 IDs"},
	{"free list long count", checkBreak(func(im checkImage) { checkOrder.PutUint16(im.freeList()[10:], 0xFFFF); im.freeList()[23] = 0xFF }), ErrDamaged, "goes on for 1 pages and holds"},
	{"free list one more", checkBreak(func(im checkImage) { im.freeList()[10]++ }), ErrDamaged, "names page 0 after page"},
	{"free list twice", checkBreak(func(im checkImage) { ids := im.freeIDs(); copy(ids[8:], ids[:8]) }), ErrDamaged, "after page"},
	{"free list order", checkBreak(func(im checkImage) { ids := im.freeIDs(); copy(ids, ids[16:24]) }), ErrDamaged, "after page"},
	{"free list of a meta page", checkBreak(func(im checkImage) { checkOrder.PutUint64(im.freeIDs(), 1) }), ErrDamaged, "names page 1 after page 1"},
	{"free list of what is beyond", checkBreak(func(im checkImage) {
		ids := im.freeIDs()
		checkOrder.PutUint64(ids[len(ids)-8:], im.pages())
	}), ErrDamaged, "names page"},
	{"free list of the root", checkBreak(func(im checkImage) { im.setFree(im.rootID()) }), ErrDamaged, "which is in use"},
	{"free list of itself", checkBreak(func(im checkImage) { im.setFree(im.freeListID()) }), ErrDamaged, "which is in use"},
	{"free list of a bucket", checkBreak(func(im checkImage) { im.setFree(checkOrder.Uint64(im.bucket(2))) }), ErrDamaged, "which is in use"},
}

func TestCheckFileDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	for _, test := range checkDamages {
		t.Run(test.name, func(t *testing.T) {
			err := test.damage(checkHealthy()).check(t, path)
			if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.words) {
				t.Errorf("got %v; want %q", err, test.words)
			}
		})
	}
}

func TestCheckFileUnreadable(t *testing.T) {
	dir := t.TempDir()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := checkErr(d); !errors.Is(err, ErrForeign) {
		t.Errorf("a folder: %v", err)
	}

	f, err := os.OpenFile(filepath.Join(dir, "db"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(checkHealthy()); err != nil {
		t.Fatal(err)
	}
	if err := checkErr(f); err == nil || errors.Is(err, ErrForeign) || errors.Is(err, ErrDamaged) {
		t.Errorf("a file that cannot be read: %v", err)
	}
}

// bbolt goes by the later meta page, whichever it is; a torn write of either leaves it
// the other.
func TestCheckFileMeta(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	for _, swap := range []bool{false, true} {
		im := slices.Clone(checkHealthy())
		if swap {
			first := slices.Clone(im.page(0))
			copy(im.page(0), im.page(1))
			copy(im.page(1), first)
		}
		for id := range uint64(2) {
			torn := slices.Clone(im)
			clear(torn.page(id)[:512])
			if err := torn.check(t, path); err != nil {
				t.Errorf("swapped %t, without meta page %d: %v", swap, id, err)
			}
			if err := torn.opens(t, path, checkUpdate); err != nil {
				t.Errorf("swapped %t, without meta page %d: %v", swap, id, err)
			}
		}
		im.root()[0]++
		if err := im.check(t, path); !errors.Is(err, ErrDamaged) {
			t.Errorf("swapped %t, the later root page damaged: %v", swap, err)
		}
	}
}

func TestCheckFileTruncated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	im := checkHealthy()
	for n := 0; n < len(im); n += 512 {
		err := im[:n].check(t, path)
		if !errors.Is(err, ErrDamaged) && (n > 0 || !errors.Is(err, ErrForeign)) {
			t.Errorf("%d bytes: %v", n, err)
		}
		words := fmt.Sprintf("is truncated: it should hold at least %d bytes and has %d", len(im), n)
		if n > 0 && !strings.Contains(err.Error(), words) {
			t.Errorf("%d bytes: got %v; want %q", n, err, words)
		}
	}
}

// Of the pages that are checked, each bit that bbolt reads is flipped, and some of those
// that it does not read: either the check finds it, or bbolt works with the file.
func TestCheckFileFlips(t *testing.T) {
	im := checkHealthy()
	last := im.element(2)
	rootSize := checkHeadSize + 2*checkElementSize +
		int(checkOrder.Uint32(last[4:])+checkOrder.Uint32(last[8:])+checkOrder.Uint32(last[12:]))
	for _, page := range []struct {
		name string
		id   uint64
		size int // bytes in use
		bits int // tried of each
	}{
		// A damaged meta page leaves the other, whichever bit it is.
		{"meta 0", 0, checkHeadSize + checkMetaSize + 8, 1},
		{"meta 1", 1, checkHeadSize + checkMetaSize + 8, 1},
		{"root", im.rootID(), rootSize, 8},
		{"free list", im.freeListID(), checkHeadSize + len(im.freeIDs()), 8},
	} {
		t.Run(page.name, func(t *testing.T) {
			t.Parallel()
			path, im := filepath.Join(t.TempDir(), "db"), slices.Clone(im)
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.Write(im); err != nil {
				t.Fatal(err)
			}
			flip := func(at int, mask byte) {
				im[at] ^= mask
				if _, err := f.WriteAt(im[at:at+1], int64(at)); err != nil {
					t.Fatal(err)
				}
			}
			start := int(page.id) * checkPageSize
			try := func(i int, mask byte) {
				flip(start+i, mask)
				if checkErr(f) == nil {
					if err := im.opens(t, path+"2", checkUpdate); err != nil {
						t.Fatalf("byte %d, bits %#x pass the check: %v", i, mask, err)
					}
				}
				flip(start+i, mask)
			}
			for i := range page.size {
				for bit := range page.bits {
					try(i, 1<<((i+bit)%8))
				}
			}
			for i := page.size; i < checkPageSize; i += 61 {
				try(i, 0xFF)
			}
		})
	}
}

func TestCheckFileGarbage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	random := rand.NewChaCha8([32]byte{})
	for n := 1; n < 100_000; n += n/2 + 1 {
		im := make(checkImage, n)
		random.Read(im)
		if err := im.check(t, path); !errors.Is(err, ErrForeign) {
			t.Errorf("%d random bytes: %v", n, err)
		}
	}
	for range 50 {
		im := slices.Clone(checkHealthy())
		random.Read(im[2*checkPageSize:])
		if err := im.check(t, path); !errors.Is(err, ErrDamaged) {
			t.Errorf("random bytes behind the meta pages: %v", err)
		}
	}
}

// FuzzCheckFile patches a healthy file: what passes, bbolt opens. With sum, the meta
// pages get the checksums of their content, without which few patches of them pass.
func FuzzCheckFile(f *testing.F) {
	healthy := checkHealthy()
	for _, d := range checkDamages {
		im := d.damage(healthy)
		n := min(len(im), len(healthy))
		from := 0
		for from < n && im[from] == healthy[from] {
			from++
		}
		for n > from && im[n-1] == healthy[n-1] {
			n--
		}
		f.Add([]byte(im[from:n]), uint32(from), uint32(len(im)), true)
	}
	path := filepath.Join(f.TempDir(), "db")
	f.Fuzz(func(t *testing.T, patch []byte, at, size uint32, sum bool) {
		im := make(checkImage, int(size)%(2*len(healthy)))
		copy(im, healthy)
		copy(im[min(int(at), len(im)):], patch)
		if sum {
			im.sum()
		}
		if im.check(t, path) != nil {
			return
		}
		if err := im.opens(t, path, checkUpdateRoot); err != nil {
			t.Error(err)
		}
	})
}
