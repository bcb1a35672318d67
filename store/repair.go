package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Repair writes what is whole of a file that no DB has open to another, which must not
// exist. It returns what the old one holds, and the new one, in which the events that
// were lost are corrupt. The old one is left as it is.
//
// Events, receipts and streams whose page no tree leads to any more are found again, as
// long as the file's list of free pages is whole: without it what is current cannot be
// told from what was evicted or deleted.
//
// Events keep their sequences. The log keeps its name where the last sequence of each
// stream is known; else the new file is marked as a backup, and so gets a numbering of
// its own when it is opened.
//
// The errors are those of Inspect, and fs.ErrExist.
func Repair(path, to string) (old, repaired *Report, err error) {
	if _, err := os.Lstat(to); err == nil {
		return nil, nil, fmt.Errorf("%s: %w", to, fs.ErrExist)
	}
	s, err := openSurvey(path)
	if err != nil {
		return nil, nil, named(path, err)
	}
	defer s.p.f.Close()
	s.run(nil)
	old = s.finish()
	if repaired, err = s.repair(to); err != nil {
		return old, nil, fmt.Errorf("%s cannot be written: %w", to, err)
	}
	return old, repaired, nil
}

// repair copies the file that was surveyed.
func (s *survey) repair(to string) (_ *Report, err error) {
	lost := s.p.orphans()
	temp, err := tempFor(to)
	if err != nil {
		return nil, err
	}
	defer os.Remove(temp)
	into, err := newCopier(temp, fileMode(s.p.f), 0)
	if err != nil {
		return nil, err
	}
	again, err := s.again(into)
	if err != nil {
		return nil, errors.Join(err, into.abort())
	}
	again.run(lost)
	if err := into.finish(again.repairedMeta(s.uncertain), again.streams); err != nil {
		return nil, err
	}
	repaired, err := Inspect(temp)
	if err == nil {
		err = putInPlace(temp, to)
	}
	if err != nil {
		return nil, err
	}
	repaired.Path = to
	return repaired, nil
}

// repairedMeta is what the copy says of itself.
func (s *survey) repairedMeta(uncertain bool) fileMeta {
	m := fileMeta{log: s.report.Log, base: s.base, backup: s.report.Backup}
	if m.log == "" {
		m.log = newID()
	}
	if !s.metaWhole {
		for _, st := range s.streams { // they are less than renumberBy above the base
			m.base = max(m.base, st.Last/renumberBy*renumberBy)
		}
	}
	if (uncertain || s.uncertain) && m.backup.IsZero() {
		m.backup = time.Now()
	}
	return m
}

// again is a new survey of the same file, for a copy.
func (s *survey) again(into *copier) (*survey, error) {
	s.p.again()
	n := newSurvey(s.report.Path)
	n.p, n.into = s.p, into
	n.p.damaged = n.damage
	return n, n.meta()
}

// each calls visit with the pairs of leaves that no tree leads to.
func (s *survey) each(orphans []uint64, visit func(k, v []byte)) {
	for _, id := range orphans {
		pairs, _, _ := s.p.leaf("lost", id) // what there is of it
		for _, e := range pairs {
			visit(e.key, e.value)
		}
	}
	if orphans == nil {
		return
	}
	for name, ref := range s.p.buckets {
		if ref.root == 0 && !isBucket(name) {
			pairs, _, _ := pairsOf("lost", ref.inline)
			for _, e := range pairs {
				visit(e.key, e.value)
			}
		}
	}
}

func isBucket(name string) bool {
	for _, b := range allBuckets {
		if string(b) == name {
			return true
		}
	}
	return false
}

// lostState takes the state of a stream that has none otherwise.
func (s *survey) lostState(k, v []byte) {
	if st := s.streams[string(k)]; st == nil || !st.known {
		s.state(k, v)
	}
}

// lostBlock takes a block that fills a hole.
func (s *survey) lostBlock(k, v []byte) {
	b, err := parseBlock(k, v)
	if !isBlockKey(k) || err != nil || !b.parses() {
		return
	}
	name, from := nameOf(k, blockTail), b.first
	if st := s.streams[name]; st != nil && st.known {
		from = max(from, st.state.first)
	}
	if from > b.last || s.into.has(name, from, b.last) {
		return
	}
	s.into.add(name, b, from)
	low, high, _, _ := b.span(from)
	s.stream(name).extend(low, high)
}

// tempFor returns the name of a file, not there yet, that is to become another.
func tempFor(path string) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.new")
	if err != nil {
		return "", err
	}
	return f.Name(), errors.Join(f.Close(), os.Remove(f.Name()))
}

// fileMode is the mode of a file for its copy.
func fileMode(f *os.File) fs.FileMode {
	info, err := f.Stat()
	if err != nil {
		return 0o600
	}
	return info.Mode().Perm() | 0o600
}
