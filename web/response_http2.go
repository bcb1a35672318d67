package web

import (
	"context"
	"net/http"
	"os"
	"sync"
	"time"
)

// A streamResponse is a response on one of the streams of a connection that
// net/http keeps, as HTTP/2 has them. It ends with END_STREAM when its handler
// returns, and is cut by RST_STREAM when that panics with http.ErrAbortHandler.
type streamResponse struct {
	w       http.ResponseWriter
	control *http.ResponseController
	ctx     context.Context // ends when the client is gone
	timeout *time.Timer     // running during a write

	mu   sync.Mutex // guards over
	over bool       // ended or cut: w may be no longer there
}

func newStreamResponse(w http.ResponseWriter, r *http.Request) *streamResponse {
	res := &streamResponse{w: w, control: http.NewResponseController(w), ctx: r.Context()}
	res.timeout = time.AfterFunc(writeTimeout, res.cut)
	res.timeout.Stop()
	return res
}

func (res *streamResponse) begin(p []byte, now time.Time) error {
	// The server's own timeout is for whole responses.
	if err := res.control.SetWriteDeadline(time.Time{}); err != nil {
		return err
	}
	return res.write(p, now)
}

func (res *streamResponse) write(p []byte, _ time.Time) error {
	for len(p) > 0 {
		if err := context.Cause(res.ctx); err != nil {
			return err
		}
		n := min(len(p), maxChunk)
		res.timeout.Reset(writeTimeout)
		_, err := res.w.Write(p[:n])
		if err == nil {
			err = res.control.Flush()
		}
		late := !res.timeout.Stop()
		if err != nil && late {
			return os.ErrDeadlineExceeded
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func (res *streamResponse) watch(c hangUpper) { context.AfterFunc(res.ctx, c.hungUp) }

func (res *streamResponse) end() {
	res.mu.Lock()
	defer res.mu.Unlock()
	res.over = true
}

func (res *streamResponse) cut() {
	res.mu.Lock()
	defer res.mu.Unlock()
	if !res.over {
		// A deadline that has passed ends a write that is under way.
		_ = res.control.SetWriteDeadline(time.Unix(1, 0))
	}
	res.over = true
}
