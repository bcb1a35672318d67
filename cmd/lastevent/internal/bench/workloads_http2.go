//go:build linux

package bench

import (
	"context"
	"encoding/json"
	"path/filepath"

	"lastevent/cmd/lastevent/internal/selfsigned"
)

// A pair is the files of a certificate and its key.
type pair struct{ Cert, Key string }

// startTLS starts a target that speaks HTTP/2 over TLS.
func (b *bench) startTLS(ctx context.Context, t target, p pair, flags ...string) (s *server, err error) {
	if t == lastevent {
		s, err = b.serve(ctx, b.newFile(), append(flags, "--tls-cert", p.Cert, "--tls-key", p.Key)...)
	} else {
		config, _ := json.Marshal(p) // two strings
		s, err = b.listen(ctx, b.command(ctx, "bench", "play", string(t), string(config)))
	}
	if err == nil {
		s.tls = true
	}
	return s, err
}

// http2 measures fan-out, replay and idle connections as browsers have them in earnest.
func http2(ctx context.Context, b *bench) error {
	if b.remote != nil {
		b.entry.note("not measured on a remote server")
		return nil
	}
	p := pair{filepath.Join(b.dir, "cert.pem"), filepath.Join(b.dir, "key.pem")}
	if err := selfsigned.Write(p.Cert, p.Key); err != nil {
		return err
	}
	delivery := b.entry.metric("CPU a delivery, 20 events/s", "µs")
	p99 := b.entry.metric("latency p99", "ms")
	replayed := b.entry.metric("CPU an event of a replay", "µs")
	rate := b.entry.metric("events of a replay", "/s")
	idle := b.entry.metric("RSS an idle connection", "KiB")
	return b.inTurns(ctx, []target{lastevent, classic}, func(t target) error {
		s, err := b.startTLS(ctx, t, p, "--retain-events", "0")
		if err != nil {
			return err
		}
		defer s.stop()
		before := s.memory("VmRSS")
		f := fan{b.clients, load{streams: 1, size: eventSize, publishers: 4, events: b.isolated, rate: 20}}
		live, err := b.fanOutOn(ctx, s, f, func() error {
			rss, err := settled(ctx, func() (float64, error) { return s.memory("VmRSS"), nil })
			idle.add(t, (rss-before)/float64(f.clients))
			return err
		})
		if err != nil {
			return err
		}
		delivery.add(t, live.cpu)
		p99.add(t, live.p99)
		h := history{s, b.newPrefix(), b.history / 5}
		if err := fill(ctx, s, h.prefix, h.events, eventSize); err != nil {
			return err
		}
		r, err := h.replay(ctx, b, 1, h.events)
		if err != nil {
			return err
		}
		replayed.add(t, r.cpu)
		rate.add(t, float64(h.events)/r.seconds)
		return nil
	})
}
