package store

import (
	"bytes"
	"cmp"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// sectorSize is what a disk writes wholly or not at all.
const sectorSize = 512

// A disk is a folder as a recorded run changes it. Of each file, and of the names,
// it has what is known to be on the disk, and the changes since the last sync, of
// which a power cut may leave any.
type disk struct {
	files map[int]*diskFile
	names map[string]int
	since []map[string]int
}

type diskFile struct {
	data  []byte
	since []call // write, truncate
}

func newDisk() *disk { return &disk{files: map[int]*diskFile{}, names: map[string]int{}} }

func (d *disk) file(n int) *diskFile {
	if d.files[n] == nil {
		d.files[n] = &diskFile{}
	}
	return d.files[n]
}

// apply does what a call did.
func (d *disk) apply(c call) {
	switch c.kind {
	case callWrite, callTruncate:
		f := d.file(c.file)
		f.since = append(f.since, c)
	case callSync:
		f := d.file(c.file)
		for _, c := range f.since {
			f.data = c.on(f.data, allSectors)
		}
		f.since = nil
	case callRename:
		d.since = append(d.since, c.name)
	case callSyncDir:
		for _, names := range d.since {
			applyNames(d.names, names)
		}
		d.since = nil
	}
}

func allSectors() bool { return true }

// on returns the file's content after the call, of which those sectors are written
// that written says.
func (c call) on(data []byte, written func() bool) []byte {
	if c.kind == callTruncate {
		return resize(data, c.size)
	}
	end := c.at + int64(len(c.data))
	data = resize(data, max(end, int64(len(data))))
	for from := c.at; from < end; {
		to := min(from-from%sectorSize+sectorSize, end)
		if written() {
			copy(data[from:to], c.data[from-c.at:to-c.at])
		}
		from = to
	}
	return data
}

func resize(data []byte, size int64) []byte {
	if more := size - int64(len(data)); more > 0 {
		return append(data, make([]byte, more)...)
	}
	return data[:size]
}

// A powerCut decides what becomes of the changes that are not synced.
type powerCut struct {
	rnd  *rand.Rand
	kind cutKind
	one  float64 // which change is the one: of how many
}

type cutKind int

const (
	cutNone    cutKind = iota // none is there
	cutAll                    // all are
	cutSome                   // each is there or not
	cutTorn                   // of each some sectors are
	cutFirst                  // all before one; that one is torn
	cutButOne                 // all but one, which is not there or torn
	cutOnlyOne                // only one
	cutKinds
)

func newCut(rnd *rand.Rand) powerCut {
	c := powerCut{rnd: rnd, kind: cutKind(rnd.IntN(int(cutKinds))), one: rnd.Float64()}
	if rnd.IntN(3) == 0 {
		c.one = 1 // the last, which is where a commit becomes one
	}
	return c
}

// written returns a function that says which sectors of the i-th of n changes are written.
func (c powerCut) written(i, n int) func() bool {
	none, torn := func() bool { return false }, func() bool { return c.rnd.IntN(2) == 0 }
	one := min(int(c.one*float64(n)), n-1)
	switch c.kind {
	case cutAll:
		return allSectors
	case cutSome:
		return [...]func() bool{none, allSectors}[c.rnd.IntN(2)]
	case cutTorn:
		return torn
	case cutFirst:
		return [...]func() bool{allSectors, torn, none}[cmp.Compare(i, one)+1]
	case cutButOne:
		if i == one {
			return [...]func() bool{none, torn}[c.rnd.IntN(2)]
		}
		return allSectors
	case cutOnlyOne:
		if i == one {
			return [...]func() bool{allSectors, torn}[c.rnd.IntN(2)]
		}
	}
	return none
}

// content returns what the cut leaves of a file. Its size is one that it had since
// the last sync, whatever was written.
func (c powerCut) content(f *diskFile) []byte {
	data := slices.Clone(f.data)
	size, sizes := int64(len(data)), []int64{int64(len(data))}
	for i, change := range f.since {
		data = change.on(data, c.written(i, len(f.since)))
		if size = max(size, change.at+int64(len(change.data))); change.kind == callTruncate {
			size = change.size
		}
		sizes = append(sizes, size)
	}
	switch c.kind {
	case cutNone:
		size = sizes[0]
	case cutAll:
	default:
		size = sizes[c.rnd.IntN(len(sizes))]
	}
	return resize(data, size)
}

// leave writes to dir what a power cut leaves of the folder.
func (d *disk) leave(dir string, c powerCut) error {
	names := maps.Clone(d.names)
	for i, change := range d.since {
		if c.written(i, len(d.since))() {
			applyNames(names, change)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		data := c.content(d.file(names[name]))
		path, size := filepath.Join(dir, name), int64(len(data))
		data = bytes.TrimRight(data, "\x00") // zeros at the end take no space
		if err := cmp.Or(os.WriteFile(path, data, 0o600), os.Truncate(path, size)); err != nil {
			return err
		}
	}
	return nil
}
