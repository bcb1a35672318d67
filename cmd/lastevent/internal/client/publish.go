package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

const (
	// tryBase is the base of the pauses between tries to publish.
	tryBase = 200 * time.Millisecond
	// tryTimeout and tryRate bound one try: a minute, and a second more for as many bytes.
	tryTimeout = time.Minute
	tryRate    = 64 << 10
)

// A Batch is what is published by one request.
type Batch struct {
	Key   string // Idempotency-Key; the same key is the same batch
	Type  string // of events that name none; empty: "message"
	Lines bool   // the body is lines of JSON, an event each; else the data of one event
	Body  []byte
	Close bool // closes the stream for good
}

// A Receipt says that a batch is durable.
type Receipt struct {
	ID    uint64 `json:"id"` // of the last event
	Count uint64 `json:"count"`
}

// A Publisher publishes to a stream.
type Publisher struct {
	Server *Server
	Stream string
	// Waiting is called where a try has failed and another will be made. The failures
	// are those in a row.
	Waiting func(err error, failures int)

	stored bool // something was
}

// Publish tries until the batch is durable, which takes as long as the server is down
// or overloaded, or until the server refuses it, which is an [*Error]. When the context
// ends, it is unknown whether the batch is stored; another Publish with the key tells.
func (p *Publisher) Publish(ctx context.Context, b Batch) (Receipt, error) {
	for failures := 1; ; failures++ {
		r, err := p.try(ctx, b)
		switch {
		case err == nil:
			p.stored = true
			return r, nil
		case ctx.Err() != nil:
			return r, context.Cause(ctx)
		case !temporary(err) && !p.fullForNow(err):
			return r, err
		}
		p.Waiting(err, failures)
		if err := Pause(ctx, delay(tryBase, failures, err)); err != nil {
			return r, err
		}
	}
}

// fullForNow reports whether there was room before: then it is not the number of
// streams that is at its limit, but the disk that is full, and somebody will see to it.
func (p *Publisher) fullForNow(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status == http.StatusInsufficientStorage && p.stored
}

func (p *Publisher) try(ctx context.Context, b Batch) (r Receipt, err error) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout+time.Duration(len(b.Body)/tryRate)*time.Second)
	defer cancel()
	q := url.Values{}
	if b.Type != "" {
		q.Set("event", b.Type)
	}
	if b.Close {
		q.Set("close", "true")
	}
	contentType := "application/octet-stream"
	if b.Lines {
		contentType = "application/x-ndjson"
	}
	res, err := p.Server.Do(ctx, "POST", "/sse/"+p.Stream, q, b.Body, "Content-Type", contentType, "Idempotency-Key", b.Key)
	if err != nil {
		return r, err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&r); err != nil && res.StatusCode == http.StatusCreated {
		return r, fmt.Errorf("reading the answer: %w", err) // cut; the key tells
	}
	if res.StatusCode != http.StatusCreated {
		return r, &Error{Status: res.StatusCode, Detail: "this is not how lastevent answers; is the URL right?"}
	}
	return r, nil
}
