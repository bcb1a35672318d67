package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// restore makes a log of its own of a backup, which the DB has open and locked.
//
// What clients have got since the backup was taken is not in it, and its IDs must not
// come to name other events. So the log gets another name, and each sequence is set
// higher, also where those of streams begin that are not in the backup: any ID of before
// is one behind a gap. As the blocks hold IDs, all is rewritten: to a file beside, which
// takes the backup's place only when it is whole and on the disk. Until then the backup
// is as it was, and a crash on the way leaves it to be restored at the next start.
func (db *DB) restore() error {
	path, err := filepath.EvalSymlinks(db.path)
	if err != nil {
		return err
	}
	// What a crash has left is of nobody: only who has the backup locked writes it.
	temp := path + ".restored.new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := renumber(path, temp); err != nil {
		return fmt.Errorf("is a backup that cannot be restored: %w", err)
	}
	if runtime.GOOS == "windows" { // where an open file keeps its name
		if err := db.bolt.Close(); err != nil {
			return err
		}
	}
	if err := errors.Join(os.Rename(temp, path), db.bolt.Close()); err != nil {
		return err
	}
	if err := syncDir(path); err != nil {
		return err
	}
	if err := db.openBolt(); err != nil {
		return err
	}
	db.backupOf = db.id
	return db.view(db.readMeta)
}

// renumber copies a backup, which is locked, as another log.
func renumber(path, to string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	s := newSurvey(path)
	if s.p, err = readPages(f, s.damage); err == nil {
		err = s.meta()
	}
	if err != nil {
		return err
	}
	if s.into, err = newCopier(to, fileMode(f), renumberBy); err != nil {
		return err
	}
	s.run(nil)
	if !s.whole() {
		return errors.Join(
			fmt.Errorf("%w: %s; lastevent inspect %s --repair NEW keeps what is whole", ErrDamaged, s.report.Damage[0], path),
			s.into.abort())
	}
	return s.into.finish(fileMeta{log: newID(), base: s.base + renumberBy}, s.streams)
}

// BackupOf returns the log that the file was a backup of, if it was one that Open
// restored: [DB.ID] is that of the log that it made of it. Else it is empty.
func (db *DB) BackupOf() string { return db.backupOf }

// stillAt returns an error if the file has been replaced while its lock was waited for.
func stillAt(path string, f *os.File) error {
	there, err := os.Stat(path)
	if err != nil {
		return err
	}
	locked, err := f.Stat()
	if err == nil && !os.SameFile(there, locked) {
		err = ErrLocked // by who has replaced it
	}
	return err
}
