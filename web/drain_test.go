package web_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lastevent/store"
	"lastevent/stream"
	"lastevent/stream/sse"
)

func TestDrain(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, s *host) {
		s.publish(t, "x", "1")
		var subs []*subscription
		for range 10 {
			sub := s.subscribe(t, "/sse/x")
			sub.position(t)
			subs = append(subs, sub)
		}
		s.send(t, "GET /sse/x")                     // takes nothing
		stalled := s.subscribe(t, "/sse/x?from=-1") // takes no event
		synctest.Wait()

		start := time.Now()
		if err := s.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("it took %v", d)
		}
		for _, sub := range append(subs, stalled) {
			var err error
			for err == nil {
				_, err = sub.Next()
			}
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("a subscription ends with %v, want a cut", err)
			}
		}
		if err := s.Drain(t.Context()); err != nil {
			t.Errorf("the second time: %v", err)
		}
	})
}

// Nor does it wait for a client that does not take the end of its response.
func TestDrainWhileEnding(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, s *host) {
		s.publish(t, "x", "1")
		sub := s.subscribe(t, "/sse/x?from=-1&limit=1")
		sub.position(t)
		sub.next(t)
		synctest.Wait()
		start := time.Now()
		if err := s.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("it took %v", d)
		}
	})
}

// Whoever comes while the server begins to drain is cut, too, and never refused.
func TestDrainWhileClientsCome(t *testing.T) {
	s := overTCP(t, setup{})
	const clients = 40
	var wg sync.WaitGroup
	subscribed := make(chan struct{}, clients)
	for range clients {
		conn := s.dial()
		wg.Go(func() {
			defer conn.Close()
			if _, err := io.WriteString(conn, "GET /sse/x HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
				t.Error(err)
			}
			head, err := http.ReadResponse(bufio.NewReader(conn), nil)
			subscribed <- struct{}{}
			if err != nil || head.StatusCode != 200 {
				t.Errorf("%+v, %v", head, err)
				return
			}
			events := sse.NewReader(head.Body, 1000)
			if m, err := events.Next(); err != nil || m.Type != "position" {
				t.Errorf("begins with %+v, %v", m, err)
			}
			if m, err := events.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("then %+v, %v, want a cut", m, err)
			}
		})
	}
	for range clients / 4 {
		<-subscribed
	}
	if err := s.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

// A subscriber that comes while the server drains is told when to come back.
func TestDraining(t *testing.T) {
	inBubble(t, setup{retention: store.Retention{Events: 1}}, testDraining)
}

// An engine may be one that heeds the context.
func TestDrainingWithAnotherEngine(t *testing.T) {
	inBubble(t, setup{
		retention: store.Retention{Events: 1},
		log:       func(l stream.Log) stream.Log { return heedful{l} },
	}, testDraining)
}

// A heedful log does nothing for a context that has ended.
type heedful struct{ stream.Log }

func (h heedful) Bounds(ctx context.Context) (store.Bounds, error) {
	if err := ctx.Err(); err != nil {
		return store.Bounds{}, err
	}
	return h.Log.Bounds(ctx)
}

func (h heedful) Follow(ctx context.Context, f func(store.Bounds, []store.Event)) (func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return h.Log.Follow(ctx, f)
}
