//go:build linux

package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

// A remote is a connection by which a browser is told what to do: numbered commands,
// each with an answer, as the DevTools protocol and WebDriver BiDi have them.
type remote struct {
	ws   *websocket.Conn
	gone chan struct{} // closed once nothing is read any more

	mu      sync.Mutex // guards next and waiting
	next    int
	waiting map[int]chan<- answer
}

type answer struct {
	ID     int
	Result json.RawMessage
	Error  json.RawMessage
	// Message is BiDi's explanation of an error.
	Message string
}

func dialRemote(ctx context.Context, url string) (*remote, error) {
	ws, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(64 << 20)
	r := &remote{ws: ws, gone: make(chan struct{}), waiting: map[int]chan<- answer{}}
	go r.read()
	return r, nil
}

func (r *remote) read() {
	defer close(r.gone)
	for {
		var a answer
		if err := wsjson.Read(context.Background(), r.ws, &a); err != nil {
			return // the browser is gone
		}
		r.mu.Lock()
		ch := r.waiting[a.ID]
		delete(r.waiting, a.ID)
		r.mu.Unlock()
		if ch != nil { // and not the news of an event
			ch <- a
		}
	}
}

// call sends a command to a session of the DevTools, unless that is empty, and decodes
// its result into result, unless that is nil.
func (r *remote) call(ctx context.Context, session, method string, params map[string]any, result any) error {
	ch := make(chan answer, 1)
	r.mu.Lock()
	r.next++
	id := r.next
	r.waiting[id] = ch
	r.mu.Unlock()
	if params == nil {
		params = map[string]any{}
	}
	command := map[string]any{"id": id, "method": method, "params": params}
	if session != "" {
		command["sessionId"] = session
	}
	// A context that ends while something is written would end the connection, which
	// others have too.
	if err := wsjson.Write(context.WithoutCancel(ctx), r.ws, command); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	select {
	case a := <-ch:
		if a.Error != nil {
			return fmt.Errorf("%s: %s %s", method, a.Error, a.Message)
		}
		if result == nil {
			return nil
		}
		return json.Unmarshal(a.Result, result)
	case <-r.gone:
		return fmt.Errorf("%s: the browser is gone", method)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, ctx.Err())
	}
}
