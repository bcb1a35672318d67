package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// treeImage is a file of many streams and of one with many events, so that there are
// branch pages over leaves, and over other branch pages. It returns the IDs of those
// of the bucket with the events, the root first.
func treeImage(t *testing.T) (im checkImage, branches []uint64) {
	t.Helper()
	path := tempFile(t)
	db := OpenForTest(t, path, Options{})
	for i := range 60 {
		mustAppend(t, db.Log(fmt.Sprintf("stream %02d", i)), "event")
	}
	for range 8 {
		data := make([]string, 100)
		for i := range data {
			data[i] = strings.Repeat("x", 1900)
		}
		mustAppend(t, db.Log("large"), data...)
	}
	CloseForTest(t, db)
	im = readClosed(t, path)
	look(t, path, func(tx *bolt.Tx) error {
		branches = []uint64{uint64(tx.Bucket(eventsBucket).Root())}
		for i := 0; i < len(branches); i++ {
			for _, child := range im.children(branches[i]) {
				if checkOrder.Uint16(im.page(child)[8:]) == checkBranch {
					branches = append(branches, child)
				}
			}
		}
		return nil
	})
	if len(branches) < 4 {
		t.Fatalf("there are %d branch pages; the test needs some over others", len(branches))
	}
	return im, branches
}

// children are the IDs of the pages below a branch page.
func (im checkImage) children(branch uint64) (ids []uint64) {
	for i := range checkOrder.Uint16(im.page(branch)[10:]) {
		ids = append(ids, checkOrder.Uint64(im.child(branch, int(i))))
	}
	return ids
}

// child is where a branch page has the ID of its i-th child.
func (im checkImage) child(branch uint64, i int) []byte {
	return im.page(branch)[checkHeadSize+i*checkElementSize+8:]
}

// Trees that are none: bbolt would follow a loop until the stack or the memory is
// full, and take a page that is free, and so of an older commit, for the current one.
func TestCheckFileTrees(t *testing.T) {
	im, branches := treeImage(t)
	path := tempFile(t)
	if err := im.check(t, path); err != nil {
		t.Fatal(err)
	}
	root, branch := branches[0], branches[1]
	leaves := im.children(branch)
	last := len(leaves) - 1
	free := checkOrder.Uint64(im.freeIDs())
	for _, test := range []struct {
		name  string
		at    []byte // of an ID
		id    uint64
		words string
	}{
		{"the root is its own first child", im.child(root, 0), root, "goes on for ever"},
		{"the root is its own last child", im.child(root, len(branches)-2), root, "goes on for ever"},
		{"a branch is its own first child", im.child(branch, 0), branch, "goes on for ever"},
		{"a branch is its own child", im.child(branch, 7), branch, "is used twice"},
		{"a branch leads back to the root", im.child(branch, last), root, "is used twice"},
		{"a branch leads to the next", im.child(branch, last), branches[2], "is of kind 0x1"},
		{"a leaf is in two places", im.child(branch, 3), leaves[9], "is used twice"},
		{"a leaf is the root page", im.child(branch, 3), im.rootID(), "is used twice"},
		{"a leaf is free", im.child(branch, 3), free, "page"},
		{"a branch is free", im.child(root, 1), free, "page"},
		{"a leaf is a meta page", im.child(branch, 3), 1, "leaf page 1 is not one of 2 to"},
		{"a leaf is beyond the end", im.child(branch, 3), im.pages(), "is not one of 2 to"},
		{"a leaf is far beyond the end", im.child(branch, 3), 1 << 63, "is not one of 2 to"},
		{"a branch is a leaf", im.child(root, 1), leaves[0], "is of kind 0x2"},
		{"a leaf is the free list", im.child(branch, 3), im.freeListID(), "is used twice"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := checkOrder.Uint64(test.at)
			defer checkOrder.PutUint64(test.at, before)
			checkOrder.PutUint64(test.at, test.id)
			if err := im.check(t, path); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), test.words) {
				t.Errorf("got %v; want %q", err, test.words)
			}
			wantOpenError(t, path, ErrDamaged)
		})
	}
	for _, test := range []struct {
		name  string
		patch []byte // of the head of a branch page, after the ID
		words string
	}{
		{"no elements", []byte{1, 0, 0, 0}, "has no elements"},
		{"too many elements", []byte{1, 0, 255, 255}, "has no room for 65535 elements"},
		{"overflow", []byte{1, 0, 2, 0, 100}, "goes on for 101 pages, more than"},
		{"long overflow", []byte{1, 0, 2, 0, 255, 255, 255, 255}, "beyond page"},
	} {
		t.Run(test.name, func(t *testing.T) {
			im := slices.Clone(im)
			copy(im.page(branch)[8:], test.patch)
			if err := im.check(t, path); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), test.words) {
				t.Errorf("got %v; want %q", err, test.words)
			}
		})
	}
}

// Bits of the ID of each child of a branch page are flipped: the file is refused.
func TestCheckFileTreeFlips(t *testing.T) {
	im, branches := treeImage(t)
	path := tempFile(t)
	must(t, os.WriteFile(path, im, 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	for _, branch := range branches {
		for i := range im.children(branch) {
			id := bytes.Clone(im.child(branch, i)[:8])
			at := int64(branch*checkPageSize) + checkHeadSize + int64(i)*checkElementSize + 8
			for _, bit := range []int{0, 1, 3, 5, 8, 11, 31, 63} {
				flipped := bytes.Clone(id)
				flipped[bit/8] ^= 1 << (bit % 8)
				_, err := f.WriteAt(flipped, at)
				must(t, err)
				if err := checkErr(f); !errors.Is(err, ErrDamaged) {
					t.Errorf("page %d, child %d, bit %d: %v", branch, i, bit, err)
				}
			}
			_, err := f.WriteAt(id, at)
			must(t, err)
		}
	}
}
