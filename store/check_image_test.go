package store

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"runtime/debug"
	"slices"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// A checkImage is the content of a file.
type checkImage []byte

func (im checkImage) page(id uint64) []byte { return im[id*checkPageSize:][:checkPageSize] }

// meta is the meta page that bbolt goes by, from its magic on.
func (im checkImage) meta() []byte {
	a, b := im.page(0)[checkHeadSize:], im.page(1)[checkHeadSize:]
	if checkOrder.Uint64(b[48:]) > checkOrder.Uint64(a[48:]) {
		return b
	}
	return a
}

func (im checkImage) rootID() uint64 { return checkOrder.Uint64(im.meta()[16:]) }

func (im checkImage) freeListID() uint64 { return checkOrder.Uint64(im.meta()[32:]) }

func (im checkImage) pages() uint64 { return checkOrder.Uint64(im.meta()[40:]) }

func (im checkImage) root() []byte { return im.page(im.rootID()) }

func (im checkImage) freeList() []byte { return im.page(im.freeListID()) }

// element is the i-th element of the root page: events, lastevent, streams.
func (im checkImage) element(i int) []byte {
	return im.root()[checkHeadSize+i*checkElementSize:]
}

// bucket is the value of the i-th element of the root page.
func (im checkImage) bucket(i int) []byte {
	e := im.element(i)
	at := checkOrder.Uint32(e[4:]) + checkOrder.Uint32(e[8:])
	return e[at:][:checkOrder.Uint32(e[12:])]
}

// bucketName is the key of the i-th element of the root page.
func (im checkImage) bucketName(i int) []byte {
	e := im.element(i)
	return e[checkOrder.Uint32(e[4:]):][:checkOrder.Uint32(e[8:])]
}

// freeIDs are the bytes of the IDs in the free list.
func (im checkImage) freeIDs() []byte {
	p := im.freeList()
	return p[checkHeadSize:][:8*checkOrder.Uint16(p[10:])]
}

// setFree has the free list name a page, in the place of another.
func (im checkImage) setFree(id uint64) {
	var ids []uint64
	b := im.freeIDs()
	for at := 8; at < len(b); at += 8 {
		ids = append(ids, checkOrder.Uint64(b[at:]))
	}
	ids = append(ids, id)
	slices.Sort(ids)
	for i, id := range ids {
		checkOrder.PutUint64(b[8*i:], id)
	}
}

// sum gives both meta pages the checksum that their content has.
func (im checkImage) sum() {
	for _, at := range []int{checkHeadSize, checkPageSize + checkHeadSize} {
		if len(im) < at+checkMetaSize+8 {
			return
		}
		h := fnv.New64a()
		h.Write(im[at:][:checkMetaSize])
		checkOrder.PutUint64(im[at+checkMetaSize:], h.Sum64())
	}
}

// setMeta sets a field of both meta pages.
func (im checkImage) setMeta(at int, v uint64) {
	for id := range uint64(2) {
		checkOrder.PutUint64(im.page(id)[checkHeadSize+at:], v)
	}
	im.sum()
}

func checkMust(err error) {
	if err != nil {
		panic(err)
	}
}

func checkPut(b *bolt.Bucket, from, n, size int) {
	for i := range n {
		checkMust(b.Put(fmt.Appendf(nil, "key %06d", from+i), make([]byte, size)))
	}
}

// checkErr is what checkFile says.
func checkErr(f *os.File) error {
	_, err := checkFile(f)
	return err
}

// check runs checkFile on the image, and sees that it leaves the file as it was.
func (im checkImage) check(t testing.TB, path string) error {
	t.Helper()
	if err := os.WriteFile(path, im, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, checkErr := checkFile(f)
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(after, im) {
		t.Fatalf("checkFile changed the file (%v)", err)
	}
	return checkErr
}

// opens opens the image with bbolt and runs an update, and returns what that panics with.
func (im checkImage) opens(t testing.TB, path string, update func(*bolt.Tx) error) (err error) {
	t.Helper()
	if err := os.WriteFile(path, im, 0o600); err != nil {
		t.Fatal(err)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	b, err := bolt.Open(path, 0o600, &checkOptions)
	if err != nil {
		return err
	}
	return errors.Join(b.Update(update), b.Close())
}
