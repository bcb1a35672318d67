package web

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// A stuckWriter takes nothing. A deadline that has passed ends a write, with an error
// of its own, as in HTTP/2.
type stuckWriter struct {
	http.ResponseWriter
	late chan struct{}
}

func (w *stuckWriter) Write([]byte) (int, error) {
	<-w.late
	return 0, errors.New("stream closed")
}

func (w *stuckWriter) SetWriteDeadline(at time.Time) error {
	if !at.IsZero() && at.Before(time.Now()) {
		close(w.late)
	}
	return nil
}

// Over HTTP/2, too, a client that takes nothing is told from one that has gone.
func TestSlowOverHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &stuckWriter{httptest.NewRecorder(), make(chan struct{})}
		res := newStreamResponse(w, httptest.NewRequest("GET", "/sse/x", nil))
		begun := time.Now()
		err := res.begin([]byte("x"), begun)
		if took := time.Since(begun); !errors.Is(err, os.ErrDeadlineExceeded) || took != writeTimeout {
			t.Errorf("%v after %v", err, took)
		}
		if reason := nameOf(err, cutReasons); reason != "slow" {
			t.Errorf("the reason is %s", reason)
		}
	})
}
