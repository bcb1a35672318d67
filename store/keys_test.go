package store

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
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

// The keys in use are those whose events are retained, and those that closed.
func TestUsedKeys(t *testing.T) {
	path := tempFile(t)
	db := OpenForTest(t, path, Options{Retention: Retention{Events: 3}})
	use := func(name, key string, b Batch) UsedKey {
		t.Helper()
		b.Key, b.Digest = key, sha256.Sum256([]byte(key))
		r, err := db.Log(name).Append(t.Context(), b)
		must(t, err)
		hash := sha256.Sum256([]byte(key))
		return UsedKey{Hash: [16]byte(hash[:]), Digest: b.Digest, Receipt: r}
	}
	use("s", "evicted", batch("1"))
	s := []UsedKey{use("s", "two", batch("2", "3")), use("s", "one", batch("4")), use("s", "closing", Batch{Close: true})}
	use("deleted", "gone", batch("1"))
	must(t, db.Log("deleted").Delete(t.Context()))
	long := []UsedKey{use("s/t", "one", batch("1"))}
	check := func() {
		t.Helper()
		for name, want := range map[string][]UsedKey{"s": s, "s/t": long, "deleted": nil, "never": nil} {
			if got, err := db.Log(name).UsedKeys(t.Context()); err != nil || !slices.Equal(got, want) {
				t.Errorf("%s: %v, %v; want %v", name, got, err, want)
			}
		}
	}
	check()
	CloseForTest(t, db)
	db = OpenForTest(t, path, Options{ReadOnly: true})
	check()
	CloseForTest(t, db)

	// Where events have expired, and are not yet removed.
	db = OpenForTest(t, path, Options{ReadOnly: true, Retention: Retention{Age: 1}})
	s, long = s[2:], nil
	check()
	CloseForTest(t, db)

	edit(t, path, func(tx *bolt.Tx) error {
		k, v := tx.Bucket(keysBucket).Cursor().First()
		v = bytes.Clone(v)
		v[10] ^= 1
		return tx.Bucket(keysBucket).Put(k, v)
	})
	db = OpenForTest(t, path, Options{ReadOnly: true})
	if _, err := db.Log("s").UsedKeys(t.Context()); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), `"s"`) {
		t.Errorf("with a damaged key: %v", err)
	}
}
