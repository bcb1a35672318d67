package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"lastevent/stream/sse"
)

const (
	// maxMessage bounds the data of an event; a server cannot be told to take more.
	maxMessage = 1 << 30
	// readSize is how much is read before what came of it is settled.
	readSize = 64 << 10
	// firstRetry is the base of the pauses until the server tells.
	firstRetry = time.Second
)

// A Position is where a client is in a stream.
type Position struct {
	ID  string `json:"id"`  // of the last event; empty before there is one
	Log string `json:"log"` // whose numbering that is
}

// A Consumer takes what a follower gets. An error of it ends the following.
type Consumer interface {
	// Take takes a message: an event, or the stream's position, gap or end.
	Take(ctx context.Context, m sse.Message) error
	// Settle makes lasting what was taken, and that p is the position after it. It is
	// called before each wait for more, and at the end.
	Settle(p Position) error
}

// A Follower reads a stream over any number of connections. Its consumer gets each
// event after its position once and in order, or is told of a gap.
type Follower struct {
	Server   *Server
	Stream   string
	Types    []string // of the events; none: all
	From     string   // where it starts without a position, as ?from=; empty: live
	Limit    uint64   // ends after so many events; 0: never
	Once     bool     // ends at the last event, as it is when a response begins
	Silence  time.Duration
	Position Position
	Consumer Consumer
	// SettleEach settles after each message, too.
	SettleEach bool
	// Waiting is called where a connection failed or was cut and another will be made.
	// The failures are those in a row.
	Waiting func(err error, failures int)

	retry    time.Duration
	failures int
	events   uint64
}

// final is an error that another connection does not mend.
type final struct{ error }

func (e final) Unwrap() error { return e.error }

var (
	errClean  = errors.New("the response ended before the stream did")
	errSilent = errors.New("nothing came, not even a heartbeat")
)

// Run follows until the stream or the limit ends, something fails for good, or the
// context ends, whose cause it then returns.
func (f *Follower) Run(ctx context.Context) error {
	f.retry = firstRetry
	for {
		err := f.connect(ctx)
		if settled := f.Consumer.Settle(f.Position); settled != nil {
			return settled
		}
		if err == nil {
			return nil
		}
		if stop, ok := errors.AsType[final](err); ok {
			return stop.error
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !temporary(err) {
			return err
		}
		f.failures++
		f.Waiting(err, f.failures)
		if err := Pause(ctx, delay(f.retry, f.failures, err)); err != nil {
			return err
		}
	}
}

// connect makes one connection, and reads it to its end. It returns nil where that is
// the end of all.
func (f *Follower) connect(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	res, err := f.Server.Do(ctx, "GET", "/sse/"+f.Stream, f.query(), nil,
		"Accept", "text/event-stream", "Cache-Control", "no-cache")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	typ, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	switch {
	case res.StatusCode == http.StatusNoContent:
		return nil // closed, and this is its end
	case res.StatusCode != http.StatusOK || typ != "text/event-stream":
		return final{fmt.Errorf("the answer is %s of type %q, and not a stream of events; is the URL right?", res.Status, typ)}
	}
	watched := &watchedBody{body: res.Body, settle: f.settle, silence: f.Silence}
	watched.timer = time.AfterFunc(f.Silence, func() { cancel(errSilent) })
	defer watched.timer.Stop()
	c := connection{Follower: f, until: res.Header.Get("Stream-Last-Id"), asked: f.Position.ID}
	err = c.read(ctx, sse.NewReader(bufio.NewReaderSize(watched, readSize), maxMessage))
	if context.Cause(ctx) == errSilent {
		err = errSilent
	}
	return err
}

func (f *Follower) settle() error {
	if err := f.Consumer.Settle(f.Position); err != nil {
		return final{err}
	}
	return nil
}

func (f *Follower) query() url.Values {
	q := url.Values{"event": f.Types}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	if f.Position.ID == "" {
		set("from", f.From)
	}
	set("lastEventId", f.Position.ID)
	set("log", f.Position.Log)
	if f.Limit > 0 {
		q.Set("limit", strconv.FormatUint(f.Limit-f.events, 10))
	}
	if f.Once {
		q.Set("follow", "false")
	}
	return q
}

// A connection is what a follower knows of one response.
type connection struct {
	*Follower
	asked string // the ID that it is to go on after
	until string // the stream's last when it began
	began bool   // had its first position
	gap   bool   // had a gap whose position is to come
	ended bool   // had the end
}

// read takes messages until the response ends, or the limit is reached.
func (c *connection) read(ctx context.Context, messages *sse.Reader) error {
	for {
		m, err := messages.Next()
		switch {
		case err == io.EOF:
			return c.end()
		case errors.Is(err, sse.ErrTooLong):
			return final{err}
		case err != nil:
			return err
		}
		if m.Retry > 0 {
			c.retry = m.Retry
		}
		first := c.Position.ID == "" // whoever crashes from here on has where to go on
		if err := c.take(ctx, m); err != nil {
			return err
		}
		if c.SettleEach || first {
			if err := c.settle(); err != nil {
				return err
			}
		}
		if c.Limit > 0 && c.events == c.Limit {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// end judges the end of a response that looks complete. Some proxies make one of a cut.
func (c *connection) end() error {
	here, _ := strconv.ParseUint(c.Position.ID, 10, 64)
	last, _ := strconv.ParseUint(c.until, 10, 64)
	if c.ended || c.Once && c.began && !c.gap && (len(c.Types) > 0 || here >= last) {
		return nil
	}
	return errClean
}

// take has the consumer take a message, and then moves on.
func (c *connection) take(ctx context.Context, m sse.Message) error {
	next := c.Position
	switch m.Type {
	case "gap":
		c.gap = true
	case "end":
		c.ended = true
	case "position":
		var p struct{ Log string }
		if err := json.Unmarshal([]byte(m.Data), &p); err != nil {
			return final{fmt.Errorf("the position %q cannot be read: %w", m.Data, err)}
		}
		if !c.began && !c.gap && c.asked != "" && m.ID != c.asked {
			return final{fmt.Errorf("the stream goes on after ID %s where %s was asked for: something on the way drops the query", m.ID, c.asked)}
		}
		next = Position{m.ID, p.Log}
		c.began, c.gap, c.failures = true, false, 0
	default:
		follows, err := c.follows(m.ID)
		if err != nil || !follows {
			return err
		}
		next.ID = m.ID
		c.events++
	}
	if err := c.Consumer.Take(ctx, m); err != nil {
		return final{err}
	}
	c.Position = next
	return nil
}

// follows reports whether the event is a new one. That it leaves one out is an error,
// after which a resume gets it.
func (c *connection) follows(id string) (bool, error) {
	n, err := strconv.ParseUint(id, 10, 64)
	if err != nil || !c.began || c.gap {
		return false, final{fmt.Errorf("an event has the ID %q, where a number after a position must be; is this lastevent?", id)}
	}
	here, _ := strconv.ParseUint(c.Position.ID, 10, 64)
	if len(c.Types) == 0 && n > here+1 {
		return false, fmt.Errorf("after ID %d came %d", here, n)
	}
	return n > here, nil
}

// A watchedBody is a response's body that may be silent for so long. Before it waits,
// what came is settled.
type watchedBody struct {
	body    io.Reader
	settle  func() error
	silence time.Duration
	timer   *time.Timer
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.timer.Stop() // a consumer may take its time
	if err := b.settle(); err != nil {
		return 0, err
	}
	b.timer.Reset(b.silence)
	return b.body.Read(p)
}
