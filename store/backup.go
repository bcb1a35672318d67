package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Backup returns a copy of the file as it is at one moment after the call, and how many
// bytes it has. All that was acknowledged before the call is in it. It is marked as a
// backup, so that Open makes another log of it: see [DB.BackupOf]. The reader must be
// closed.
//
// The copy is complete when Backup returns, in a file of its own beside the DB's, which
// takes as much space: whoever reads it slowly keeps nobody waiting. Appends go on while
// it is made, and what they evict meanwhile is kept, so that the file may grow by it.
func (db *DB) Backup(ctx context.Context) (_ io.ReadCloser, size int64, err error) {
	if err := db.failure.Load(); err != nil {
		return nil, 0, *err // what there is in memory may not be on the disk
	}
	f, err := os.CreateTemp(filepath.Dir(db.path), filepath.Base(db.path)+".*.backup")
	if err != nil {
		return nil, 0, fmt.Errorf("a backup cannot be made: %w", err)
	}
	b := &backup{File: f}
	if size, err = db.backupTo(ctx, b); err != nil {
		err = errors.Join(err, b.Close())
		if isNoSpace(err) {
			err = fmt.Errorf("%w: %w", ErrNoSpace, err)
		}
		return nil, 0, fmt.Errorf("a backup cannot be made: %w", err)
	}
	return b, size, nil
}

// A backup is a file that is removed when it is closed, or, where that can be done,
// while it is open, so that a crash leaves nothing.
type backup struct {
	*os.File
	removed bool
}

func (b *backup) Close() error {
	err := b.File.Close()
	if !b.removed {
		err = errors.Join(err, os.Remove(b.Name()))
	}
	return err
}

func (db *DB) backupTo(ctx context.Context, to *backup) (size int64, err error) {
	// bbolt marks it through a descriptor of its own.
	second, err := os.OpenFile(to.Name(), os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	to.removed = os.Remove(to.Name()) == nil
	// The transaction may see a commit whose second sync is not done, and whose events
	// nobody has been told of, nor may ever be. In a backup they do no harm: it holds them
	// whole, as what it says of itself comes from the same transaction, and is another log
	// once it is opened. So there is nothing to wait for, nor to leave out.
	err = db.viewOnce(func(tx *bolt.Tx) error {
		_, err := tx.WriteTo(contextWriter{ctx, to})
		return err
	})
	if err != nil {
		return 0, errors.Join(err, second.Close())
	}
	if size, err = markBackup(second); err != nil {
		return 0, err
	}
	_, err = to.Seek(0, io.SeekStart)
	return size, err
}

// markBackup makes a backup of a copy, which it closes, and returns its size.
func markBackup(f *os.File) (size int64, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	panicked := guard(func() {
		var b *bolt.DB
		b, err = bolt.Open(f.Name(), 0, &bolt.Options{
			FreelistType: bolt.FreelistMapType,
			PageSize:     pageSize,
			NoStatistics: true,
			NoSync:       true, // it is read from where it is
			OpenFile:     func(string, int, os.FileMode) (*os.File, error) { return f, nil },
		})
		if err != nil {
			return
		}
		for range 2 { // both meta pages are to say so
			err = errors.Join(err, b.Update(func(tx *bolt.Tx) error {
				return tx.Bucket(metaBucket).Put(backupKey, seal(backupKey, uint64(time.Now().UnixNano())))
			}))
		}
		err = errors.Join(err, b.View(func(tx *bolt.Tx) error {
			size = tx.Size()
			return nil
		}), b.Close())
	})
	return size, errors.Join(panicked, err)
}

// A contextWriter fails when the context ends.
type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (w contextWriter) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.w.Write(p)
}

// SaveBackup writes what Backup has given to a file, which must not exist, and says what
// it holds. The file appears when all of it is on the disk. It is kept also if some of it
// is damaged, as the file may be that it is of.
func SaveBackup(path string, from io.Reader) (_ *Report, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s cannot be written: %w", path, err)
		}
	}()
	if _, err := os.Lstat(path); err == nil {
		return nil, fs.ErrExist
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.new")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = io.Copy(f, from)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	r, err := Inspect(f.Name())
	if err != nil {
		return nil, err
	}
	if r.Backup.IsZero() {
		return nil, errors.New("what came is no backup")
	}
	r.Path = path
	return r, putInPlace(f.Name(), path)
}
