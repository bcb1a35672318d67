package store_test

import (
	"path/filepath"
	"testing"

	"lastevent/store"
	"lastevent/store/storetest"
	"lastevent/stream"
)

func TestEngine(t *testing.T) {
	storetest.Run(t, func(t *testing.T, o storetest.Options) storetest.Engine {
		return openEngine(t, filepath.Join(t.TempDir(), "store.db"), o)
	})
}

// An engine is a DB as the suite wants it.
type engine struct {
	db      *store.DB
	path    string
	options storetest.Options
}

func openEngine(t *testing.T, path string, o storetest.Options) engine {
	return engine{store.OpenForTest(t, path, store.Options{Retention: o.Retention}), path, o}
}

func (e engine) Log(name string) stream.Log { return e.db.Log(name) }

func (e engine) Reopen(t *testing.T) storetest.Engine {
	store.CloseForTest(t, e.db)
	return openEngine(t, e.path, e.options)
}
