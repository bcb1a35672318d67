//go:build linux

// Package bench measures a lastevent server, and, in turns with it, what it is to
// be compared with: the limit, which is the least work that moves the same bytes,
// and the classic server, which is what most people write.
//
// Each of them is a process of its own, and so are the clients, so that the CPU
// time of a server is that of its work alone. All but lastevent itself are roles of
// this program: see [Play].
package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Config says what to measure.
type Config struct {
	// URL is that of a server to measure instead of one that is started; nil starts
	// one. What takes a look into the server's process is then not measured.
	URL *url.URL
	// Workloads are names of those to run; none are all.
	Workloads []string
	// Repeat is how often each is measured. At least 1.
	Repeat int
	// Quick makes all small, to see that it works.
	Quick bool
	// Dir is where the files of what is measured are, in a folder that is removed.
	Dir string
	// Step is called with what begins now, in words; done of total workloads are over.
	// Required.
	Step func(done, total int, what string)
}

// A target is what is measured, or compared with.
type target string

const (
	lastevent target = "lastevent"
	classic   target = "classic"
	limit     target = "limit"
)

var allTargets = []target{lastevent, classic, limit}

// bench is one run.
type bench struct {
	Config
	sizes
	exe    string
	dir    string
	prefix string  // of the streams' paths
	names  int     // given so far, to files and streams
	remote *server // nil: one is started

	// What runs now.
	entry *Entry
	point string // of its curve
	done  int    // workloads
	total int
}

// Run measures the workloads. What was measured before the context ended, or
// before the first workload that failed for another reason than its own, is in the
// report also where there is an error.
func Run(ctx context.Context, c Config) (*Report, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(c.Dir, "lastevent-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	b := &bench{Config: c, sizes: full, exe: exe, dir: dir}
	b.prefix = fmt.Sprintf("/sse/bench-%x-", time.Now().UnixNano())
	if c.Quick {
		b.sizes = quick
	}
	if c.URL != nil {
		addr, err := net.ResolveTCPAddr("tcp4", c.URL.Host)
		if err != nil {
			return nil, err
		}
		b.remote = &server{addr: addr.String(), host: c.URL.Host}
	}
	report := &Report{
		Time:    time.Now().Truncate(time.Second),
		Machine: machine(),
		Repeat:  c.Repeat,
		Quick:   c.Quick,
	}
	if c.URL != nil {
		report.URL = c.URL.String()
	}
	return report, b.run(ctx, report)
}

func (b *bench) run(ctx context.Context, report *Report) error {
	var selected []workload
	for _, w := range workloads(b.sizes) {
		if len(b.Workloads) == 0 || slices.Contains(b.Workloads, w.name) {
			selected = append(selected, w)
		}
	}
	var errs []error
	for i, w := range selected {
		b.done, b.total = i, len(selected)
		b.entry = &Entry{Name: w.name, What: w.what}
		err := w.run(ctx, b)
		b.entry.finish()
		report.Workloads = append(report.Workloads, b.entry)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			b.entry.note("failed: %v", err)
			errs = append(errs, fmt.Errorf("%s: %w", w.name, err))
		}
	}
	return errors.Join(errs...)
}

// inTurns calls f for each target in turn, as often as is repeated.
func (b *bench) inTurns(ctx context.Context, targets []target, f func(target) error) error {
	for i := range b.Repeat {
		for _, t := range targets {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			b.step("%s, %d of %d", t, i+1, b.Repeat)
			if err := f(t); err != nil {
				return fmt.Errorf("%s: %w", t, err)
			}
		}
	}
	return nil
}

func (b *bench) step(format string, args ...any) {
	b.Step(b.done, b.total, b.entry.Name+b.point+": "+fmt.Sprintf(format, args...))
}

// machine tells what the figures were measured on.
func machine() string {
	kernel := "Linux"
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		kernel += " " + unix.ByteSliceToString(name.Release[:])
	}
	return fmt.Sprintf("%d CPUs, %s, %s %s", runtime.NumCPU(), kernel, runtime.Version(), runtime.GOARCH)
}
