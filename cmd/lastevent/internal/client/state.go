package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// A State keeps the position in a stream in a file, for whoever goes on there. It is
// locked against a second one, by a file beside it.
type State struct {
	path  string
	lock  *os.File
	saved record
	there bool // the file, also after a power cut
}

// record is what the file holds.
type record struct {
	Stream string `json:"stream"`
	Position
}

// OpenState opens the state of a stream, which is empty where there is no such file.
func OpenState(path, stream string) (s *State, err error) {
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	if err := lockFile(lock); err != nil {
		return nil, fmt.Errorf("%s is in use by another process: %w", path, err)
	}
	s = &State{path: path, lock: lock, saved: record{Stream: stream}}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &s.saved); err != nil || s.saved.ID == "" {
		return nil, fmt.Errorf("%s does not hold a position: %.100q; to begin anew, remove it", path, text)
	}
	if s.saved.Stream != stream {
		return nil, fmt.Errorf("%s is of the stream %s, not of %s", path, s.saved.Stream, stream)
	}
	s.there = true
	return s, nil
}

// Position returns what was saved last.
func (s *State) Position() Position { return s.saved.Position }

// Save keeps the position. At any time the file has this one or an earlier one; after a
// power cut, too.
func (s *State) Save(p Position) error {
	if p == s.saved.Position || p.ID == "" {
		return nil
	}
	next := record{s.saved.Stream, p}
	text, err := json.Marshal(next)
	if err == nil {
		err = replaceFile(s.path, append(text, '\n'))
	}
	if err == nil && !s.there {
		err = syncFolder(filepath.Dir(s.path))
	}
	if err == nil {
		s.saved, s.there = next, true
	}
	return err
}

// Close lets the next process have the state.
func (s *State) Close() error { return s.lock.Close() }

func replaceFile(path string, content []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// syncFolder makes durable which files a folder has.
func syncFolder(path string) error {
	if runtime.GOOS == "windows" { // which cannot
		return nil
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
