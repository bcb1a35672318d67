package doctor

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/url"
	"strings"
	"sync"
	"time"

	"lastevent/stream/sse"
)

// errClean is the end of a response that looks complete.
var errClean = errors.New("the response ended")

// A listener follows the stream on one connection, and notes when what comes.
type listener struct {
	run   string
	began chan struct{} // closed once a message came
	all   chan struct{} // closed once all events came
	done  chan struct{} // closed once the response is over

	mu     sync.Mutex // guards all below
	coding string
	came   [events]time.Time
	bytes  time.Time // when the last came
	ended  time.Time
	err    error
}

// listen begins to follow the stream, and takes responses with this encoding.
func (x *examination) listen(ctx context.Context, encoding string) *listener {
	l := &listener{run: x.run, began: make(chan struct{}), all: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		err := l.follow(ctx, x, encoding)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ended, l.err = time.Now(), err
	}()
	return l
}

func (l *listener) follow(ctx context.Context, x *examination, encoding string) error {
	res, err := x.Server.Do(ctx, "GET", x.path, url.Values{}, nil, "Accept", "text/event-stream", "Accept-Encoding", encoding)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	l.mu.Lock()
	l.coding = res.Header.Get("Content-Encoding")
	l.mu.Unlock()
	var body io.Reader = readerFunc(func(p []byte) (int, error) {
		n, err := res.Body.Read(p)
		l.mu.Lock()
		defer l.mu.Unlock()
		if n > 0 {
			l.bytes = time.Now()
		}
		return n, err
	})
	if l.coding == "gzip" {
		if body, err = gzip.NewReader(body); err != nil {
			return err
		}
	}
	messages := sse.NewReader(body, 1<<20)
	for first := true; ; first = false {
		m, err := messages.Next()
		if err == io.EOF {
			return errClean
		}
		if err != nil {
			return err
		}
		if first {
			close(l.began)
		}
		l.take(m)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func (l *listener) take(m sse.Message) {
	number, own := strings.CutPrefix(m.Data, l.run+" ")
	if !own {
		return
	}
	n := int(number[0] - '0')
	l.mu.Lock()
	defer l.mu.Unlock()
	l.came[n] = time.Now()
	if n == events-1 {
		close(l.all)
	}
}

// awaitAll waits until each is closed, but not for long.
func awaitAll(each ...<-chan struct{}) {
	late := time.After(wait)
	for _, c := range each {
		select {
		case <-c:
		case <-late:
			return
		}
	}
}

func happened(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (l *listener) encoding() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.coding
}

// arrivals returns when each event came; zero: it did not.
func (l *listener) arrivals() [events]time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.came
}

// heard returns when the last byte came.
func (l *listener) heard() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes
}

// state returns when and why the response was over; nil: it is not.
func (l *listener) state() (time.Time, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended, l.err
}
