package jetstream

import js "github.com/nats-io/nats.go/jetstream"

// SweepForTest removes what is expired now.
func (db *DB) SweepForTest() { db.sweepAll() }

// JetStreamForTest is for looking at what is stored.
func (db *DB) JetStreamForTest() js.JetStream { return db.js }

// URLOf parses a URL for Open.
func URLOf(text string) (servers, name string, replicas int, err error) {
	t, err := parseURL(text)
	return t.servers, t.name, t.replicas, err
}
