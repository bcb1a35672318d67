package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"lastevent/store/jetstream"
)

// Where there is no JetStream, somebody is told so in time, and who it was looked for by.
func TestNoJetStream(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	waiting := 0
	_, err := openJetStream(ctx, "--to", "nats://user:secret@127.0.0.1:1/x", jetstream.Options{Waiting: func(error) { waiting++ }})
	if err == nil || !strings.HasPrefix(err.Error(), "--to: in 30s: ") || !strings.Contains(err.Error(), "127.0.0.1:1") || strings.Contains(err.Error(), "secret") {
		t.Errorf("the error is %v", err)
	}
	if waiting != 1 {
		t.Errorf("told %d times", waiting)
	}
}
