package store

import (
	"fmt"
	"slices"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// TestUnreadablePage damages the head of each page with events, so that bbolt does not
// read it: what is on it is corrupt, and the rest is read.
func TestUnreadablePage(t *testing.T) {
	path := tempFile(t)
	db := OpenForTest(t, path, Options{})
	for seq := range 300 {
		mustAppend(t, db.Log("s"), fmt.Sprintf("%c%d", 'a'+seq%3, seq/3))
	}
	CloseForTest(t, db)
	im := checkImage(readClosed(t, path))
	var leaves []uint64
	look(t, path, func(tx *bolt.Tx) error {
		leaves = im.children(uint64(tx.Bucket(eventsBucket).Root()))
		leaves = leaves[1 : len(leaves)-1] // the heads of the others are read by Open
		return nil
	})
	var all []uint64
	for _, leaf := range leaves {
		damaged := slices.Clone(im)
		damaged.page(leaf)[8] ^= 1
		db := openUnchecked(t, writeTemp(t, damaged), Options{})
		read, corrupt := readOn(t, db.Log("s"))
		if len(corrupt) == 0 || len(read)+len(corrupt) != 300 || corrupt[len(corrupt)-1]-corrupt[0] != uint64(len(corrupt)-1) {
			t.Errorf("page %d: %d events are read, and corrupt are %d", leaf, len(read), corrupt)
		}
		all = append(all, corrupt...)
	}
	if len(all) < 100 || all[len(all)-1]-all[0] != uint64(len(all)-1) {
		t.Errorf("corrupt of one page or the other are %d", all)
	}
}
