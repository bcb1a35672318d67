package client_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"lastevent/cmd/lastevent/internal/client"
)

func TestState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	open := func() *client.State {
		t.Helper()
		s, err := client.OpenState(path, "a/b")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	for _, p := range []client.Position{{}, {ID: "0", Log: "l"}, {ID: "18446744073709551615", Log: "l"}, {ID: "3", Log: "another"}} {
		if err := s.Save(p); err != nil || s.Position() != p {
			t.Errorf("saved %+v, and has %+v; %v", p, s.Position(), err)
		}
		if _, err := client.OpenState(path, "a/b"); err == nil {
			t.Error("two have it")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s = open(); s.Position() != p {
			t.Errorf("saved %+v, and reads %+v", p, s.Position())
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err := client.OpenState(path, "a"); err == nil {
		s.Close()
		t.Error("it is another stream's")
	}
	files, err := filepath.Glob(path + "*")
	if want := []string{path, path + ".lock"}; err != nil || !slices.Equal(files, want) {
		t.Errorf("there are %q, %v; want %q", files, err, want)
	}
}

// A state that cannot be written is an error, and leaves the one before.
func TestStateThatCannotBeWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s, err := client.OpenState(path, "s")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before := client.Position{ID: "1", Log: "l"}
	if err := s.Save(before); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(client.Position{ID: "2", Log: "l"}); err == nil || s.Position() != before {
		t.Errorf("%v, and it is at %+v", err, s.Position())
	}
}
