package web_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"lastevent/store"
	"lastevent/stream"
	"lastevent/web"
)

// A lineLog keeps what is logged.
type lineLog struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *lineLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// lines are the fields of each line.
func (l *lineLog) lines(t *testing.T) (lines []map[string]any) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		delete(fields, "addr") // another one each time
		lines = append(lines, fields)
	}
	return lines
}

func (l *lineLog) to(c *web.Config) { c.Log = zerolog.New(l) }

// The lines of a client's way name the stream, and say how it was over, and where.
func TestLogOfClients(t *testing.T) {
	log := &lineLog{}
	inBubble(t, setup{config: log.to}, func(t *testing.T, s *host) {
		s.publish(t, "a/b", "1", "2")
		ending := s.subscribe(t, "/sse/a/b?from=earliest&limit=2&token=secret")
		for range 3 {
			ending.next(t)
		}
		if m, err := ending.Next(); err != io.EOF {
			t.Errorf("%+v, %v", m, err)
		}
		synctest.Wait()
		drained := s.subscribe(t, "/sse/a/b", "Last-Event-ID: 2", "Authorization: Bearer secret")
		drained.position(t)
		synctest.Wait()
		if err := s.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
	})
	want := []map[string]any{
		{"level": "debug", "stream": "a/b", "resumed": false, "message": "subscribed"},
		{"level": "debug", "stream": "a/b", "delivered": 2.0, "lag": 0.0, "message": "ended"},
		{"level": "debug", "stream": "a/b", "resumed": true, "message": "subscribed"},
		{"level": "debug", "stream": "a/b", "delivered": 0.0, "lag": 0.0, "reason": "draining", "error": "the server is stopping", "message": "cut"},
	}
	if diff := cmp.Diff(want, log.lines(t)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Failures name the request, without its query. There are not as many lines as requests.
func TestLogOfFailures(t *testing.T) {
	log := &lineLog{}
	info := func(c *web.Config) { c.Log = zerolog.New(log).Level(zerolog.InfoLevel) }
	inBubble(t, setup{config: info, log: func(l stream.Log) stream.Log { return failingLog{l} }}, func(t *testing.T, s *host) {
		s.publish(t, "x", "1")
		for range 100 {
			s.readUntilCut(t, "/sse/x?follow=false&token=secret", "Authorization: Bearer secret")
		}
		time.Sleep(2 * time.Second)
		if err := s.db.Close(); err != nil {
			t.Error(err)
		}
		s.do(t, "POST", "/sse/x?event=secret", "secret")
	})
	var want []map[string]any
	for range 10 {
		want = append(want, map[string]any{"level": "error", "path": "/sse/x", "error": "broken", "message": "reading failed"})
	}
	want = append(want, map[string]any{"level": "error", "method": "POST", "path": "/sse/x", "error": store.ErrStopped.Error(), "message": "request failed"})
	if diff := cmp.Diff(want, log.lines(t)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if text := fmt.Sprint(log.lines(t)); strings.Contains(text, "secret") {
		t.Error("a secret is logged")
	}
}
