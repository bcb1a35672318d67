//go:build linux

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
)

// The classic server is what most people write: a handler of net/http that writes
// and flushes an event at a time, a channel a client, a slice for the history. A
// publish returns when each client's channel has taken the event, so that all get
// all; nothing is stored.
type classicServer struct {
	mu      sync.Mutex // guards streams
	streams map[string]*classicStream
}

type classicStream struct {
	mu      sync.Mutex // guards both
	history []classicEvent
	clients map[chan classicEvent]context.Context
}

type classicEvent struct {
	id   int
	data string
}

func serveClassic(config []byte, _ *json.Encoder) error {
	l, err := listenLocal()
	if err != nil {
		return err
	}
	s := &classicServer{streams: map[string]*classicStream{}}
	if len(config) == 0 {
		return http.Serve(l, s)
	}
	var p pair
	if err := json.Unmarshal(config, &p); err != nil {
		return err
	}
	return http.ServeTLS(l, s, p.Cert, p.Key)
}

// listenLocal listens, and says where.
func listenLocal() (net.Listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		fmt.Fprintf(os.Stderr, `{"url":"http://%s"}`+"\n", l.Addr())
	}
	return l, err
}

func (s *classicServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	stream := s.streams[r.URL.Path]
	if stream == nil {
		stream = &classicStream{clients: map[chan classicEvent]context.Context{}}
		s.streams[r.URL.Path] = stream
	}
	s.mu.Unlock()
	if r.Method == http.MethodGet {
		stream.subscribe(w, r)
		return
	}
	events, err := readEvents(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	id := stream.publish(events)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, `{"id":%d,"count":%d}`+"\n", id, len(events))
}

func (s *classicStream) publish(events []string) (last int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, data := range events {
		e := classicEvent{len(s.history) + 1, data}
		s.history = append(s.history, e)
		for events, ctx := range s.clients {
			select {
			case events <- e:
			case <-ctx.Done():
			}
		}
	}
	return len(s.history)
}

func (s *classicStream) subscribe(w http.ResponseWriter, r *http.Request) {
	events := make(chan classicEvent, 64)
	s.mu.Lock()
	missed := s.history[len(s.history):]
	if after, err := strconv.Atoi(r.Header.Get("Last-Event-ID")); err == nil {
		missed = s.history[min(after, len(s.history)):]
	}
	s.clients[events] = r.Context()
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.clients, events)
		s.mu.Unlock()
	}()
	flusher := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	fmt.Fprint(w, "retry: 1000\n\n")
	_ = flusher.Flush() // a client that is gone ends the context
	for _, e := range missed {
		fmt.Fprintf(w, "id: %d\ndata: %s\n\n", e.id, e.data)
		_ = flusher.Flush()
	}
	for {
		select {
		case e := <-events:
			fmt.Fprintf(w, "id: %d\ndata: %s\n\n", e.id, e.data)
			_ = flusher.Flush()
		case <-r.Context().Done():
			return
		}
	}
}
