//go:build unix

package servetest

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"time"
)

// A Producer publishes each event again and again until it is acknowledged, and
// now and then it hangs up before it has read the answer.
type Producer struct {
	Server *Server
	Fronts []*Server // if there are any, each try is at one of them
	Stream string
	Seen   *Ledger
	Rand   *rand.Rand

	Failed   int // tries
	Lost     int // publishes of which it left a 201 unread
	Replayed int // publishes that were stored by an earlier try
}

// Publish publishes the events, several of them as a batch, under the key. Without
// an error they are acknowledged, and in Seen. Without a key it tries once, and where
// that fails they may have been stored or not.
func (p *Producer) Publish(key string, events ...Event) error {
	path, body, typ := "/sse/"+p.Stream, Lines(events...), "application/x-ndjson"
	if len(events) == 1 {
		path, body, typ = path+"?event="+url.QueryEscape(events[0].Type), events[0].Data, "text/plain"
	}
	header := []string{"Content-Type", typ}
	if key != "" {
		header = append(header, "Idempotency-Key", key)
	}
	lost := false
	for {
		server := p.Server
		if len(p.Fronts) > 0 {
			server = p.Fronts[p.Rand.IntN(len(p.Fronts))]
		}
		if key != "" && p.Rand.IntN(4) == 0 && p.hangUp(server, path, body, header) && !lost {
			lost = true
			p.Lost++
		}
		r, err := server.Post(path, body, header...)
		switch {
		case err == nil && r.Count != uint64(len(events)):
			return broken("the receipt of %d events counts %d", len(events), r.Count)
		case err == nil:
			if r.Replayed {
				p.Replayed++
			}
			return p.Seen.Acknowledge(r.ID, events...)
		case errors.Is(err, ErrBroken):
			return err
		}
		p.Failed++
		if err := pause(p.Server.Ctx, 5*time.Millisecond); err != nil || key == "" {
			return err
		}
	}
}

// hangUp sends a request, and leaves at once or when the answer begins. It reports
// whether that was a 201. It has a connection of its own: where a request takes the one
// of a HEAD that net/http is about to answer, and is canceled, the HEAD may be, too.
func (p *Producer) hangUp(server *Server, path, body string, header []string) (acknowledged bool) {
	ctx, cancel := context.WithCancel(server.Ctx)
	defer cancel()
	if p.Rand.IntN(2) == 0 {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			WroteRequest: func(httptrace.WroteRequestInfo) { cancel() },
		})
	}
	req, err := server.Request(ctx, "POST", path, body, header...)
	if err != nil {
		return false
	}
	res, err := server.once.Do(req)
	if err != nil {
		return false
	}
	res.Body.Close()
	return res.StatusCode == http.StatusCreated
}
