package store

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// formatVersion is that of the buckets, keys and values in the file.
const formatVersion = 2

var (
	metaBucket   = []byte("lastevent") // of the file: see fileMeta
	stateBucket  = []byte("streams")   // stream name: state
	eventsBucket = []byte("events")    // stream name, sequence: block
	keysBucket   = []byte("keys")      // stream name, hash of idempotency key: receipt
	orderBucket  = []byte("order")     // stream name, sequence, hash of idempotency key

	allBuckets = [][]byte{metaBucket, stateBucket, eventsBucket, keysBucket, orderBucket}
)

const (
	lockTimeout = time.Second
	pageSize    = 4096
	// mmapSize is address space, not memory: with it the map need not be moved,
	// which blocks readers, before the file outgrows it.
	mmapSize = 1 << 30
	// sweepEvery is how often expired events are removed where nothing is appended.
	sweepEvery = 30 * time.Second
)

// Options are for [Open].
type Options struct {
	Retention Retention
	// MaxStreams is how many streams can be written in all; 0 is no limit.
	MaxStreams int
	// ReadOnly leaves the file as it is, which must exist and not be a backup: nothing is
	// evicted, and appends fail.
	ReadOnly bool
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Damaged is told, once, of a page that cannot be read when something was to be
	// appended or removed; nil if nobody is. It must not wait for anybody.
	//
	// The events on such a page are lost. When their turn comes they are evicted, but
	// stay in the file, as may some of their neighbours. An append that needs the page
	// gets ErrDamaged. The rest goes on.
	Damaged func(error)
	// Observer is told of each commit; nil if nobody is.
	Observer Observer
}

// A DB is a file of logs. Its methods, and those of its logs, are safe for
// concurrent use.
type DB struct {
	path       string
	id         string
	backup     bool   // the file is a backup, and has to be restored
	backupOf   string // the log that the file was a backup of; empty if it was none
	retention  Retention
	maxStreams int
	readOnly   bool
	now        func() time.Time
	onDamage   func(error)
	observer   Observer
	bolt       *bolt.DB

	queue   queue
	stopped chan struct{} // closed when the committer has returned

	// Only the committer's.
	sweeps  []string // logs that may hold what is to be evicted or removed
	caution int      // 1, and more while sweeping finds no space
	broken  bool     // a transaction broke off and holds bbolt's lock for ever
	pages   pageReader

	streams    atomic.Int64 // ever written
	unwritable error        // why nothing can be appended or evicted; set when opened

	// inFlight is set while a transaction that is not yet known to be synced may
	// already be visible in the file.
	inFlight atomic.Pointer[inFlight]

	failed  chan struct{} // closed once failure is set
	failure atomic.Pointer[error]
	full    atomic.Bool // the last append found no space

	mu        sync.Mutex // guards followers, and orders their calls
	followers map[string][]*follower
}

// Open opens the file, or creates it. What already exceeds the retention is
// evicted before Open returns.
//
// An error names the file and wraps ErrLocked where another process has it (after
// a second), ErrForeign, ErrVersion or ErrDamaged; the file is then as it was.
func Open(path string, o Options) (*DB, error) {
	db := &DB{
		path:       path,
		retention:  o.Retention,
		maxStreams: o.MaxStreams,
		readOnly:   o.ReadOnly,
		now:        o.Now,
		onDamage:   o.Damaged,
		observer:   o.Observer,
		queue:      newQueue(),
		stopped:    make(chan struct{}),
		failed:     make(chan struct{}),
		followers:  map[string][]*follower{},
		caution:    1,
	}
	if db.now == nil {
		db.now = time.Now
	}
	if err := db.open(); err != nil {
		return nil, fmt.Errorf("%s %w", path, err)
	}
	go db.run()
	return db, nil
}

func (db *DB) open() (err error) {
	if _, err := os.Stat(db.path); errors.Is(err, fs.ErrNotExist) && !db.readOnly {
		if err := create(db.path); err != nil {
			return fmt.Errorf("cannot be created: %w", withHint(err, db.path))
		}
	}
	if err = db.openBolt(); err != nil {
		var refused *fs.PathError // by the system, and not by us
		if errors.As(err, &refused) {
			return fmt.Errorf("cannot be opened: %w", withHint(err, db.path))
		}
		return err
	}
	err = db.view(db.readMeta)
	switch {
	case err == nil && db.backup && db.readOnly:
		err = errIsBackup
	case err == nil && db.backup:
		err = db.restore()
	}
	if err == nil {
		if !db.readOnly {
			removeUnfinished(db.path)
		}
		err = db.view(db.checkStates)
	}
	if err == nil {
		err = db.findSweeps()
	}
	if db.readOnly {
		db.unwritable = cmp.Or(db.unwritable, errReadOnly)
	}
	if db.unwritable != nil {
		db.sweeps = nil
	}
	// What more there is to remove than one transaction does, the committer does.
	for steps := len(db.sweeps)/maxSwept + 1; steps > 0 && err == nil; steps-- {
		err = db.sweep()
	}
	switch {
	case errors.Is(err, ErrNoSpace):
		return nil // reading works, and so does evicting once there is room
	case err != nil && !db.broken:
		return errors.Join(err, db.bolt.Close())
	}
	return err
}

var (
	errReadOnly = errors.New("is open for reading only")
	errIsBackup = errors.New("is a backup, which the first server that opens it makes a log of its own")
)

// openBolt opens an existing file that is locked and looks sound. What bbolt
// finds wrong all the same it says by a panic.
func (db *DB) openBolt() (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	db.bolt, err = bolt.Open(db.path, 0o600, &bolt.Options{
		Timeout:         lockTimeout,
		ReadOnly:        db.readOnly,
		FreelistType:    bolt.FreelistMapType,
		PageSize:        pageSize,
		InitialMmapSize: mmapSize,
		NoStatistics:    true,
		OpenFile: func(path string, flag int, mode os.FileMode) (*os.File, error) {
			f, err := os.OpenFile(path, flag&^os.O_CREATE, mode)
			if err != nil {
				return nil, err
			}
			err = lockFile(f, lockTimeout)
			if err == nil {
				err = cmp.Or(stillAt(db.path, f), dropCache(f))
			}
			if err == nil {
				db.pages.opened, err = checkFile(f)
			}
			if err != nil {
				return nil, errors.Join(err, f.Close())
			}
			return f, nil
		},
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		err = ErrLocked
	}
	return err
}

// create makes a file without logs. It appears under its name only when it is
// whole and on the disk, so that a crash on the way leaves nothing to open, and it
// never takes the place of another.
func create(path string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.new")
	if err != nil {
		return err
	}
	temp := f.Name()
	defer os.Remove(temp)
	if err := f.Close(); err != nil {
		return err
	}
	b, err := bolt.Open(temp, 0o600, &bolt.Options{PageSize: pageSize, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return err
	}
	if err := errors.Join(b.Update(writeMeta), b.Sync(), b.Close()); err != nil {
		return err
	}
	if err = putInPlace(temp, path); errors.Is(err, fs.ErrExist) {
		return nil // another process was faster
	}
	return err
}

// putInPlace gives a file that is on the disk its name, which must not be taken.
func putInPlace(temp, path string) error {
	err := os.Link(temp, path)
	if err != nil {
		if _, err := os.Lstat(path); err == nil {
			return fs.ErrExist
		}
		err = os.Rename(temp, path) // a file system without hard links
	} else {
		_ = os.Remove(temp) // it has its other name, at worst
	}
	return cmp.Or(err, syncDir(path))
}

// removeUnfinished removes what a crash left of a file on its way, beside one that is
// whole: who is about to create one finds that there is no need to.
func removeUnfinished(path string) {
	entries, _ := os.ReadDir(filepath.Dir(path))
	for _, e := range entries {
		number, isNew := strings.CutSuffix(e.Name(), ".new")
		number, isOurs := strings.CutPrefix(number, filepath.Base(path)+".")
		if isNew && isOurs && number != "" && strings.Trim(number, "0123456789") == "" {
			_ = os.Remove(filepath.Join(filepath.Dir(path), e.Name())) // it does no harm
		}
	}
}

// syncDir has the name of a file on the disk.
func syncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func writeMeta(tx *bolt.Tx) error {
	if err := createBuckets(tx); err != nil {
		return err
	}
	return fileMeta{log: newID()}.put(tx.Bucket(metaBucket))
}

func createBuckets(tx *bolt.Tx) error {
	var errs []error
	for _, name := range allBuckets {
		_, err := tx.CreateBucket(name)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// newID draws the name of a numbering: 16 characters, 80 bits.
func newID() string { return strings.ToLower(rand.Text()[:16]) }

func (db *DB) readMeta(tx *bolt.Tx) error {
	if tx.Bucket(metaBucket) == nil {
		return fmt.Errorf("%w: it is another program's bbolt file", ErrForeign)
	}
	m := metaIn(tx)
	if err := m.check(); err != nil {
		return err
	}
	for _, name := range allBuckets {
		if tx.Bucket(name) == nil {
			return fmt.Errorf("%w: the bucket %s is missing", ErrDamaged, name)
		}
	}
	db.id, db.backup = m.log, !m.backup.IsZero()
	return nil
}

// Log returns the log of a stream, which need not exist yet: it is written by its
// first append. The name must not be empty nor hold a NUL, and is at most 255 bytes.
func (db *DB) Log(stream string) *Log { return &Log{db: db, name: stream} }

// ID names the numbering of the file's logs, as in [Bounds.Log].
func (db *DB) ID() string { return db.id }

// StreamCount is how many streams were ever written.
func (db *DB) StreamCount() int { return int(db.streams.Load()) }

// Failed is closed when a sync has failed. From then on nothing is appended, and
// the process should end: only opening the file anew tells what is in it.
func (db *DB) Failed() <-chan struct{} { return db.failed }

// Err says why the next append would fail: nil if it should not.
func (db *DB) Err() error {
	if err := db.failure.Load(); err != nil {
		return *err
	}
	select {
	case <-db.stopped:
		return ErrStopped
	default:
	}
	if db.full.Load() {
		return ErrNoSpace
	}
	return db.unwritable
}

// Close waits for the appends under way and closes the file. Later appends get
// ErrStopped.
func (db *DB) Close() error {
	db.queue.close()
	<-db.stopped
	if db.broken {
		return nil
	}
	if err := db.bolt.Close(); err != nil {
		return fmt.Errorf("%s cannot be closed: %w", db.path, err)
	}
	return nil
}

// view runs fn in a read transaction, and again in a later one if it needs what a
// transaction in flight evicts: once that is synced it is not retained. Pages have no
// checksum, so a damaged one may lead bbolt, or us, anywhere: that is an error like
// any other.
func (db *DB) view(fn func(*bolt.Tx) error) error {
	for {
		err := db.viewOnce(fn)
		var evicting *evictingError
		if !errors.As(err, &evicting) {
			return err
		}
		<-evicting.known
	}
}

func (db *DB) viewOnce(fn func(*bolt.Tx) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	err = db.bolt.View(fn)
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return ErrStopped
	}
	return err
}
