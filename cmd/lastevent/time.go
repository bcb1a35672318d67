package main

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"lastevent/store"
	"lastevent/stream"
)

// timeFormat is RFC 3339 with all nanoseconds.
const timeFormat = "2006-01-02T15:04:05.000000000Z07:00"

// produceTime appends the time, again and again, until stop is called, which
// returns when no append is under way.
func produceTime(log stream.Log, every time.Duration, logger zerolog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		failing := false
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-ticker.C:
				event := store.Event{Type: "time", Data: []byte(now.Format(timeFormat))}
				_, err := log.Append(ctx, store.Batch{Events: []store.Event{event}})
				if err != nil && !failing && ctx.Err() == nil {
					logger.Error().Err(err).Str("stream", timeStream).Msg("appending the time failed")
				}
				failing = err != nil
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
