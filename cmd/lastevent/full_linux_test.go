package main_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lastevent/cmd/lastevent/servetest"
)

// smallDisks are file systems that are soon full.
var smallDisks = map[string]func(t *testing.T) (dir string){
	"tmpfs": func(t *testing.T) string { return servetest.Tmpfs(t, 6<<20) },
	"ext4": func(t *testing.T) string {
		dir, _ := servetest.Ext4(t, 8<<20)
		return dir
	},
}

func onSmallDisks(t *testing.T, test func(t *testing.T, dir string)) {
	for name, mount := range smallDisks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, mount(t))
		})
	}
}

// A filler publishes events to stream s until the disk is full.
type filler struct {
	*servetest.Server
	t    *testing.T
	seen *servetest.Ledger
	last uint64 // acknowledged
}

func startFiller(t *testing.T, dir string, flags ...string) *filler {
	s := servetest.Start(t, append(flags, "--db", filepath.Join(dir, "x.db"))...)
	return &filler{Server: s, t: t, seen: servetest.NewLedger()}
}

// publish publishes the next event, with its key, and returns the answer if that is
// not a 201.
func (f *filler) publish(size int) *servetest.Answer {
	f.t.Helper()
	e := servetest.Event{Type: "message", Data: fmt.Sprint(f.last+1, strings.Repeat(" text", size/5))}
	a := f.Do("POST", "/sse/s", e.Data, "Idempotency-Key", fmt.Sprint(f.last+1))
	if a.Status != http.StatusCreated {
		return &a
	}
	f.last++
	if want := fmt.Sprintf("{\"id\":%d,\"count\":1}\n", f.last); a.Body != want {
		f.t.Fatalf("the answer is %s; want %s", a.Body, want)
	}
	if err := f.seen.Acknowledge(f.last, e); err != nil {
		f.t.Fatal(err)
	}
	return nil
}

// fill publishes until there is no room, and checks that this is what is said.
func (f *filler) fill(size int) {
	f.t.Helper()
	for f.last < 1000 {
		if a := f.publish(size); a != nil {
			f.CheckProblem(*a, http.StatusInsufficientStorage)
			return
		}
	}
	f.t.Fatal("the disk does not get full")
}

// checkReaders has a client read on, and another one read all from an ID on.
func (f *filler) checkReaders(live *servetest.Follower, after uint64) {
	f.t.Helper()
	late := &servetest.Follower{Client: f.HTTP, URL: f.URL + "/sse/s", Seen: f.seen, Began: true, After: after}
	for _, c := range []*servetest.Follower{live, late} {
		if err := c.Resume(f.Ctx, f.last, func() bool { return false }); err != nil || c.Gaps > 0 {
			f.t.Fatalf("a client has %d events up to %d of %d, %d gaps, %v", c.Events, c.After, f.last, c.Gaps, err)
		}
	}
	if known, acknowledged := f.seen.Len(); uint64(known) != f.last || uint64(acknowledged) != f.last {
		f.t.Errorf("%d events were seen, and %d acknowledged, up to %d", known, acknowledged, f.last)
	}
}

// A full disk refuses what comes, and harms nothing of what is there; with room again,
// all goes on by itself.
func TestFullDisk(t *testing.T) {
	onSmallDisks(t, func(t *testing.T, dir string) {
		ballast := filepath.Join(dir, "ballast")
		if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		f := startFiller(t, dir, "--retain-events", "0")
		live := &servetest.Follower{Client: f.HTTP, URL: f.URL + "/sse/s", Seen: f.seen, Began: true}
		f.fill(16_000)
		if f.last < 50 {
			t.Errorf("only %d events found room", f.last)
		}
		f.CheckProblem(f.Do("GET", "/readyz", ""), http.StatusServiceUnavailable)
		f.checkReaders(live, 0)
		f.CheckProblem(*f.publish(16_000), http.StatusInsufficientStorage)
		f.Kill()
		f.Restart()
		f.checkReaders(live, f.last/2)
		f.CheckProblem(*f.publish(16_000), http.StatusInsufficientStorage)

		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if a := f.publish(16_000); a != nil {
				t.Fatalf("with room again: %d %s", a.Status, a.Body)
			}
		}
		if a := f.Do("GET", "/readyz", ""); a.Status != http.StatusOK {
			t.Errorf("readyz: %d %s", a.Status, a.Body)
		}
		f.checkReaders(live, 0)
		f.Kill()
		f.Restart()
		f.checkReaders(live, 0)
	})
}

// On a full disk events expire, which makes room for others.
func TestEventsExpireOnAFullDisk(t *testing.T) {
	onSmallDisks(t, func(t *testing.T, dir string) {
		const age = 3 * time.Second
		f := startFiller(t, dir, "--retain-events", "0", "--retain-age", age.String())
		f.fill(200_000) // before any of them expires
		full, since := f.last, time.Now()
		for f.last < full+10 {
			if a := f.publish(200_000); a != nil {
				f.CheckProblem(*a, http.StatusInsufficientStorage)
				time.Sleep(10 * time.Millisecond)
			}
			if time.Since(since) > 45*time.Second {
				t.Fatalf("%v after all has expired there is no room", time.Since(since)-age)
			}
		}
		t.Logf("%d events filled the disk, and %v later there was room again", full, time.Since(since))
		time.Sleep(time.Until(since.Add(age)))
		if first, last := f.Bounds("s"); first <= full || last != f.last {
			t.Errorf("there are %d to %d; want only what was published after %d", first, last, full)
		}
	})
}

// A ring that has its size goes round on a disk that something else fills.
func TestRingOnAFullDisk(t *testing.T) {
	onSmallDisks(t, func(t *testing.T, dir string) {
		f := startFiller(t, dir, "--retain-events", "100")
		publish := func() {
			t.Helper()
			for range 300 {
				if a := f.publish(100); a != nil {
					t.Fatalf("event %d: %d %s", f.last+1, a.Status, a.Body)
				}
			}
			if first, last := f.Bounds("s"); first != f.last-99 || last != f.last {
				t.Errorf("there are %d to %d; want 100", first, last)
			}
		}
		publish()
		ballast, err := os.Create(filepath.Join(dir, "ballast"))
		if err != nil {
			t.Fatal(err)
		}
		defer ballast.Close()
		for page := make([]byte, 4096); err == nil; {
			_, err = ballast.Write(page)
		}
		publish()
	})
}
