package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// These tests record what a process does to its files while it appends, evicts,
// deletes and closes. From that they make what a cut of the power at any moment could
// leave on a disk: all that was synced, and of what was written since anything, down
// to single sectors. Each such image is opened and compared with what the process had
// acknowledged by then. At full size, of 10,000 images and more:
//
//	go test -tags long -timeout 1h -run PowerCut ./store

func TestPowerCut(t *testing.T) {
	needStrace(t)
	for seed := range uint64(rounds(2, 10)) {
		t.Run(fmt.Sprint("run ", seed), func(t *testing.T) {
			t.Parallel()
			r := recordRun(t, seed, 60)
			r.wantVaried(t)
			r.wantWhole(t, seed, rounds(120, 1000), len(r.calls))
		})
	}
}

// TestPowerCutAfterPowerCut records a run on what a cut has left, and that again.
func TestPowerCutAfterPowerCut(t *testing.T) {
	needStrace(t)
	for seed := range uint64(rounds(1, 10)) {
		t.Run(fmt.Sprint("run ", seed), func(t *testing.T) {
			t.Parallel()
			r := recordRun(t, 200+seed, 15)
			for n := range uint64(rounds(2, 5)) {
				r = r.goOn(t, 300+10*seed+n)
				r.wantWhole(t, seed, rounds(30, 100), len(r.calls))
			}
		})
	}
}

// goOn cuts the power in the second half of the run and records another one on what
// that leaves.
func (r *run) goOn(t *testing.T, seed uint64) *run {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 3))
	cut := r.start + len(r.calls[r.start:])*(50+rnd.IntN(50))/100
	next := &run{dir: t.TempDir(), log: r.log, opened: -1, clocks: []clock{{0, r.now(cut)}}, streams: map[string][]*runStep{}}
	d := newDisk()
	for _, c := range r.calls[:cut] {
		d.apply(c)
	}
	must(t, d.leave(next.dir, newCut(rnd)))
	looked := t.TempDir() // as opening writes
	must(t, os.CopyFS(looked, os.DirFS(next.dir)))
	db, err := Open(filepath.Join(looked, runFile), Options{Retention: recordedRetention, Now: func() time.Time { return r.now(cut) }})
	must(t, err)
	for name, steps := range r.streams {
		_, n, err := r.checkLog(db, name, cut)
		must(t, err)
		for _, s := range steps[:n] {
			before := *s
			before.begun, before.done = -1, -1
			next.streams[name] = append(next.streams[name], &before)
		}
	}
	must(t, db.Close())
	next.record(t, seed, 15)
	return next
}

// TestPowerCutAtFirstStart cuts the power between the first call and the first few
// acknowledgements: the next start finds a whole log, or none and begins a new one.
func TestPowerCutAtFirstStart(t *testing.T) {
	needStrace(t)
	for name, injections := range map[string][]string{
		"linked": nil,
		"moved":  {"linkat:error=EPERM"}, // a file system without hard links
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(rounds(1, 10)) {
				r := recordRun(t, seed, 0, injections...)
				r.wantWhole(t, seed, rounds(100, 500), r.done[2])
			}
		})
	}
}

// TestPowerCutIsCaught leaves out syncs of a recorded run, so that the checks have to
// find fault with what a cut leaves.
func TestPowerCutIsCaught(t *testing.T) {
	needStrace(t)
	images := rounds(100, 1000)
	r, first := recordRun(t, 100, 60), recordRun(t, 100, 0)
	for _, test := range []struct {
		name  string
		run   *run
		end   int
		omit  func(c, before call) bool
		least int // percent of the images that are caught
	}{
		{"all", r, len(r.calls), func(c, _ call) bool { return true }, 50},
		{"those before the meta page", r, len(r.calls), func(c, before call) bool { return c.kind == callSync && !before.isMeta() }, 2},
		{"those of the meta page", r, len(r.calls), func(_, before call) bool { return before.isMeta() }, 20},
		{"of the first start, those of the file", first, first.done[2], func(c, _ call) bool { return c.kind == callSync }, 20},
		{"of the first start, those of the folder", first, first.done[2], func(c, _ call) bool { return c.kind == callSyncDir }, 5},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			caught, example := 0, error(nil)
			test.run.without(test.omit).images(t, 100, images, test.end, func(_, _ string, err error) {
				if err != nil {
					caught, example = caught+1, err
				}
			})
			t.Logf("%d of %d images are caught, like: %.200v", caught, images, example)
			if caught*100 < test.least*images {
				t.Errorf("%d of %d images are caught; want %d%%", caught, images, test.least)
			}
		})
	}
}

// isMeta reports whether the call writes one of bbolt's two meta pages.
func (c call) isMeta() bool { return c.kind == callWrite && c.at < 2*pageSize }

// without returns the run without the syncs that are to be left out, by the call and
// the last one before it that was not of the ledger.
func (r *run) without(omit func(c, before call) bool) *run {
	less, before := *r, call{}
	less.calls = slices.Clone(r.calls)
	for i, c := range less.calls {
		switch {
		case c.kind == callLedger:
			continue
		case (c.kind == callSync || c.kind == callSyncDir) && omit(c, before):
			less.calls[i] = call{kind: callLedger}
		}
		before = c
	}
	return &less
}

// wantVaried expects the run to have done all that it is there for.
func (r *run) wantVaried(t *testing.T) {
	t.Helper()
	n := map[string]int{}
	for _, c := range r.calls {
		switch c.kind {
		case callSync:
			n["syncs"]++
		case callTruncate:
			n["growths"]++
		}
	}
	count := func(what string, done bool) {
		if done {
			n[what]++
		}
	}
	for _, steps := range r.streams {
		for _, s := range steps {
			count("steps", true)
			count("deletes", s.delete)
			count("closes", s.batch.Close)
			count("keys", s.batch.Key != "")
		}
	}
	for _, name := range []string{"small", "large", "own/1"} { // by number, bytes, age
		count("evicting streams", wantAfter(r.streams[name], r.now(len(r.calls))).First > 1)
	}
	for what, least := range map[string]int{
		"syncs": 150, "growths": 5, "steps": 200, "deletes": 5, "closes": 10, "keys": 50, "evicting streams": 3,
	} {
		if n[what] < least {
			t.Errorf("the run has %d %s; want %d", n[what], what, least)
		}
	}
	t.Logf("the run: %v", n)
}

// wantWhole expects all of n images to be as they must.
func (r *run) wantWhole(t *testing.T, seed uint64, n, end int) {
	t.Helper()
	start, failed := time.Now(), 0
	r.images(t, seed, n, end, func(dir, image string, err error) {
		if err == nil {
			return
		}
		kept := filepath.Join(t.ArtifactDir(), fmt.Sprint("image ", failed)) // with -artifacts
		t.Errorf("%s, kept in %s: %v", image, kept, errors.Join(err, os.CopyFS(kept, os.DirFS(dir))))
		if failed++; failed == 5 {
			t.FailNow()
		}
	})
	t.Logf("seed %d: %d images of the first %d of %d calls, %v each", seed, n, end, len(r.calls), time.Since(start)/time.Duration(n))
}

// images makes n images of what cuts before the calls up to end leave, in a folder, and
// reports of each whether it is as it must be.
func (r *run) images(t *testing.T, seed uint64, n, end int, report func(dir, image string, err error)) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 2))
	cuts := r.cuts(rnd, n, end)
	d, dir := newDisk(), filepath.Join(memoryDir(t), "image")
	done := 0
	for _, call := range cuts {
		for ; done < call; done++ {
			d.apply(r.calls[done])
		}
		cut := newCut(rnd)
		must(t, os.Mkdir(dir, 0o700))
		must(t, d.leave(dir, cut))
		err := r.check(filepath.Join(dir, runFile), call)
		report(dir, fmt.Sprintf("before call %d, cut %d at %.2f", call, cut.kind, cut.one), err)
		must(t, os.RemoveAll(dir))
	}
}

// cuts chooses n calls up to end to cut before, in order: of three one is a sync, which
// has all of a commit's writes before it, and one follows an acknowledgement.
func (r *run) cuts(rnd *rand.Rand, n, end int) (cuts []int) {
	var syncs, acked []int
	for i, c := range r.calls[:end] {
		if i < r.start {
			continue
		}
		if c.kind == callSync || c.kind == callSyncDir {
			syncs = append(syncs, i)
		}
		if slices.Contains(r.done, i) {
			acked = append(acked, i+1)
		}
	}
	for i := range n {
		cut := r.start + rnd.IntN(end-r.start)
		if special := [][]int{syncs, acked, nil}[i%3]; len(special) > 0 {
			cut = special[rnd.IntN(len(special))]
		}
		cuts = append(cuts, cut)
	}
	slices.Sort(cuts)
	return cuts
}

// check opens the file that is left by a cut before the call, and says what is wrong
// with it.
func (r *run) check(path string, call int) (err error) {
	now := r.now(call)
	db, err := Open(path, Options{Retention: recordedRetention, Now: func() time.Time { return now }})
	if err != nil {
		return err
	}
	err = r.checkLogs(db, call)
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	return errors.Join(checkStructure(path), checkFolder(filepath.Dir(path)))
}

// checkLogs also appends to all logs.
func (r *run) checkLogs(db *DB, call int) error {
	if call > r.opened && db.ID() != r.log {
		return fmt.Errorf("the numbering is %s; want %s", db.ID(), r.log)
	}
	var written []string
	bounds := map[string]Bounds{}
	for name := range r.streams {
		b, n, err := r.checkLog(db, name, call)
		if err != nil {
			return fmt.Errorf("stream %s: %w", name, err)
		}
		if bounds[name] = b; n > 0 {
			written = append(written, name)
		}
	}
	streams, err := db.Streams(context.Background())
	listed := make([]string, len(streams))
	for i, s := range streams {
		listed[i] = s.Name
	}
	if slices.Sort(written); err != nil || !slices.Equal(listed, written) || db.StreamCount() != len(written) {
		return fmt.Errorf("%d streams %q, %w; want %q", db.StreamCount(), listed, err, written)
	}
	return appendNext(db, bounds)
}

// appendNext appends to each log. The event gets the next number and is all that is new.
func appendNext(db *DB, before map[string]Bounds) error {
	names := slices.Sorted(maps.Keys(before))
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			l, b := db.Log(name), before[name]
			r, err := l.Append(context.Background(), batch("next"))
			if b.Closed {
				if !errors.Is(err, ErrClosed) {
					errs[i] = fmt.Errorf("stream %s is closed, and appending returns %+v, %v", name, r, err)
				}
				return
			}
			var after []string
			_, readErr := l.Read(context.Background(), b.Last, func(e Event) bool {
				after = append(after, fmt.Sprint(e.Seq, " ", string(e.Data)))
				return true
			})
			want := fmt.Sprint(b.Last+1, " next")
			if err := errors.Join(err, readErr); err != nil || r.Last != b.Last+1 || !slices.Equal(after, []string{want}) {
				errs[i] = fmt.Errorf("stream %s: the next append returns %+v, %w, after it there is %q; want %q", name, r, err, after, want)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// checkStructure has bbolt check a file that nobody has open.
func checkStructure(path string) error {
	b, err := bolt.Open(path, 0, &bolt.Options{ReadOnly: true, PreLoadFreelist: true, Timeout: time.Second})
	if err != nil {
		return err
	}
	err = b.View(func(tx *bolt.Tx) (err error) {
		for e := range tx.Check() {
			err = errors.Join(err, e)
		}
		return err
	})
	return errors.Join(err, b.Close())
}

// checkFolder says what is in the folder beside the file.
func checkFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.Name() != runFile {
			err = errors.Join(err, fmt.Errorf("the folder has %s", e.Name()))
		}
	}
	return err
}
