//go:build linux

package bench

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// A history is a server with events in stream 0 of a prefix.
type history struct {
	*server
	prefix string
	events int
}

// startFilled starts each target and publishes as many events to it.
func (b *bench) startFilled(ctx context.Context, events int) (filled map[target]history, stop func(), err error) {
	filled = map[target]history{}
	stop = func() {
		for _, h := range filled {
			h.stop()
		}
	}
	for _, t := range allTargets {
		b.step("publishing %d events to %s", events, t)
		s, err := b.start(ctx, t, "--retain-events", "0")
		if err != nil {
			return filled, stop, err
		}
		h := history{s, b.newPrefix(), events}
		filled[t] = h
		if err := fill(ctx, s, h.prefix, events, eventSize); err != nil {
			return filled, stop, fmt.Errorf("publishing to %s: %w", t, err)
		}
		if t == lastevent {
			if err := h.checkComplete(ctx); err != nil {
				return filled, stop, err
			}
		}
	}
	return filled, stop, nil
}

// checkComplete checks that the server, which may be a remote one, retains all.
func (h history) checkComplete(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, "HEAD", "http://"+h.host+h.prefix+"0", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if first := res.Header.Get("Stream-First-Id"); first != "1" {
		return fmt.Errorf("the server does not retain %d events: the first is %q", h.events, first)
	}
	return nil
}

// A replayResult is what it costs that clients resume.
type replayResult struct {
	cpu     float64 // µs of the server an event
	seconds float64 // until the last client had got all
	growth  float64 // MiB of the server's memory, at its peak
}

// replay has clients connect that miss the newest events.
func (h history) replay(ctx context.Context, b *bench, clients, missed int) (r replayResult, err error) {
	if err := h.resetPeak(); err != nil {
		return r, err
	}
	memory, cpu := h.memory("VmRSS"), h.cpu()
	c, err := b.connect(ctx, h.server, clientsConfig{
		Prefix: h.prefix, Streams: 1, Clients: clients, AtOnce: true,
		After: strconv.Itoa(h.events - missed), Expect: missed,
	})
	if err != nil {
		return r, err
	}
	defer c.stop()
	got, err := c.result()
	if err != nil {
		return r, err
	}
	return replayResult{
		cpu:     (h.cpu() - cpu) / float64(clients*missed),
		seconds: time.Duration(got.Finished - got.Started).Seconds(),
		growth:  (h.memory("VmHWM") - memory) / 1024,
	}, nil
}

func replay(ctx context.Context, b *bench) error {
	cpu := b.entry.metric("CPU an event", "µs", atMost(2.5, limit), atMost(1.0/20, classic))
	rate := b.entry.metric("events", "/s")
	rss := b.entry.metric("RSS", "MiB")
	filled, stop, err := b.startFilled(ctx, b.history)
	defer stop()
	if err != nil {
		return err
	}
	return b.inTurns(ctx, allTargets, func(t target) error {
		r, err := filled[t].replay(ctx, b, 1, b.history)
		if err != nil {
			return err
		}
		cpu.add(t, r.cpu)
		rate.add(t, float64(b.history)/r.seconds)
		rss.add(t, filled[t].memory("VmRSS")/1024)
		return nil
	})
}

func storm(ctx context.Context, b *bench) error {
	const alone target = "replay"
	cpu := b.entry.metric("CPU an event", "µs", atMost(1.5, alone))
	growth := b.entry.metric("peak memory growth", "MiB", atMost(64, ""))
	seconds := b.entry.metric("until all have all", "s")
	filled, stop, err := b.startFilled(ctx, b.history)
	defer stop()
	if err != nil {
		return err
	}
	return b.inTurns(ctx, allTargets, func(t target) error {
		if t == lastevent {
			r, err := filled[t].replay(ctx, b, 1, b.history)
			if err != nil {
				return err
			}
			cpu.add(alone, r.cpu)
		}
		r, err := filled[t].replay(ctx, b, b.clients, b.missed)
		if err != nil {
			return err
		}
		cpu.add(t, r.cpu)
		growth.add(t, r.growth)
		seconds.add(t, r.seconds)
		return nil
	})
}
