package web

// Unwatch makes the server do without seeing hang-ups. What waits for the operating
// system would keep a bubble of synctest from ever being idle.
func Unwatch(s *Server) { s.watcher.close() }
