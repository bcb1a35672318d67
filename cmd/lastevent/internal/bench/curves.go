//go:build linux

package bench

import (
	"context"
	"fmt"
)

// measureCurve measures each size for each target in turn.
func (b *bench) measureCurve(ctx context.Context, x, y string, sizes []int, measure func(t target, size int) (float64, error)) error {
	b.entry.Curve = &Curve{X: x, Y: y, Points: map[target][]Point{}}
	point := &Metric{samples: map[target][]float64{}}
	defer func() { b.point = "" }()
	for _, size := range sizes {
		b.point = fmt.Sprintf(" at %d", size)
		err := b.inTurns(ctx, allTargets, func(t target) error {
			v, err := measure(t, size)
			point.add(t, v)
			return err
		})
		if err != nil {
			return fmt.Errorf("at %d: %w", size, err)
		}
		b.entry.point(float64(size), point)
	}
	return nil
}

const costADelivery = "server CPU a delivery, µs"

// costOf measures fans of different sizes.
func (b *bench) costOf(ctx context.Context, x string, sizes []int, size func(int) fan) error {
	return b.measureCurve(ctx, x, costADelivery, sizes, func(t target, n int) (float64, error) {
		r, err := b.fanOut(ctx, t, size(n))
		return r.cpu, err
	})
}

// during returns the load at the rate for as long as a point takes.
func (b *bench) during(rate float64, size int) load {
	events := max(int(rate*b.curve.Seconds()), 2)
	return load{streams: 1, size: size, publishers: 4, events: events, rate: rate}
}

func curveClients(ctx context.Context, b *bench) error {
	return b.costOf(ctx, "clients", b.manyClients, func(n int) fan {
		return fan{n, b.during(min(200, max(20_000/float64(n), 3)), eventSize)}
	})
}

func curvePayload(ctx context.Context, b *bench) error {
	return b.costOf(ctx, "bytes of an event", b.payloads, func(n int) fan {
		return fan{min(100, b.clients), b.during(50, n)}
	})
}

// curveStreams publishes to each stream in turn, several times where there are few.
func curveStreams(ctx context.Context, b *bench) error {
	most := b.manyStreams[len(b.manyStreams)-1]
	return b.costOf(ctx, "streams", b.manyStreams, func(n int) fan {
		return fan{n, load{streams: n, size: eventSize, publishers: 16, events: max(most/5/n, 1) * n}}
	})
}

func curveReplay(ctx context.Context, b *bench) error {
	filled, stop, err := b.startFilled(ctx, b.manyTimes[len(b.manyTimes)-1])
	defer stop()
	if err != nil {
		return err
	}
	return b.measureCurve(ctx, "missed events", "until the client has all, ms", b.manyTimes, func(t target, n int) (float64, error) {
		r, err := filled[t].replay(ctx, b, 1, n)
		return r.seconds * 1e3, err
	})
}
