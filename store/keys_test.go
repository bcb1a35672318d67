package store

import (
	"testing"

	bolt "go.etcd.io/bbolt"
)

// TestKeyOfADeletedEventIsFree deletes more than is removed in two transactions.
func TestKeyOfADeletedEventIsFree(t *testing.T) {
	const last = 3 * maxRemoved
	path := tempFile(t)
	db := OpenForTest(t, path, Options{})
	keyed := batch("a")
	keyed.Key = "key"
	if r, err := db.Log("s").Append(t.Context(), keyed); err != nil || r.Last != 1 {
		t.Fatal(r, err)
	}
	if r, err := db.Log("s").Append(t.Context(), Batch{Events: make([]Event, last-1)}); err != nil || r.Last != last {
		t.Fatal(r, err)
	}
	CloseForTest(t, db)
	edit(t, path, func(tx *bolt.Tx) error { // something to remove for each event
		events := tx.Bucket(eventsBucket)
		for seq := range uint64(last) {
			key := blockKey(nil, "s", seq)
			if events.Get(key) == nil {
				must(t, events.Put(key, nil))
			}
		}
		return nil
	})

	db = OpenForTest(t, path, Options{})
	must(t, db.Log("s").Delete(t.Context()))
	r, err := db.Log("s").Append(t.Context(), keyed)
	if want := (Receipt{Last: last + 1, Count: 1}); err != nil || r != want {
		t.Fatalf("append with the key of a deleted event: %+v, %v; want %+v", r, err, want)
	}
	for range 2 { // while the rest is removed, and after a reopen
		r, err := db.Log("s").Append(t.Context(), keyed)
		if want := (Receipt{Last: last + 1, Count: 1, Replayed: true}); err != nil || r != want {
			t.Errorf("once more: %+v, %v; want %+v", r, err, want)
		}
		CloseForTest(t, db)
		db = OpenForTest(t, path, Options{})
	}
}
