package store

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// leavesFile is a file of which each bucket has branch pages, and the last sequence of
// each stream.
func leavesFile(t testing.TB) (im checkImage, last map[string]uint64) {
	t.Helper()
	path := tempFile(t)
	db := OpenForTest(t, path, Options{Retention: leavesRetention})
	last = map[string]uint64{}
	for i := range 90 {
		appendLeaves(t, db, last, fmt.Sprintf("small/%02d", i))
	}
	for range 30 {
		appendLeaves(t, db, last, "large")
	}
	CloseForTest(t, db)
	return readClosed(t, path), last
}

var leavesRetention = Retention{Events: 20}

func leavesEvent(name string, seq uint64) string {
	return fmt.Sprint(name, " ", seq, strings.Repeat(" text", 30))
}

// appendLeaves appends the next event to a stream, under a key.
func appendLeaves(t testing.TB, db *DB, last map[string]uint64, name string) {
	t.Helper()
	b := batch(leavesEvent(name, last[name]+1))
	b.Key = fmt.Sprint("key ", last[name])
	r, err := db.Log(name).Append(t.Context(), b)
	switch {
	case err == nil && r.Last == last[name]+1:
		last[name]++
	case err == nil, errors.Is(err, ErrUnknown), !errors.Is(err, ErrDamaged):
		t.Errorf("stream %s: the append after %d returns %+v, %v", name, last[name], r, err)
	}
}

// branchesOf are the IDs of the branch pages of a bucket, the root first.
func (im checkImage) branchesOf(t testing.TB, path string, bucket []byte) (branches []uint64) {
	t.Helper()
	look(t, path, func(tx *bolt.Tx) error {
		branches = []uint64{uint64(tx.Bucket(bucket).Root())}
		return nil
	})
	for i := 0; i < len(branches); i++ {
		for _, child := range im.children(branches[i]) {
			if checkOrder.Uint16(im.page(child)[8:]) == checkBranch {
				branches = append(branches, child)
			}
		}
	}
	return branches
}

// useLeaves opens a damaged file, reads each stream and appends to it, and that again.
// Either opening it says that it is damaged, and leaves it as it was, or an append
// returns the next sequence or says that it is damaged, what is read is what was
// appended or corrupt, and the file can be opened again.
func useLeaves(t testing.TB, path string, content []byte, last map[string]uint64) (refused bool) {
	t.Helper()
	must(t, os.WriteFile(path, content, 0o600))
	last = maps.Clone(last)
	for round := range 2 {
		db, err := Open(path, Options{Retention: leavesRetention})
		if err != nil {
			if round > 0 || !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrForeign) && !errors.Is(err, ErrVersion) {
				t.Errorf("opening for the %d. time: %v", round+1, err)
			}
			if now, err := os.ReadFile(path); err != nil || round == 0 && !bytes.Equal(now, content) {
				t.Errorf("a file that is refused was changed, %v", err)
			}
			return true
		}
		for _, name := range slices.Sorted(maps.Keys(last)) {
			readLeaves(t, db, name, last[name])
			if round == 0 { // in a commit of its own
				appendLeaves(t, db, last, name)
			}
		}
		if round == 1 {
			appendAll(t, db, last)
		}
		for name := range last {
			readLeaves(t, db, name, last[name])
		}
		if db.failure.Load() != nil {
			t.Errorf("the store says %v", db.Err())
		}
		must(t, db.Close())
	}
	db, err := Open(path, Options{Retention: leavesRetention})
	if err != nil {
		t.Errorf("opening once more: %v", err)
		return false
	}
	must(t, db.Close())
	return false
}

// appendAll appends the next event to each stream at once.
func appendAll(t testing.TB, db *DB, last map[string]uint64) {
	var wg sync.WaitGroup
	var mu sync.Mutex // guards after
	after := map[string]uint64{}
	for name, seq := range last {
		wg.Go(func() {
			one := map[string]uint64{name: seq}
			appendLeaves(t, db, one, name)
			mu.Lock()
			defer mu.Unlock()
			after[name] = one[name]
		})
	}
	wg.Wait()
	maps.Copy(last, after)
}

// readLeaves reads a stream up to its last event, past what is corrupt.
func readLeaves(t testing.TB, db *DB, name string, last uint64) {
	t.Helper()
	b, err := db.Log(name).Bounds(t.Context())
	if errors.Is(err, ErrDamaged) {
		return
	}
	if err != nil || b.Last != last || b.Last-b.First >= leavesRetention.Events {
		t.Errorf("stream %s: %+v, %v; the last is %d", name, b, err, last)
		return
	}
	for after := b.First - 1; after < last; {
		_, err := db.Log(name).Read(t.Context(), after, func(e Event) bool {
			if e.Seq != after+1 || string(e.Data) != leavesEvent(name, e.Seq) {
				t.Errorf("stream %s: event %d, %.40q, comes after %d", name, e.Seq, e.Data, after)
			}
			after = e.Seq
			return true
		})
		var c *CorruptError
		switch {
		case errors.As(err, &c) && c.Last > after && c.Last <= last:
			after = c.Last
		case err != nil:
			t.Errorf("stream %s: read after %d: %v", name, after, err)
			return
		}
	}
}

// TestDamagedBranchKeys damages, in turn, each key of the branch pages so that they
// still ascend.
func TestDamagedBranchKeys(t *testing.T) {
	im, last := leavesFile(t)
	path := writeTemp(t, im)
	for _, bucket := range [][]byte{stateBucket, eventsBucket, keysBucket, orderBucket} {
		for _, branch := range im.branchesOf(t, path, bucket) {
			for i := range im.children(branch) {
				t.Run(fmt.Sprintf("%s/page %d/%d", bucket, branch, i), func(t *testing.T) {
					t.Parallel()
					damaged := slices.Clone(im)
					key := branchKey(damaged.page(branch), i)
					key[len(key)-1] ^= 1
					refused := useLeaves(t, filepath.Join(memoryDir(t), "store.db"), damaged, last)
					if !refused && bytes.Equal(bucket, stateBucket) {
						t.Error("the file is not refused")
					}
				})
			}
		}
	}
}

// TestDamagedOverflow has each leaf say that it goes on for a page more.
func TestDamagedOverflow(t *testing.T) {
	im, last := leavesFile(t)
	path := writeTemp(t, im)
	for _, bucket := range [][]byte{stateBucket, eventsBucket, keysBucket, orderBucket} {
		for _, branch := range im.branchesOf(t, path, bucket) {
			for _, leaf := range im.children(branch) {
				if checkOrder.Uint16(im.page(leaf)[8:]) != checkLeaf || leaf+1 == im.pages() {
					continue
				}
				t.Run(fmt.Sprintf("%s/page %d", bucket, leaf), func(t *testing.T) {
					t.Parallel()
					damaged := slices.Clone(im)
					damaged.page(leaf)[12]++
					useLeaves(t, filepath.Join(memoryDir(t), "store.db"), damaged, last)
				})
			}
		}
	}
}

// TestLeafOverAnother has a leaf on a page that another one goes on over.
func TestLeafOverAnother(t *testing.T) {
	im, last := leavesFile(t)
	path := writeTemp(t, im)
	db := OpenForTest(t, path, Options{})
	mustAppend(t, db.Log("big"), strings.Repeat("x", 3*pageSize))
	CloseForTest(t, db)
	im = readClosed(t, path)
	under := uint64(0)
	for _, branch := range im.branchesOf(t, path, eventsBucket) {
		for _, leaf := range im.children(branch) {
			if checkOrder.Uint32(im.page(leaf)[12:]) > 1 {
				under = leaf + 1
			}
		}
	}
	root := im.branchesOf(t, path, keysBucket)[0]
	copy(im.page(under), im.page(im.children(root)[1]))
	checkOrder.PutUint64(im.page(under), under)
	checkOrder.PutUint64(im.child(root, 1), under)
	useLeaves(t, path, im, last)
}

// TestShortKeyBesideUnreadablePage has a page with a key that is too short for a block's
// in the way of what is evicted, and one that cannot be read.
func TestShortKeyBesideUnreadablePage(t *testing.T) {
	path := tempFile(t)
	db := OpenForTest(t, path, Options{})
	for range 300 {
		mustAppend(t, db.Log("s"), strings.Repeat("x", 1200)) // so that a block has one
	}
	CloseForTest(t, db)
	im := checkImage(readClosed(t, path))
	key := blockKey(nil, "s", 0x80)
	for _, branch := range im.branchesOf(t, path, eventsBucket) {
		for i, leaf := range im.children(branch) {
			page := im.page(leaf)
			if checkOrder.Uint16(page[8:]) != checkLeaf {
				continue
			}
			if i == 3 {
				page[8] ^= 1
			}
			for n := range int(checkOrder.Uint16(page[10:])) {
				e := page[checkHeadSize+n*checkElementSize:]
				if pos, size := checkOrder.Uint32(e[4:]), checkOrder.Uint32(e[8:]); bytes.Equal(e[pos:][:size], key) {
					e[pos+size-2] = 1 // what begins with this comes after the keys around it
					checkOrder.PutUint32(e[8:], size-1)
					checkOrder.PutUint32(e[12:], checkOrder.Uint32(e[12:])+1)
				}
			}
		}
	}
	db = openUnchecked(t, writeTemp(t, im), Options{Retention: Retention{Events: 10}})
	if r := mustAppend(t, db.Log("s"), "x"); r.Last != 301 {
		t.Errorf("the next is %d", r.Last)
	}
}

// TestCommitsPassLook looks at all leaves of a bucket after each of many commits. bbolt
// updates the key that leads to a leaf with the first key on it.
func TestCommitsPassLook(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			lookAfterCommits(t, seed, rounds(500, 5000))
		})
	}
}

func lookAfterCommits(t *testing.T, seed uint64, commits int) {
	path := tempFile(t)
	b, err := bolt.Open(path, 0o600, &checkOptions)
	must(t, err)
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	random := rand.New(rand.NewPCG(seed, 4))
	leaves, most := 0, 0
	for n := range commits {
		if n%50 == 49 {
			must(t, b.Close())
			b, err = bolt.Open(path, 0o600, &checkOptions)
			must(t, err)
		}
		must(t, b.Update(func(tx *bolt.Tx) error {
			bucket, err := tx.CreateBucketIfNotExists([]byte("bucket"))
			must(t, err)
			if seed%2 == 1 {
				bucket.FillPercent = 1
			}
			randomChanges(t, random, bucket, n)
			return nil
		}))
		c, err := checkFile(f)
		must(t, err)
		must(t, b.View(func(tx *bolt.Tx) error {
			r := pageReader{opened: c}
			r.begin(tx)
			tree := r.tree(tx.Bucket([]byte("bucket")))
			for p, err := range tree.places(nil, nil) {
				must(t, errors.Join(err, tree.look(p)))
				leaves++
			}
			most = max(most, len(r.branches))
			return nil
		}))
	}
	must(t, b.Close())
	if t.Logf("%d leaves, at most %d branch pages at a time", leaves, most); most < 3 {
		t.Error("the trees are low")
	}
}

// randomChanges puts and deletes keys of all lengths, now and then first ones, and runs.
func randomChanges(t *testing.T, random *rand.Rand, b *bolt.Bucket, n int) {
	for range random.IntN(60) {
		i := random.IntN(6000)
		key := fmt.Appendf(nil, "%06d%s", i, strings.Repeat("k", i%200))
		switch cur := b.Cursor(); random.IntN(6) {
		case 0, 1:
			must(t, b.Put(key, make([]byte, random.IntN(1<<random.IntN(14)))))
		case 2:
			must(t, b.Put(key, nil))
		case 3:
			must(t, b.Delete(key))
		case 4:
			if k, _ := cur.First(); k != nil {
				must(t, cur.Delete())
			}
		case 5: // a run, in some commits of nearly all
			for range random.IntN(4 + n%200/199*1000) {
				if k, _ := cur.Seek(key); k == nil {
					break
				}
				must(t, cur.Delete())
			}
		}
	}
}

// TestFlippedBitAnywhere flips a bit of many of the bytes of each page of a file.
func TestFlippedBitAnywhere(t *testing.T) {
	im, last := leavesFile(t)
	step := rounds(401, 7)
	t.Logf("%d pages", im.pages())
	for page := range int(im.pages()) {
		t.Run(fmt.Sprint("page ", page), func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(memoryDir(t), "store.db")
			refused, flips := 0, 0
			for at := page % step; at < pageSize && !t.Failed(); at += step {
				bit := (page + at + at/8) % 8
				damaged := slices.Clone(im)
				damaged[page*pageSize+at] ^= 1 << bit
				if flips++; useLeaves(t, path, damaged, last) {
					refused++
				}
				if t.Failed() {
					t.Logf("with byte %d, bit %d", at, bit)
				}
			}
			t.Logf("of %d, %d are refused", flips, refused)
		})
	}
}
