package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// These tests run TestSyncChild in a process of its own under strace, which delays
// its syncs or has its system calls fail, and logs them in their order. When the
// child first sees an event, it makes a system call with the event's sequence.

const (
	childPath    = "LASTEVENT_TEST_CHILD"
	childOutcome = "LASTEVENT_TEST_OUTCOME"

	// The child's first append is of a large event, so that the file grows. Then come
	// some batches for stream s. The last append closes stream c, with a key.
	childBatches = 3
	childBatch   = 2 // events in each
	childCommits = 1 + childBatches + 1

	closedMark = 1 << 20 // stands for the stream being closed
	usedMark   = 1 << 21 // stands for the key being used
)

// An outcome is what a child did and saw.
type outcome struct {
	Acked  map[uint64]string // stream s: data by sequence
	Seen   map[uint64]string // by a reader or a follower
	Closed bool              // stream c, acknowledged
	// SeenClosed, SeenUsed: a reader saw that stream c is closed, that the key is used.
	SeenClosed, SeenUsed bool
	NoSpace              []string // what was appended where the error was that
	Unknown              []string
	// LateUnknown: of the appends after that, too, the outcome is said to be unknown.
	LateUnknown bool
	Faults      []string
}

func TestSyncChild(t *testing.T) {
	path := os.Getenv(childPath)
	if path == "" {
		t.Skip("runs as the child of another test")
	}
	c := &child{seen: map[uint64]string{}, pinned: make(chan struct{}), end: make(chan struct{})}
	o := c.run(t, path)
	o.Seen, o.SeenClosed, o.SeenUsed, o.Faults = c.seen, c.seenClosed, c.seenUsed, c.faults
	data, err := json.Marshal(o)
	must(t, err)
	must(t, os.WriteFile(os.Getenv(childOutcome), data, 0o600))
}

type child struct {
	db                   *DB
	arm                  atomic.Bool
	pinned               chan struct{}
	rounds               atomic.Int64 // of the reader
	seenClosed, seenUsed bool         // the reader's
	end                  chan struct{}

	mu     sync.Mutex // guards seen and faults
	seen   map[uint64]string
	faults []string
}

// now is the clock. It keeps the committer, which is the first to look at it after
// arm, on one thread, as strace counts the calls of each thread.
func (c *child) now() time.Time {
	if c.arm.CompareAndSwap(true, false) {
		runtime.LockOSThread()
		close(c.pinned)
	}
	return time.Now()
}

func (c *child) fault(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.faults) < 10 {
		c.faults = append(c.faults, fmt.Sprintf(format, args...))
	}
}

func (c *child) run(t *testing.T, path string) outcome {
	db, err := Open(path, Options{Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	c.db = db
	stop, err := db.Log("s").Follow(t.Context(), func(_ Bounds, events []Event) {
		for _, e := range events {
			c.see(e.Seq, string(e.Data))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	c.arm.Store(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.read(t)
	}()
	o := c.appendAll(t)
	for after := c.rounds.Load() + 100; c.rounds.Load() < after; {
		runtime.Gosched()
	}
	close(c.end)
	<-done
	stop()
	if err := db.Close(); err != nil {
		c.fault("close: %v", err)
	}
	return o
}

func (c *child) appendAll(t *testing.T) outcome {
	o := outcome{Acked: map[uint64]string{}}
	for i := range childCommits {
		l, b := c.db.Log("s"), batch(fmt.Sprint(i, "/0"), fmt.Sprint(i, "/1"))
		switch i {
		case 0:
			l, b = c.db.Log("large"), batch(strings.Repeat("x", 1<<16))
		case childCommits - 1:
			l, b = c.db.Log("c"), Batch{Close: true, Key: "key"}
		}
		r, err := l.Append(t.Context(), b)
		if err == nil && c.db.Err() != nil {
			c.fault("after an append that succeeds Err is %v", c.db.Err())
		}
		switch {
		case err == nil && i == 0:
		case err == nil && b.Close:
			o.Closed = true
		case err == nil:
			for j, e := range b.Events {
				o.Acked[r.Last-childBatch+1+uint64(j)] = string(e.Data)
			}
		case errors.Is(err, ErrUnknown):
			o.Unknown = append(o.Unknown, fmt.Sprint(i))
			o.LateUnknown = c.stopped(t)
			return o
		case errors.Is(err, ErrNoSpace):
			o.NoSpace = append(o.NoSpace, fmt.Sprint(i))
			if err := c.db.Err(); !errors.Is(err, ErrNoSpace) {
				c.fault("on a full disk Err is %v", err)
			}
		default:
			c.fault("append: %v", err)
		}
	}
	return o
}

// stopped checks the DB after a sync has failed. It reports whether the outcome of
// an append is said to be unknown, which it is not: the DB has stopped.
func (c *child) stopped(t *testing.T) (unknown bool) {
	select {
	case <-c.db.Failed():
	default:
		c.fault("Failed is not closed")
	}
	if err := c.db.Err(); !errors.Is(err, ErrStopped) {
		c.fault("Err is %v; want ErrStopped", err)
	}
	for range 3 {
		_, err := c.db.Log("s").Append(t.Context(), batch("late"))
		if !errors.Is(err, ErrStopped) {
			c.fault("an append after a failed sync returns %v; want ErrStopped", err)
		}
		unknown = unknown || errors.Is(err, ErrUnknown)
	}
	return unknown
}

// see notes that somebody was shown an event, and tells strace.
func (c *child) see(seq uint64, data string) {
	c.mu.Lock()
	was, before := c.seen[seq]
	c.seen[seq] = data
	c.mu.Unlock()
	if before && was != data {
		c.fault("event %d is %q and then %q", seq, was, data)
	}
	if !before {
		mark(seq)
	}
}

func mark(seq uint64) { _ = syscall.Fallocate(-1, 0, int64(seq), 1) }

// read reads all there is, over and over.
func (c *child) read(t *testing.T) {
	<-c.pinned
	for {
		select {
		case <-c.end:
			return
		default:
		}
		last := uint64(0)
		b, err := c.db.Log("s").Read(t.Context(), 0, func(e Event) bool {
			c.see(e.Seq, string(e.Data))
			last = e.Seq
			return true
		})
		if err != nil || b.Last != last {
			c.fault("read up to %d of %+v: %v", last, b, err)
		}
		bounds, err := c.db.Log("c").Bounds(t.Context())
		_, used, usedErr := c.db.Log("c").Used(t.Context(), "key", [32]byte{})
		if err := errors.Join(err, usedErr); err != nil {
			c.fault("%v", err)
		}
		if bounds.Closed && !c.seenClosed {
			c.seenClosed = true
			mark(closedMark)
		}
		if used && !c.seenUsed {
			c.seenUsed = true
			mark(usedMark)
		}
		c.rounds.Add(1)
		runtime.Gosched()
	}
}

// runChild runs the child on a new file with these injections of strace's. It
// returns the file, what the child did, and strace's log.
func runChild(t *testing.T, injections ...string) (path string, o outcome, trace []string) {
	t.Helper()
	dir := t.TempDir()
	path = filepath.Join(dir, "store.db")
	CloseForTest(t, OpenForTest(t, path, Options{}))
	log, outcomePath := filepath.Join(dir, "trace"), filepath.Join(dir, "outcome")
	args := []string{"-f", "-qq", "-o", log, "-e", "trace=fdatasync,fsync,pwrite64,ftruncate,fallocate"}
	for _, i := range injections {
		args = append(args, "-e", "inject="+i)
	}
	executable, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), "strace", append(args, executable, "-test.run=^TestSyncChild$")...)
	cmd.Env = append(os.Environ(), childPath+"="+path, childOutcome+"="+outcomePath,
		"GORACE=atexit_sleep_ms=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", injections, err, out)
	}
	data, err := os.ReadFile(outcomePath)
	must(t, err)
	must(t, json.Unmarshal(data, &o))
	data, err = os.ReadFile(log)
	must(t, err)
	return path, o, strings.Split(string(data), "\n")
}

func needStrace(t *testing.T) {
	t.Helper()
	out, err := exec.Command("strace", "-f", "-qq", "-o", os.DevNull, "-e", "trace=none", "true").CombinedOutput()
	if err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("strace does not work: %v %s", err, out)
	}
	t.Skipf("needs strace, and the right to trace: %v %s", err, out)
}

// A systemCall is one that has ended, as strace logs it.
var systemCall = regexp.MustCompile(`^\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed>)(.*)\) += (-?\d+)`)

// countCalls returns how many calls there were of each.
func countCalls(trace []string) map[string]int {
	count := map[string]int{}
	for _, line := range trace {
		if m := systemCall.FindStringSubmatch(line); m != nil {
			count[m[1]]++
		}
	}
	return count
}

// TestDurableBeforeVisible delays each sync: what was not yet synced nobody sees.
// A commit has two syncs, of its pages and of the meta page.
func TestDurableBeforeVisible(t *testing.T) {
	needStrace(t)
	path, o, trace := runChild(t, "fdatasync:delay_enter=25000")
	syncs := 0
	syncsBefore := map[int]int{} // by mark
	for _, line := range trace {
		if m := systemCall.FindStringSubmatch(line); m != nil && m[1] == "fdatasync" && m[3] == "0" {
			syncs++
		}
		if _, args, ok := strings.Cut(line, "fallocate(-1, 0, "); ok {
			mark, err := strconv.Atoi(args[:strings.IndexByte(args, ',')])
			must(t, err)
			syncsBefore[mark] = syncs
		}
	}
	want := map[int]int{closedMark: 2 * childCommits, usedMark: 2 * childCommits}
	for i := range childBatches * childBatch {
		want[i+1] = 2 * (1 + i/childBatch + 1)
	}
	for mark, least := range want {
		name := fmt.Sprint("event ", mark)
		switch mark {
		case closedMark:
			name = "closed"
		case usedMark:
			name = "key"
		}
		t.Run(name, func(t *testing.T) {
			if n, ok := syncsBefore[mark]; !ok || n < least {
				t.Errorf("it is seen: %t, after %d syncs; want %d", ok, n, least)
			}
		})
	}
	if len(o.Acked) != childBatches*childBatch || !o.Closed {
		t.Errorf("the child has %+v", o)
	}
	checkOutcome(t, path, o)
}

// TestFailingDisk has, in one run after another, each single call fail.
func TestFailingDisk(t *testing.T) {
	needStrace(t)
	_, _, trace := runChild(t)
	count := countCalls(trace)
	for _, test := range []struct {
		call, err string
		want      error // of the append; nil is either
		least     int   // calls in the run
	}{
		{"fdatasync", "EIO", ErrUnknown, 2 * childCommits},
		{"fdatasync", "ENOSPC", nil, 2 * childCommits},
		{"fsync", "EIO", ErrUnknown, 1}, // when the file grows
		{"pwrite64", "ENOSPC", ErrNoSpace, 2 * childCommits},
		{"ftruncate", "ENOSPC", ErrNoSpace, 1}, // when the file grows
	} {
		if count[test.call] < test.least {
			t.Errorf("a run has %d calls of %s; want %d", count[test.call], test.call, test.least)
		}
		for n := 1; n <= count[test.call]; n++ {
			t.Run(fmt.Sprint(test.call, " ", n, " ", test.err), func(t *testing.T) {
				t.Parallel()
				path, o, trace := runChild(t, fmt.Sprintf("%s:error=%s:when=%d", test.call, test.err, n))
				if n > test.least && countCalls(trace)[test.call] < n {
					return // which pages are free, and are written at once, varies
				}
				if s := strings.Join(trace, "\n"); strings.Count(s, "(INJECTED)") != 1 {
					t.Fatalf("not one call failed:\n%s", s)
				}
				if n > test.least && len(o.NoSpace)+len(o.Unknown) == 0 {
					checkOutcome(t, path, o) // it was in the commit of Close
					return
				}
				if len(o.NoSpace)+len(o.Unknown) != 1 ||
					test.want == ErrNoSpace && len(o.NoSpace) != 1 ||
					test.want == ErrUnknown && len(o.Unknown) != 1 {
					t.Errorf("no space for %q, unknown what became of %q; want one append with %v", o.NoSpace, o.Unknown, test.want)
				}
				checkOutcome(t, path, o)
			})
		}
	}
}

// TestStoppedIsNotUnknown: an append that comes after a failed sync stores nothing,
// which must not be mistaken for the one whose outcome nobody knows.
func TestStoppedIsNotUnknown(t *testing.T) {
	needStrace(t)
	_, o, _ := runChild(t, "fdatasync:error=EIO:when=2")
	if len(o.Unknown) != 1 || o.LateUnknown {
		t.Errorf("outcome unknown of %q, and of later appends: %t", o.Unknown, o.LateUnknown)
	}
}

// checkOutcome opens the file that a child has left: what it acknowledged is there,
// what it showed to anybody was acknowledged, and of what it could not append there
// is all or nothing if the outcome is unknown, and else nothing.
func checkOutcome(t *testing.T, path string, o outcome) {
	t.Helper()
	for _, f := range o.Faults {
		t.Error(f)
	}
	if !maps.Equal(o.Seen, o.Acked) {
		t.Errorf("seen %v; want the acknowledged %v", o.Seen, o.Acked)
	}
	if o.SeenClosed != o.Closed || o.SeenUsed != o.Closed {
		t.Errorf("seen is stream c closed: %t, with the key: %t; acknowledged: %t", o.SeenClosed, o.SeenUsed, o.Closed)
	}
	checkClosed(t, path)
	db := OpenForTest(t, path, Options{})
	var want []string
	for _, seq := range slices.Sorted(maps.Keys(o.Acked)) {
		want = append(want, fmt.Sprint(seq, " ", o.Acked[seq]))
	}
	l := db.Log("s")
	got := mustRead(t, l, 0)
	last := uint64(len(want))
	if len(o.Unknown) == 1 && len(got) > len(want) {
		for j := range childBatch {
			want = append(want, fmt.Sprintf("%d %s/%d", last+uint64(j)+1, o.Unknown[0], j))
		}
		last += childBatch
	}
	if !slices.Equal(got, want) {
		t.Errorf("in the file is %q; want %q", got, want)
	}
	if b := mustBounds(t, l); b.First != 1 || b.Last != last {
		t.Errorf("in the file is %+v; want 1 to %d", b, last)
	}
	if r := mustAppend(t, l, "next"); r.Last != last+1 {
		t.Errorf("the next append ends with %d; want %d", r.Last, last+1)
	}
	if closed := mustBounds(t, db.Log("c")).Closed; closed != o.Closed && len(o.Unknown) == 0 || o.Closed && !closed {
		t.Errorf("in the file stream c is closed: %t; acknowledged: %t", closed, o.Closed)
	}
}
