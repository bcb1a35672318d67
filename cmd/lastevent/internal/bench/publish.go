//go:build linux

package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A load is events published over HTTP, one a request.
type load struct {
	prefix     string // of the streams' paths; the i-th event is for number i modulo streams
	streams    int
	size       int // of an event's data
	publishers int // each waits for its answer before it publishes again
	// It ends after so many events, or so much time if that is 0.
	events   int
	duration time.Duration
	rate     float64 // events a second; 0: as fast as the server answers
}

// A loadResult is what publishers saw.
type loadResult struct {
	perSecond float64
	p50       float64 // µs until the answer
}

// run publishes.
func (l load) run(ctx context.Context, s *server) (loadResult, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		wg        sync.WaitGroup
		next, got atomic.Int64
		mu        sync.Mutex // guards latency
		latency   = newHistogram()
		started   = time.Now()
	)
	work := func(p *publisher) error {
		defer p.close()
		var data []byte
		for {
			i := int(next.Add(1) - 1)
			if l.rate > 0 {
				time.Sleep(time.Until(started.Add(time.Duration(float64(i) / l.rate * 1e9))))
			}
			sent := time.Now()
			if l.over(i, sent.Sub(started)) || ctx.Err() != nil {
				return nil
			}
			data = appendData(data[:0], sent, l.size)
			if err := p.post(fmt.Sprint(l.prefix, i%l.streams), "text/plain", data); err != nil {
				return err
			}
			got.Add(1)
			mu.Lock()
			record(latency, time.Since(sent))
			mu.Unlock()
		}
	}
	var publishers []*publisher
	for range l.publishers {
		p, err := newPublisher(ctx, s)
		if err != nil {
			cancel(err)
			break
		}
		publishers = append(publishers, p)
	}
	started = time.Now()
	for _, p := range publishers {
		wg.Go(func() {
			if err := work(p); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return loadResult{
		perSecond: float64(got.Load()) / time.Since(started).Seconds(),
		p50:       float64(latency.ValueAtQuantile(50)),
	}, context.Cause(ctx)
}

func (l load) over(i int, since time.Duration) bool {
	if l.events > 0 {
		return i >= l.events
	}
	return since >= l.duration
}

func record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(max(d.Microseconds(), 1)) // more than a minute is a timeout
}

// fill publishes events in large batches to stream 0 of the prefix. Their data has
// no time.
func fill(ctx context.Context, s *server, prefix string, events, size int) error {
	const batch = 5000
	p, err := newPublisher(ctx, s)
	if err != nil {
		return err
	}
	defer p.close()
	line := append(appendData([]byte(`{"data":"`), time.UnixMicro(0), size), "\"}\n"...)
	for events > 0 {
		n := min(events, batch)
		if err := p.post(prefix+"0", ndjson, bytes.Repeat(line, n)); err != nil {
			return err
		}
		events -= n
	}
	return nil
}

// requestTimeout is how long an answer may take.
const requestTimeout = time.Minute

// A publisher is a connection that publishes; net/http's client would take several
// times the CPU.
type publisher struct {
	conn  net.Conn
	in    *bufio.Reader
	host  string
	buf   []byte
	close func()
}

// newPublisher connects. The connection breaks when the context ends.
func newPublisher(ctx context.Context, s *server) (*publisher, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return nil, err
	}
	if s.tls {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	return &publisher{
		conn:  conn,
		in:    bufio.NewReader(conn),
		host:  s.host,
		close: func() { stop(); conn.Close() },
	}, nil
}

// post publishes, and returns once that is answered by 201.
func (p *publisher) post(path, contentType string, body []byte) error {
	p.buf = fmt.Appendf(p.buf[:0], "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n",
		path, p.host, contentType, len(body))
	p.buf = append(p.buf, body...)
	if err := p.conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return err
	}
	if _, err := p.conn.Write(p.buf); err != nil {
		return err
	}
	return p.answer()
}

func (p *publisher) answer() error {
	line, err := p.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 201 ")) {
		rest, _ := p.in.Peek(p.in.Buffered())
		return fmt.Errorf("publishing was answered by %q", string(line)+string(rest))
	}
	length := 0
	for {
		line, err := p.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= 2 {
			_, err = p.in.Discard(length)
			return err
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
}
