package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// withHint says what the file system refuses, and what to do about it, for an error
// that names the path already.
func withHint(err error, path string) error {
	var refused *fs.PathError
	if errors.As(err, &refused) {
		err = refused.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w; the folder %s must be there", err, filepath.Dir(path))
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w; it must be where events can be written", err)
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() > 0:
		return fmt.Errorf("%w; user %d must be able to read and write it, and its folder", err, os.Geteuid())
	}
	return err
}
