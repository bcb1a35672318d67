package servetest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Tmpfs mounts a file system in memory that holds so many bytes, until the test ends.
// It skips the test where that is not possible.
func Tmpfs(t *testing.T, size int) (dir string) {
	t.Helper()
	return mount(t, "-t", "tmpfs", "-o", fmt.Sprint("size=", size), "tmpfs")
}

// Ext4 makes and mounts a file system in an image of so many bytes, which is beside
// dir, until the test ends. It skips the test where that is not possible.
func Ext4(t *testing.T, size int64) (dir, image string) {
	t.Helper()
	image = filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	mkfs := exec.Command("mkfs.ext4", "-q", "-b", "4096", "-m", "0", "-O", "^has_journal", image)
	if out, err := mkfs.CombinedOutput(); err != nil {
		t.Skipf("needs mkfs.ext4: %v %s", err, out)
	}
	return mount(t, "-t", "ext4", "-o", "loop", image), image
}

// ReadOnly makes a folder read-only until the test ends. It skips the test where that is
// not possible.
func ReadOnly(t *testing.T, dir string) {
	t.Helper()
	for _, options := range []string{"bind", "remount,ro,bind"} {
		if out, err := exec.Command("mount", "-o", options, dir, dir).CombinedOutput(); err != nil {
			t.Skipf("needs the right to mount: %v %s", err, out)
		}
		if options == "bind" {
			t.Cleanup(func() {
				if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
					t.Errorf("umount: %v %s", err, out)
				}
			})
		}
	}
}

func mount(t *testing.T, args ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if out, err := exec.Command("mount", append(args, dir)...).CombinedOutput(); err != nil {
		t.Skipf("needs the right to mount, and a loop device for an image: %v %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	})
	return dir
}
