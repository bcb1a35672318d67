package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	recordedPath   = "LASTEVENT_TEST_RECORDED"        // the file
	recordedLedger = "LASTEVENT_TEST_RECORDED_LEDGER" // what is acknowledged
	recordedPlan   = "LASTEVENT_TEST_RECORDED_PLAN"   // seed, steps, the clock
)

const recordedProducers = 6

// recordedRetention is exceeded by each of: the number of events of stream small, the
// bytes of stream large, the age of those that are seldom appended to.
var recordedRetention = Retention{Events: 150, Bytes: 256 << 10, Age: time.Minute}

var recordedStart = time.Unix(1_700_000_000, 0)

// A step is what a producer of a recorded run does.
type step struct {
	stream string
	batch  Batch
	delete bool
	wait   time.Duration // by which the clock goes on before it
}

// planRun is what each producer does, one step after the other. Streams that are
// closed or deleted are of one producer alone.
func planRun(seed uint64, steps int) (producers [][]step) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	for p := range recordedProducers {
		own := fmt.Sprint("own/", p)
		plan := []step{{stream: own, batch: planBatch(rnd, 1+p, 40<<10)}} // the file grows at once
		for i := range steps {
			plan = append(plan, planStep(rnd, own, fmt.Sprintf("short/%d/%d/%d", seed, p, i)))
		}
		if p%2 == 0 {
			plan = append(plan, step{stream: own, batch: Batch{Close: true, Key: "end", Digest: sha256.Sum256(nil)}})
		}
		producers = append(producers, plan)
	}
	return producers
}

func planStep(rnd *rand.Rand, own, short string) (s step) {
	switch n := rnd.IntN(16); {
	case n < 6:
		s = step{stream: "small", batch: planBatch(rnd, 1, 100)}
	case n == 6:
		s = step{stream: "small", batch: planBatch(rnd, 2+rnd.IntN(40), 200)}
	case n == 7:
		s = step{stream: "small", batch: planBatch(rnd, 200, 5)} // more than are retained
	case n == 8:
		s = step{stream: "large", batch: planBatch(rnd, 1, 100<<10)}
	case n == 9:
		s = step{stream: "large", batch: planBatch(rnd, 1+rnd.IntN(4), 10<<10)}
	case n == 10:
		s = step{stream: "large", batch: planBatch(rnd, 1, 300<<10)} // at times more than is retained
	case n == 11:
		s = step{stream: short, batch: planBatch(rnd, rnd.IntN(4), 3000)}
		s.batch.Close = len(s.batch.Events) == 0 || rnd.IntN(2) == 0
	case n == 12:
		return step{stream: own, delete: true}
	default:
		s = step{stream: own, batch: planBatch(rnd, 1+rnd.IntN(3), 3000), wait: time.Duration(rnd.IntN(5000)) * time.Millisecond}
	}
	if rnd.IntN(3) == 0 {
		s.batch.Key = fmt.Sprint("key ", rnd.Uint32())
		s.batch.Digest = sha256.Sum256([]byte(s.batch.Key))
	}
	return s
}

// planBatch is n events of up to so many bytes, most of them of few.
func planBatch(rnd *rand.Rand, n, bytes int) (b Batch) {
	for range n {
		data := make([]byte, rnd.IntN(1+rnd.IntN(bytes)))
		for i := range data {
			data[i] = byte(' ' + rnd.IntN(95))
		}
		b.Events = append(b.Events, Event{Type: []string{"message", "", "a type"}[rnd.IntN(3)], Data: data})
	}
	return b
}

// recordRun records a run on a new file.
func recordRun(t *testing.T, seed uint64, steps int, injections ...string) *run {
	t.Helper()
	r := &run{dir: t.TempDir(), clocks: []clock{{0, recordedStart}}, streams: map[string][]*runStep{}}
	r.record(t, seed, steps, injections...)
	return r
}

// record adds to the run, which has what was before, the calls of a process.
func (r *run) record(t *testing.T, seed uint64, steps int, injections ...string) {
	t.Helper()
	ledger := filepath.Join(t.TempDir(), "ledger")
	r.calls = record(t, "TestRecordedRun", r.dir, ledger, []string{
		recordedPath + "=" + filepath.Join(r.dir, runFile),
		recordedLedger + "=" + ledger,
		recordedPlan + "=" + fmt.Sprint(seed, " ", steps, " ", r.clocks[0].now.UnixNano()),
	}, injections...)
	r.read(t, planRun(seed, steps))
}

func TestRecordedRun(t *testing.T) {
	path := os.Getenv(recordedPath)
	if path == "" {
		t.Skip("runs as the child of another test")
	}
	var seed uint64
	var steps int
	var start int64
	if _, err := fmt.Sscan(os.Getenv(recordedPlan), &seed, &steps, &start); err != nil {
		t.Fatal(err)
	}
	ledger, err := os.Create(os.Getenv(recordedLedger))
	must(t, err)
	defer ledger.Close()
	c := &recorded{ledger: ledger}
	c.clock.Store(start)
	plan := planRun(seed, steps)
	half := len(plan[0]) / 2
	c.run(t, path, plan, 0, half)
	c.wait(recordedRetention.Age / 2)
	c.run(t, path, plan, half, len(plan[0])+1)
	must(t, c.err)
}

// recorded is the process of a recorded run.
type recorded struct {
	clock atomic.Int64

	mu     sync.Mutex // guards what follows
	ledger *os.File
	err    error
}

// note writes a line of the ledger.
func (c *recorded) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noteLocked(format, args...)
}

func (c *recorded) noteLocked(format string, args ...any) {
	if _, err := fmt.Fprintf(c.ledger, format+"\n", args...); err != nil {
		c.err = err
	}
}

func (c *recorded) wait(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock.Load() + int64(d)
	c.noteLocked("clock %d", now)
	c.clock.Store(now)
}

// run opens the file and has each producer do its steps from one up to another.
func (c *recorded) run(t *testing.T, path string, plan [][]step, from, to int) {
	db, err := Open(path, Options{Retention: recordedRetention, Now: func() time.Time { return time.Unix(0, c.clock.Load()) }})
	must(t, err)
	db.bolt.AllocSize = 64 << 10 // so that the file grows often
	c.note("opened %s", db.ID())
	var wg sync.WaitGroup
	for p, steps := range plan {
		wg.Go(func() {
			for i := from; i < min(to, len(steps)); i++ {
				c.do(t, db, fmt.Sprint(p, " ", i), steps[i])
			}
		})
	}
	wg.Wait()
	must(t, db.Close())
}

// do does a step, and notes that it begins and when it is acknowledged.
func (c *recorded) do(t *testing.T, db *DB, id string, s step) {
	if s.wait > 0 {
		c.wait(s.wait)
	}
	c.note("begin %s", id)
	l, at := db.Log(s.stream), int64(0)
	var r Receipt
	var err error
	if s.delete {
		err = l.Delete(context.Background())
	} else {
		r, err = l.Append(context.Background(), s.batch)
	}
	if len(s.batch.Events) > 0 {
		at = s.batch.Events[0].Time.UnixNano()
	}
	switch {
	case errors.Is(err, ErrTooLarge), errors.Is(err, ErrClosed): // by a run before
		c.note("refused %s", id)
	case err != nil:
		t.Error(err)
	default:
		c.note("done %s %d %d", id, r.Last, at)
	}
}

// runFile is the name of the file of a recorded run.
const runFile = "store.db"

// A run is what was recorded.
type run struct {
	dir     string
	calls   []call
	start   int    // the first call of the process
	log     string // the name of the numbering
	opened  int    // the call before which the file was first open
	done    []int  // the calls by which something was acknowledged
	clocks  []clock
	streams map[string][]*runStep // in the order in which they took effect
}

// A clock is the time from a call on.
type clock struct {
	call int
	now  time.Time
}

// A runStep is a step, with the numbers of the calls before which it began and was
// acknowledged.
type runStep struct {
	step
	begun, done int
	refused     bool
	last        uint64 // of the log after it; of a delete it is that of the step before
	time        time.Time
}

// read reads what the calls tell.
func (r *run) read(t *testing.T, plan [][]step) {
	t.Helper()
	steps := make([][]*runStep, len(plan))
	for p := range plan {
		for _, s := range plan[p] {
			steps[p] = append(steps[p], &runStep{step: s})
		}
	}
	for i, c := range r.calls {
		if c.kind == callSyncDir && r.start == 0 {
			r.start = i + 1
		}
		if c.kind == callLedger {
			r.readLine(t, i, strings.Fields(c.line), steps)
		}
	}
	r.order(t, steps)
}

func (r *run) readLine(t *testing.T, i int, line []string, steps [][]*runStep) {
	number := func(n int) int64 {
		v, err := strconv.ParseInt(line[n], 10, 64)
		must(t, err)
		return v
	}
	switch line[0] {
	case "opened":
		if r.log == "" {
			r.opened, r.log = i, line[1]
		} else if r.log != line[1] {
			t.Errorf("the numbering was %s and is %s", r.log, line[1])
		}
		return
	case "clock":
		r.clocks = append(r.clocks, clock{i, time.Unix(0, number(1))})
		return
	}
	s := steps[number(1)][number(2)]
	switch line[0] {
	case "begin":
		s.begun = i
	case "refused":
		s.done, s.refused = i, true
	case "done":
		s.done, s.last, s.time = i, uint64(number(3)), time.Unix(0, number(4))
		r.done = append(r.done, i)
	}
}
