package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// What is stored of an idempotency key, under
//
//	stream name, 0x00, hash of the key (16)
//
// is the receipt of the append that it was used for:
//
//	CRC-32C of the key and of what follows (4), digest (32), last (8), count (8)
//
// A second entry, without a value, finds it when the event last is evicted:
//
//	stream name, 0x00, last (8), hash of the key (16)
const (
	keyHash   = 16
	keyRecord = 4 + 32 + 8 + 8
)

func recordKey(name, key string) []byte {
	sum := sha256.Sum256([]byte(key))
	return append(append([]byte(name), 0), sum[:keyHash]...)
}

// keyOf returns the record's key for an entry of the order.
func keyOf(name string, order []byte) []byte {
	return append(append([]byte(name), 0), order[len(order)-keyHash:]...)
}

// getKey returns the receipt of the append that the key was used for, if it was and
// its last event is retained.
func getKey(keys *bolt.Bucket, name, key string, digest [32]byte, first uint64) (r Receipt, used bool, err error) {
	k := recordKey(name, key)
	v := keys.Get(k)
	if v == nil {
		return Receipt{}, false, nil
	}
	r, usedFor, err := decodeReceipt(k, v)
	if err != nil {
		return Receipt{}, false, fmt.Errorf("%w: an idempotency key of stream %q", ErrDamaged, name)
	}
	r.Replayed = true
	switch {
	case r.Count > 0 && r.Last < first:
		return Receipt{}, false, nil // evicted, and not yet removed
	case !bytes.Equal(usedFor, digest[:]):
		return Receipt{}, false, ErrKeyReused
	}
	return r, true, nil
}

// putKey stores the receipt under the key.
func (c *commit) putKey(name, key string, digest [32]byte, r Receipt) {
	k := recordKey(name, key)
	v, order := encodeReceipt(name, k, digest[:], r)
	c.put(c.keys, k, v)
	c.put(c.order, order, nil)
}

// encodeReceipt returns the record of the key, and the key of its entry in the order.
// A receipt of an append without events, which only closes, has no event to be evicted
// with, and stays.
func encodeReceipt(name string, k, digest []byte, r Receipt) (v, order []byte) {
	v = append(make([]byte, 4, keyRecord), digest...)
	v = binary.BigEndian.AppendUint64(v, r.Last)
	v = binary.BigEndian.AppendUint64(v, uint64(r.Count))
	binary.BigEndian.PutUint32(v, crcOf(k, v))
	return v, append(blockKey(nil, name, r.evictedWith()), k[len(k)-keyHash:]...)
}

// evictedWith is the sequence with which the receipt is evicted.
func (r Receipt) evictedWith() uint64 {
	if r.Count == 0 {
		return math.MaxUint64
	}
	return r.Last
}

// decodeReceipt returns what a record holds, if it is whole.
func decodeReceipt(k, v []byte) (r Receipt, digest []byte, err error) {
	if len(v) != keyRecord || binary.BigEndian.Uint32(v) != crcOf(k, v) {
		return Receipt{}, nil, errNotReceipt
	}
	return Receipt{Last: bigEndian(v[36:]), Count: int(bigEndian(v[44:]))}, v[4:36], nil
}

var errNotReceipt = errors.New("not a whole receipt")

// removeKey removes the receipt that an entry of the order finds, unless the key was
// used again since, for an append with another last event. It stays where its page
// cannot be read.
func (c *commit) removeKey(name string, order []byte) error {
	k := keyOf(name, order)
	if err := c.keys.lookToRemove(k); err != nil {
		c.db.damaged(err)
		return nil
	}
	v := c.keys.Get(k)
	if len(v) == keyRecord && !bytes.Equal(v[36:44], order[len(order)-keyHash-8:len(order)-keyHash]) {
		return nil
	}
	return c.keys.Delete(k)
}

// Used returns the receipt of the append that the key was used for, or the error
// ErrKeyReused if that was another. It reports whether it was used.
func (l *Log) Used(_ context.Context, key string, digest [32]byte) (r Receipt, used bool, err error) {
	err = l.db.view(func(tx *bolt.Tx) error {
		_, b, err := l.bounds(tx)
		if err != nil {
			return err
		}
		r, used, err = getKey(tx.Bucket(keysBucket), l.name, key, digest, b.First)
		if used && !r.inUse(b) {
			r, used = Receipt{}, false
		}
		return err
	})
	return r, used, err
}

// UsedKeys returns the idempotency keys that are in use, those of older events first and
// those that only closed last.
func (l *Log) UsedKeys(context.Context) (used []UsedKey, err error) {
	err = l.db.view(func(tx *bolt.Tx) error {
		used = nil
		_, b, err := l.bounds(tx)
		if err != nil {
			return err
		}
		prefix := append([]byte(l.name), 0)
		cur := tx.Bucket(keysBucket).Cursor()
		for k, v := cur.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = cur.Next() {
			r, digest, err := decodeReceipt(k, v)
			if err != nil || len(k) != len(prefix)+keyHash {
				return fmt.Errorf("%w: an idempotency key of stream %q", ErrDamaged, l.name)
			}
			if r.inUse(b) {
				used = append(used, UsedKey{Hash: [keyHash]byte(k[len(prefix):]), Digest: [32]byte(digest), Receipt: r})
			}
		}
		return nil
	})
	slices.SortStableFunc(used, func(a, b UsedKey) int { return cmp.Compare(a.Receipt.evictedWith(), b.Receipt.evictedWith()) })
	return used, err
}

// inUse reports whether the key with the receipt is, as far as is known to be synced.
func (r Receipt) inUse(b Bounds) bool {
	if r.Count == 0 {
		return b.Closed
	}
	return b.First <= r.Last && r.Last <= b.Last
}
