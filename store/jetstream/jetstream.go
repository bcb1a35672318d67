// Package jetstream keeps numbered events in NATS JetStream, for any number of servers
// that read and append at the same time.
package jetstream

import (
	"context"
	"errors"
	"iter"

	"lastevent/store"
)

// Options are how a DB keeps its logs.
type Options struct {
	Retention store.Retention
	// MaxStreams is how many streams can be written in all, as far as this DB has heard
	// of them; 0 is no limit.
	MaxStreams int
	// LogID names the numbering where the JetStream stream is created; empty: one is drawn.
	LogID string
	// Observer is told of what this DB appends; nil: nobody.
	Observer store.Observer
}

// A DB is the logs in one JetStream stream.
type DB struct{}

// A Log is the events of one stream.
type Log struct{ db *DB }

var errStub = errors.New("not there yet")

// Open connects to the servers of the URL
//
//	nats://[user:password@]host:port[,nats://host:port…][/NAME][?replicas=N][&creds=FILE]
//
// and creates the JetStream stream NAME (lastevent) where it is missing, on three
// servers unless the URL says otherwise. It waits for JetStream until the context ends.
func Open(ctx context.Context, url string, o Options) (*DB, error) { return nil, errStub }

// CheckURL returns what is wrong with a URL for Open, without connecting.
func CheckURL(url string) error { return nil }

func (db *DB) Log(name string) *Log                                { return &Log{db} }
func (db *DB) Streams(ctx context.Context) ([]store.Stream, error) { return nil, errStub }
func (db *DB) StreamCount() int                                    { return 0 }
func (db *DB) ID() string                                          { return "" }
func (db *DB) Err() error                                          { return errStub }
func (db *DB) Close() error                                        { return nil }

// Import copies a log whose name is not in use yet, with its sequences, times, keys.
func (db *DB) Import(ctx context.Context, name string, b store.Bounds, keys []store.UsedKey, events iter.Seq2[store.Event, error]) error {
	return errStub
}

func (l *Log) Bounds(ctx context.Context) (store.Bounds, error) { return store.Bounds{}, errStub }
func (l *Log) Read(ctx context.Context, after uint64, yield func(store.Event) bool) (store.Bounds, error) {
	return store.Bounds{}, errStub
}
