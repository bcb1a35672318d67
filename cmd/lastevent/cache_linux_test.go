package main_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lastevent/cmd/lastevent/servetest"
)

// After a failed sync the page cache shows, as if it were on the disk, what may never
// have got there. Here it has not: the disk is set back behind the cache. The restart
// goes by the disk.
func TestRestartReadsTheDisk(t *testing.T) {
	t.Parallel()
	servetest.NeedStrace(t)
	dir, image := servetest.Ext4(t, 32<<20)
	path := filepath.Join(dir, "x.db")
	s := servetest.Start(t, "--db", path)
	s.MustPublish("s", 3, servetest.Numbered(3)...)
	before := []byte(fileBytes(t, path))
	log := s.Inject("fdatasync:error=EIO:when=2") // that of the meta page, as a rule
	for i := 0; s.Do("POST", "/sse/s", "lost", "Idempotency-Key", fmt.Sprint(i)).Status == http.StatusCreated; i++ {
		t.Log("the second sync was another thread's, for which it is the first")
	}
	s.WaitFailed(1)
	log()

	lost := []byte(fileBytes(t, path))
	setBack(t, dir, image, lost, before)
	if now := []byte(fileBytes(t, path)); !bytes.Equal(now, lost) || !strings.Contains(string(now), "lost") {
		t.Fatal("the page cache does not hold what was lost")
	}
	s.Restart()
	if first, last := s.Bounds("s"); first != 1 || last != 3 {
		t.Errorf("the file holds %d to %d; want 1 to 3", first, last)
	}
	if r := s.MustPost("/sse/s", "lost", "Idempotency-Key", "0"); r != (servetest.Receipt{ID: 4, Count: 1}) {
		t.Errorf("the retry gets %+v", r)
	}
}

// setBack writes to the image of the file system that is mounted at dir the pages that
// a file had before, in place of those that it has now.
func setBack(t *testing.T, dir, image string, now, before []byte) {
	t.Helper()
	if out, err := exec.Command("sync", "-f", dir).CombinedOutput(); err != nil {
		t.Fatalf("sync: %v %s", err, out)
	}
	disk := []byte(fileBytes(t, image))
	f, err := os.OpenFile(image, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const page = 4096
	before = append(before, make([]byte, max(0, len(now)-len(before)))...)
	changed := 0
	for i := 0; i+page <= len(now); i += page {
		if bytes.Equal(now[i:i+page], before[i:i+page]) {
			continue
		}
		at := bytes.Index(disk, now[i:i+page])
		if at < 0 {
			t.Fatalf("page %d is not on the disk", i/page)
		}
		if _, err := f.WriteAt(before[i:i+page], int64(at)); err != nil {
			t.Fatal(err)
		}
		changed++
	}
	if changed == 0 {
		t.Fatal("nothing has changed")
	}
}
