package web

import "net/http"

// Unwatch makes the server do without seeing hang-ups. What waits for the operating
// system would keep a bubble of synctest from ever being idle.
func Unwatch(s *Server) { s.watcher.close() }

// Live is how many clients are live over a connection that can be written to without
// waiting.
func Live(s *Server) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.liveMu.Lock()
	defer s.liveMu.Unlock()
	for c := range s.clients {
		if c.live != nil {
			n++
		}
	}
	return n
}

// Clients is how many there are.
func Clients(s *Server) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.clients)
}

// Paces is of how many addresses the server remembers how often they publish.
func Paces(s *Server) int {
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	return len(s.gate.paces)
}

// Client is whom a request is from.
func (t *TrustedProxies) Client(r *http.Request) string { return t.client(r) }
