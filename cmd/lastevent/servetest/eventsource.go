//go:build unix

package servetest

import (
	"context"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"lastevent/stream/sse"
)

// An EventSource connects again and again as the HTML standard has a browser's do:
// after each end of a response, clean or not, and each failure of the network, but
// not after a status other than 200 or another content type.
// (https://html.spec.whatwg.org/multipage/server-sent-events.html#processing-model)
type EventSource struct {
	Client *http.Client
	URL    string
	// OnMessage is called for each message, of whichever type.
	OnMessage func(sse.Message)

	// LastEventID is the header of each request, unless it is empty.
	LastEventID string
	// Connections counts the responses that it read from, CleanEnds those of them
	// that were complete.
	Connections, CleanEnds int

	retry time.Duration
}

// Run connects until it is told to stop, and returns the status that said so; or
// the context's error.
func (es *EventSource) Run(ctx context.Context) (status int, err error) {
	es.retry = time.Millisecond // until the server tells
	for {
		if status, failed := es.connect(ctx); failed {
			return status, nil
		}
		if err := pause(ctx, es.retry); err != nil {
			return 0, err
		}
	}
}

// connect makes one request and reads the response to its end. It reports whether
// the connection failed, as the standard calls it: for good.
func (es *EventSource) connect(ctx context.Context) (status int, failed bool) {
	req, err := http.NewRequestWithContext(ctx, "GET", es.URL, nil)
	if err != nil {
		return 0, true
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Cache-Control", "no-cache")
	if es.LastEventID != "" {
		req.Header.Set("Last-Event-ID", es.LastEventID)
	}
	res, err := es.Client.Do(req)
	if err != nil {
		return 0, false
	}
	defer res.Body.Close()
	typ, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if res.StatusCode != http.StatusOK || typ != "text/event-stream" {
		return res.StatusCode, true
	}
	es.Connections++
	messages := sse.NewReader(res.Body, 1<<20)
	for {
		m, err := messages.Next()
		if err == io.EOF {
			es.CleanEnds++
		}
		if err != nil {
			return 0, false
		}
		es.LastEventID = m.ID
		if m.Retry > 0 {
			es.retry = m.Retry
		}
		es.OnMessage(m)
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A Page reads one stream or several as a page in a browser does.
type Page struct {
	EventSource
	Got  map[int][]string // the IDs and data of the events, by their stream's index
	Ends int
}

// OpenPage returns a page that reads the target from addr.
func OpenPage(client *http.Client, addr, target string) *Page {
	p := &Page{Got: map[int][]string{}}
	p.Client, p.URL, p.OnMessage = client, "http://"+addr+target, p.take
	return p
}

func (p *Page) take(m sse.Message) {
	switch m.Type {
	case "position":
	case "end":
		p.Ends++
	default:
		ids, index, _ := strings.Cut(m.ID, "~")
		i, _ := strconv.Atoi(index) // 0 where the stream is the only one
		p.Got[i] = append(p.Got[i], strings.Split(ids, ".")[i]+" "+m.Data)
	}
}
