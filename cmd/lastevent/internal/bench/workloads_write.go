//go:build linux

package bench

import (
	"context"
	"fmt"
	"time"
)

// syncTime is how long fdatasync is measured in a turn.
func (b *bench) syncTime() time.Duration { return b.load / 4 }

func publish(ctx context.Context, b *bench) error {
	type figures struct{ acks, p50, cpu *Metric }
	metrics := map[int]figures{}
	for _, n := range b.publishers {
		var acks, p50 []*Check
		switch n {
		case 1:
			p50 = append(p50, atMost(3.5, limit))
		case 256:
			acks = append(acks, atLeast(1/1.5, classic))
		}
		metrics[n] = figures{
			b.entry.metric(fmt.Sprintf("acks, %d at once", n), "/s", acks...),
			b.entry.metric(fmt.Sprintf("latency p50, %d at once", n), "ms", p50...),
			b.entry.metric(fmt.Sprintf("CPU an ack, %d at once", n), "µs"),
		}
	}
	return b.inTurns(ctx, allTargets, func(t target) error {
		if t == limit {
			r, err := syncs(b.newFile(), eventSize, b.syncTime())
			if err == nil {
				m := metrics[b.publishers[0]]
				m.acks.add(t, r.perSecond)
				m.p50.add(t, r.p50/1e3)
			}
			return err
		}
		for _, n := range b.publishers {
			r, cpu, err := b.publishAlone(ctx, t, n)
			if err != nil {
				return err
			}
			metrics[n].acks.add(t, r.perSecond)
			metrics[n].p50.add(t, r.p50/1e3)
			metrics[n].cpu.add(t, cpu)
		}
		return nil
	})
}

// publishAlone has so many publishers publish to a stream without clients. CPU is
// the server's an event, in µs.
func (b *bench) publishAlone(ctx context.Context, t target, publishers int) (r loadResult, cpu float64, err error) {
	s, err := b.start(ctx, t)
	if err != nil {
		return r, 0, err
	}
	defer s.stop()
	l := load{prefix: b.newPrefix(), streams: 1, size: eventSize, publishers: publishers, duration: b.load}
	before := s.cpu()
	r, err = l.run(ctx, s)
	return r, (s.cpu() - before) / (r.perSecond * b.load.Seconds()), err
}

// appends runs a program that appends, and returns all that it says.
func (b *bench) appends(ctx context.Context, c appendsConfig) (parts []appendsResult, err error) {
	c.Parts = max(c.Parts, 1)
	p, err := b.play(ctx, "append", c)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	for range c.Parts {
		var r appendsResult
		if err := p.next(&r); err != nil {
			return nil, err
		}
		parts = append(parts, r)
	}
	return parts, p.cmd.Wait()
}

func appends(ctx context.Context, b *bench) error {
	many, few := b.producers, b.producers/16
	rate := b.entry.metric(fmt.Sprintf("events, %d producers", many), "/s", atLeast(30, limit))
	cpu := b.entry.metric(fmt.Sprintf("CPU an event, %d producers", many), "µs")
	written := b.entry.metric(fmt.Sprintf("bytes written a byte of data, %d producers", few), "", atMost(4, ""))
	fewRate := b.entry.metric(fmt.Sprintf("events, %d producers", few), "/s")
	return b.inTurns(ctx, []target{lastevent, limit}, func(t target) error {
		if t == limit {
			r, err := syncs(b.newFile(), eventSize, b.syncTime())
			rate.add(t, r.perSecond)
			return err
		}
		c := appendsConfig{Batch: 1, Size: eventSize, Retain: uint64(b.retain), Duration: b.load}
		for _, producers := range []int{many, few} {
			c.DB, c.Producers = b.newFile(), producers
			parts, err := b.appends(ctx, c)
			if err != nil {
				return err
			}
			r := parts[0]
			if producers == many {
				rate.add(t, float64(r.Events)/r.Seconds)
				cpu.add(t, r.CPU/float64(r.Events))
				continue
			}
			fewRate.add(t, float64(r.Events)/r.Seconds)
			written.add(t, float64(r.Written)/float64(r.Events*eventSize))
		}
		return nil
	})
}

func ring(ctx context.Context, b *bench) error {
	const (
		tenths        = 10
		early  target = "second tenth"
		mib           = 1 << 20
	)
	payload := float64(b.retain * eventSize)
	file := b.entry.metric("file", "MiB", atMost((payload*1.5+16*mib)/mib, ""), atMost(1.01, early))
	rate := b.entry.metric("appends, last tenth", "/s", atLeast(0.9, early))
	return b.inTurns(ctx, []target{lastevent}, func(t target) error {
		parts, err := b.appends(ctx, appendsConfig{
			DB: b.newFile(), Producers: 64, Batch: 64, Size: eventSize, Retain: uint64(b.retain),
			Events: int64(b.ring), Parts: tenths,
		})
		if err != nil {
			return err
		}
		for t, r := range map[target]appendsResult{early: parts[1], t: parts[tenths-1]} {
			file.add(t, float64(r.File)/mib)
			rate.add(t, float64(r.Events)/r.Seconds)
		}
		return nil
	})
}
