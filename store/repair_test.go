package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
)

// TestRepairFlips flips a bit on each page of a file, in many places: repaired, it holds
// all events but those of the block that was hit, and nothing that it did not hold before.
func TestRepairFlips(t *testing.T) {
	t.Run("small", func(t *testing.T) { t.Parallel(); repairFlips(t, false, 5) })
	t.Run("large", func(t *testing.T) { t.Parallel(); repairFlips(t, true, 1) })
}

func repairFlips(t *testing.T, large bool, each int) {
	dir := filepath.Join(memoryDir(t), "image")
	must(t, os.Mkdir(dir, 0o700))
	path := filepath.Join(dir, "store.db")
	want := variedFile(t, path, large)
	content := readClosed(t, path)
	hit := eventBytes(t, path, content)
	if long {
		each *= 20
	}
	log := []byte(want["ring"].Bounds.Log)
	rng := rand.New(rand.NewPCG(1, 2))
	flips, corrupt, renumbered := 0, 0, 0
	for page := range len(content) / pageSize {
		offsets := []int{8, 10, 12, 16, 20, 24, 28, 32} // of the head and the first element
		rng.Shuffle(len(offsets), func(i, j int) { offsets[i], offsets[j] = offsets[j], offsets[i] })
		offsets = offsets[:min(2*each, len(offsets))]
		for range each {
			offsets = append(offsets, rng.IntN(pageSize))
		}
		for i, offset := range offsets {
			image := slices.Clone(content)
			bit := rng.IntN(8)
			at := page*pageSize + offset
			image[at] ^= 1 << bit
			if bytes.Count(image, log) < bytes.Count(content, log) {
				continue // the bit was one of the log's name, which has no checksum
			}
			must(t, os.WriteFile(path, image, 0o600))
			to := fmt.Sprint(path, page, "-", i)
			old, repaired, err := Repair(path, to)
			if errors.Is(err, ErrVersion) {
				continue // the bit was one of the format's number
			}
			if err != nil {
				t.Fatalf("page %d, byte %d, bit %d: %v", page, offset, bit, err)
			}
			db, err := Open(to, Options{Retention: Retention{Events: 40}})
			if err != nil {
				t.Fatalf("page %d, byte %d, bit %d: %v; damage %q", page, offset, bit, err, old.Damage)
			}
			got := contents(t, db)
			if err := compareRepaired(want, got, db.BackupOf(), hit[at]); err != nil || len(repaired.Damage) > 0 {
				t.Errorf("page %d, byte %d, bit %d: %v; damage %q, then %q", page, offset, bit, err, old.Damage, repaired.Damage)
			}
			flips++
			if len(corruptOf(repaired)) > 0 {
				corrupt++
			}
			if db.BackupOf() != "" {
				renumbered++
			}
			if old.Whole() && !old.TornMeta && (!cmp.Equal(want, got) || db.BackupOf() != "") {
				t.Errorf("page %d, byte %d, bit %d: the damage is not seen", page, offset, bit)
			}
			must(t, db.Close())
			must(t, os.Remove(to))
		}
	}
	t.Logf("%d flips on %d pages; %d times events were lost, %d times there is a new numbering", flips, len(content)/pageSize, corrupt, renumbered)
	if corrupt == 0 || renumbered == 0 {
		t.Error("the flips do no damage")
	}
}

// eventBytes tells, of each byte of a file that belongs to a block of events, the events
// that the block holds.
func eventBytes(t *testing.T, path string, content []byte) map[int]CorruptError {
	t.Helper()
	hit := map[int]CorruptError{}
	look(t, path, func(tx *bolt.Tx) error {
		return tx.Bucket(eventsBucket).ForEach(func(k, v []byte) error {
			b, err := parseBlock(k, v)
			kv := slices.Concat(k, v)
			for at := bytes.Index(content, kv); at >= 0; {
				for i := range kv {
					hit[at+i] = CorruptError{streamOf(k), b.first, b.last}
				}
				// And the element that leads to it, which ends with the sizes of both.
				sizes := checkOrder.AppendUint32(checkOrder.AppendUint32(nil, uint32(len(k))), uint32(len(v)))
				for e := at / 16 * 16; e > at-pageSize && e >= 16; e-- {
					if bytes.Equal(content[e-8:e], sizes) && e-16+int(checkOrder.Uint32(content[e-12:])) == at {
						for i := range 16 {
							hit[e-16+i] = CorruptError{streamOf(k), b.first, b.last}
						}
					}
				}
				next := bytes.Index(content[at+1:], kv)
				if next < 0 {
					break
				}
				at += 1 + next
			}
			return err
		})
	})
	return hit
}

// compareRepaired says what a repaired file has that it must not have, or has not.
func compareRepaired(want, got map[string]stored, backupOf string, hit CorruptError) error {
	shift := uint64(0)
	if backupOf != "" {
		shift = renumberBy
	}
	for name, w := range want {
		g, ok := got[name]
		switch {
		case !ok && shift == 0:
			return fmt.Errorf("stream %q is gone, and its numbers may be given again", name)
		case shift == 0 && (g.Bounds.Last != w.Bounds.Last || g.Bounds.First != w.Bounds.First || g.Bounds.Closed != w.Bounds.Closed || g.Bounds.Log != w.Bounds.Log):
			return fmt.Errorf("stream %q: %+v; was %+v", name, g.Bounds, w.Bounds)
		case shift > 0 && g.Bounds.Log == w.Bounds.Log:
			return fmt.Errorf("stream %q: renumbered in the same log", name)
		}
		for _, e := range w.Events {
			e.Seq += shift
			i := slices.IndexFunc(g.Events, func(x Event) bool { return x.Seq == e.Seq })
			lost := name == hit.Stream && e.Seq-shift >= hit.First && e.Seq-shift <= hit.Last
			if i < 0 && !lost {
				return fmt.Errorf("stream %q: event %d is lost", name, e.Seq)
			}
			if i >= 0 && !cmp.Equal(g.Events[i], e) {
				return fmt.Errorf("stream %q: event %d is another", name, e.Seq)
			}
		}
		if len(g.Events) > len(w.Events) {
			return fmt.Errorf("stream %q has %d events; had %d", name, len(g.Events), len(w.Events))
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			return fmt.Errorf("stream %q is new", name)
		}
	}
	return nil
}
