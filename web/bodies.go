package web

import (
	"io"
	"net/http"
	"sync/atomic"
)

const (
	// smallBody is what bodies can have without being counted: each is bounded as its
	// connection is.
	smallBody = 4 << 10
	// batchesAtOnce is how many of the largest batches can be on their way at once.
	batchesAtOnce = 8
)

// errBusy refuses a body that the server has no memory for now.
var errBusy = &refusal{http.StatusTooManyRequests, "too much is being published at once; nothing was stored, try again later"}

// counted bounds the memory that bodies take that are on their way. They are counted as
// they come, so that it takes more than to announce a body to keep others out.
func (s *Server) counted(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength >= 0 && r.ContentLength <= smallBody {
			h(w, r)
			return
		}
		b := &countedBody{ReadCloser: r.Body, all: &s.bodies, most: batchesAtOnce * s.config.MaxBatchBytes}
		defer b.forget()
		counted := r.WithContext(r.Context()) // net/http looks at the body of its own request
		counted.Body = b
		h(w, counted)
		if b.refused {
			s.refuses(errBusy, r.RemoteAddr)
		}
	}
}

// A countedBody is a body whose bytes count among those of all.
type countedBody struct {
	io.ReadCloser
	all     *atomic.Int64
	most    int64
	bytes   int64
	refused bool
}

func (b *countedBody) Read(p []byte) (int, error) {
	if b.refused {
		return 0, errBusy
	}
	n, err := b.ReadCloser.Read(p)
	b.bytes += int64(n)
	if b.all.Add(int64(n)) > b.most {
		b.refused = true
		return 0, errBusy
	}
	return n, err
}

func (b *countedBody) forget() { b.all.Add(-b.bytes) }
