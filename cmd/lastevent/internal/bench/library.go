//go:build linux

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"lastevent/store"
)

// appendsConfig is a program that appends through the library, without a server.
type appendsConfig struct {
	DB        string
	Producers int
	Batch     int // events an append
	Size      int // bytes of an event's data
	Retain    uint64
	// It ends after so many events, so much time, or when the file is so large; what
	// is 0 does not count.
	Events    int64
	Duration  time.Duration
	FileBytes int64
	// Parts is how often it says what it has done: each time after the same share of
	// Events, or once.
	Parts int64
}

// appendsResult is a part of what the program did.
type appendsResult struct {
	Events  int64
	Seconds float64
	CPU     float64 // µs
	Written int64   // bytes handed to the disk
	File    int64   // its size at the end
}

// runAppends plays the program.
func runAppends(c appendsConfig, out *json.Encoder) error {
	db, err := store.Open(c.DB, store.Options{Retention: store.Retention{Events: c.Retain}})
	if err != nil {
		return err
	}
	defer db.Close()
	var total int64
	for i := range c.Parts {
		r, err := c.part(db, c.Events*(i+1)/c.Parts-total)
		if err != nil {
			return err
		}
		total += r.Events
		if err := out.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// part has the producers append up to so many events.
func (c appendsConfig) part(db *store.DB, events int64) (r appendsResult, err error) {
	written, err := bytesWritten()
	if err != nil {
		return r, err
	}
	cpu := ownCPU()
	var (
		wg              sync.WaitGroup
		started, failed atomic.Int64
		begin           = time.Now()
		stopped         atomic.Bool
	)
	produce := func() {
		batch := store.Batch{Events: make([]store.Event, c.Batch)}
		data := bytes.Repeat([]byte{'x'}, c.Size)
		log := db.Log("bench")
		for !stopped.Load() {
			if n := started.Add(int64(c.Batch)); events > 0 && n > events {
				started.Add(-int64(c.Batch))
				return
			}
			for i := range batch.Events {
				batch.Events[i] = store.Event{Type: "message", Data: data}
			}
			if _, err := log.Append(context.Background(), batch); err != nil {
				failed.Add(1)
				return
			}
		}
	}
	for range c.Producers {
		wg.Go(produce)
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for tick := time.NewTicker(10 * time.Millisecond); !stopped.Load(); {
		select {
		case <-done:
			stopped.Store(true)
		case <-tick.C:
			stopped.Store(c.Duration > 0 && time.Since(begin) >= c.Duration ||
				c.FileBytes > 0 && fileSize(c.DB) >= c.FileBytes)
		}
	}
	<-done
	if n := failed.Load(); n > 0 {
		return r, fmt.Errorf("%d producers failed: %w", n, db.Err())
	}
	after, err := bytesWritten()
	return appendsResult{
		Events:  started.Load(),
		Seconds: time.Since(begin).Seconds(),
		CPU:     ownCPU() - cpu,
		Written: after - written,
		File:    fileSize(c.DB),
	}, err
}

func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// bytesWritten is what this process had the kernel write to disks.
func bytesWritten() (n int64, err error) {
	io, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(io), "\nwrite_bytes: ")
	_, err = fmt.Sscan(rest, &n)
	return n, err
}

// ownCPU is the CPU time of this process, in µs.
func ownCPU() float64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t) // which is always there
	return float64(t.Nano()) / 1e3
}

// syncs measures the limit of what is durable: writes of so many bytes in place,
// each followed by fdatasync, for a while.
func syncs(path string, size int, d time.Duration) (r loadResult, err error) {
	const room = 1 << 20
	f, err := os.Create(path)
	if err != nil {
		return r, err
	}
	defer os.Remove(path)
	defer f.Close()
	if _, err := f.Write(make([]byte, room)); err != nil {
		return r, err
	}
	if err := f.Sync(); err != nil {
		return r, err
	}
	var (
		latency = newHistogram()
		data    = bytes.Repeat([]byte{'x'}, size)
		begin   = time.Now()
		n       = 0
	)
	for ; time.Since(begin) < d; n++ {
		at := time.Now()
		if _, err := f.WriteAt(data, int64(n*size%(room-size))); err != nil {
			return r, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return r, os.NewSyscallError("fdatasync", err)
		}
		record(latency, time.Since(at))
	}
	return loadResult{
		perSecond: float64(n) / time.Since(begin).Seconds(),
		p50:       float64(latency.ValueAtQuantile(50)),
	}, nil
}
