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

// LoseForTest makes the answer that was read last one of which only so many messages came.
func (db *DB) LoseForTest(name string, came int) {
	k := db.log(name)
	k.mu.Lock()
	defer k.mu.Unlock()
	last := &k.chunks[len(k.chunks)-1]
	last.blocks = last.blocks[:came]
}
