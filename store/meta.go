package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// A fileMeta is what the meta bucket says of a file: four bytes and a text, and under
// the other keys a number behind the CRC-32C of the key and of itself.
type fileMeta struct {
	format uint32
	log    string
	base   uint64    // after which the sequences of a log never written begin
	backup time.Time // when the backup was taken that the file is; zero if it is none
	wrong  bool      // not all of it is whole
}

var (
	formatKey = []byte("format")
	logKey    = []byte("log")
	baseKey   = []byte("base")
	backupKey = []byte("backup")
)

// metaOf returns what the pairs say that each calls visit with. One that it does not
// know may be a damaged one that it should know.
func metaOf(each func(visit func(k, v []byte))) (m fileMeta) {
	each(func(k, v []byte) {
		n, ok := unseal(k, v)
		switch string(k) {
		case string(formatKey):
			if ok = len(v) == 4; ok {
				m.format = binary.BigEndian.Uint32(v)
			}
		case string(logKey):
			m.log, ok = string(v), len(v) > 0
		case string(baseKey):
			m.base = n
		case string(backupKey):
			m.backup = time.Unix(0, int64(n))
		default:
			ok = false
		}
		m.wrong = m.wrong || !ok
	})
	return m
}

func metaIn(tx *bolt.Tx) fileMeta {
	return metaOf(func(visit func(k, v []byte)) {
		_ = tx.Bucket(metaBucket).ForEach(func(k, v []byte) error { // visit has no errors
			visit(k, v)
			return nil
		})
	})
}

// check says why the file cannot be read.
func (m fileMeta) check() error {
	switch {
	case m.format != 0 && m.format != formatVersion:
		return fmt.Errorf("%w: version %d, and this program reads %d; use the lastevent that wrote it, or another file", ErrVersion, m.format, formatVersion)
	case m.wrong || m.format == 0 || m.log == "":
		return fmt.Errorf("%w: its format cannot be read", ErrDamaged)
	}
	return nil
}

// put stores it.
func (m fileMeta) put(b *bolt.Bucket) error {
	errs := []error{
		b.Put(formatKey, binary.BigEndian.AppendUint32(nil, formatVersion)),
		b.Put(logKey, []byte(m.log)),
	}
	if m.base > 0 {
		errs = append(errs, b.Put(baseKey, seal(baseKey, m.base)))
	}
	if !m.backup.IsZero() {
		errs = append(errs, b.Put(backupKey, seal(backupKey, uint64(m.backup.UnixNano()))))
	}
	return errors.Join(errs...)
}

// seal returns the value of a number.
func seal(key []byte, n uint64) []byte {
	v := binary.BigEndian.AppendUint64(make([]byte, 4, 12), n)
	binary.BigEndian.PutUint32(v, crcOf(key, v))
	return v
}

// unseal returns the number in a value that is whole.
func unseal(key, value []byte) (n uint64, ok bool) {
	if len(value) != 12 || binary.BigEndian.Uint32(value) != crcOf(key, value) {
		return 0, false
	}
	return bigEndian(value[4:]), true
}
