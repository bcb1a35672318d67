package web_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Imports point one way: cmd, web, stream, store; but the wire format, which imports
// nothing of ours, is for all. Only cmd and web log; only the store knows bbolt, only web
// Prometheus. A store's tests may know what a stream asks of it.
func TestImports(t *testing.T) {
	const root = ".." // of the module
	rooms := []string{"store", "stream", "web", "cmd"}
	room := func(path string) int { return slices.Index(rooms, strings.Split(path, "/")[0]) }
	files := map[string]int{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		path = filepath.ToSlash(path)
		rel := strings.TrimPrefix(path, root+"/")
		if d.IsDir() {
			if path != root && strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || rel == "store/storetest" {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go") || room(rel) < 0 {
			return nil
		}
		files[rooms[room(rel)]]++
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if ours, ok := strings.CutPrefix(imported, "lastevent/"); ok && ours != "stream/sse" && (room(ours) < 0 || room(ours) > room(rel)) {
				t.Errorf("%s imports %s", rel, imported)
			}
			if strings.HasPrefix(imported, "github.com/rs/zerolog") && room(rel) < room("web") {
				t.Errorf("%s logs", rel)
			}
			if strings.HasPrefix(imported, "github.com/prometheus/") && room(rel) != room("web") {
				t.Errorf("%s has metrics of its own", rel)
			}
			if strings.HasPrefix(imported, "go.etcd.io/bbolt") && room(rel) != room("store") {
				t.Errorf("%s imports bbolt", rel)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range rooms {
		if files[name] == 0 {
			t.Errorf("no file of %s was looked at", name)
		}
	}
}
