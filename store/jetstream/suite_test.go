package jetstream_test

import (
	"testing"

	"lastevent/store/jetstream"
	"lastevent/store/storetest"
	"lastevent/stream"
)

func TestEngine(t *testing.T) {
	storetest.Run(t, func(t *testing.T, o storetest.Options) storetest.Engine {
		return openEngine(t, newURL(t), o)
	})
}

// An engine is a DB as the suite wants it.
type engine struct {
	db      *jetstream.DB
	url     string
	options storetest.Options
}

func openEngine(t *testing.T, url string, o storetest.Options) engine {
	return engine{open(t, url, jetstream.Options{Retention: o.Retention}), url, o}
}

func (e engine) Log(name string) stream.Log { return e.db.Log(name) }

func (e engine) Reopen(t *testing.T) storetest.Engine {
	if err := e.db.Close(); err != nil {
		t.Fatal(err)
	}
	return openEngine(t, e.url, e.options)
}
