package store

import (
	"context"
	"errors"

	bolt "go.etcd.io/bbolt"
)

// A Stream is a stream's name and what its log holds.
type Stream struct {
	Name string
	Bounds
}

// Streams returns all streams ever written, by name. One whose state cannot be
// read is an error, beside the others.
func (db *DB) Streams(context.Context) (streams []Stream, err error) {
	var damaged error
	err = db.view(func(tx *bolt.Tx) error {
		streams, damaged = nil, nil
		return tx.Bucket(stateBucket).ForEach(func(k, _ []byte) error {
			name := string(k)
			_, b, err := db.Log(name).bounds(tx)
			var evicting *evictingError
			switch {
			case errors.As(err, &evicting):
				return err
			case err != nil:
				damaged = err
				return nil
			}
			streams = append(streams, Stream{Name: name, Bounds: b})
			return nil
		})
	})
	if err == nil {
		err = damaged
	}
	return streams, err
}
