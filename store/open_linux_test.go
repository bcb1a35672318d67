package store

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

func TestOpenReadOnlyFolder(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, os.Chmod(dir, 0o555))
	if os.Geteuid() == 0 { // root may write everywhere: look at files as another user
		const nobody = 65534
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		must(t, syscall.Setfsuid(nobody))
		defer syscall.Setfsuid(0)
	}
	wantOpenError(t, filepath.Join(dir, "store.db"), os.ErrPermission)
	wantOnly(t, dir)
}
