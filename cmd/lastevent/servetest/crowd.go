//go:build unix

package servetest

import (
	"context"
	"time"
)

// Crowd is how many connections a test makes: short as a rule, and long with -tags
// long, but then without -race, which can have some 8000 goroutines.
func Crowd(short, long int) int {
	if Long && raceEnabled() {
		return min(long, 3000)
	}
	return Rounds(short, long)
}

// Patience gives the test this time instead of the usual minute, from now on.
func (s *Server) Patience(d time.Duration) {
	ctx, cancel := context.WithTimeout(s.t.Context(), d)
	s.t.Cleanup(cancel)
	s.Ctx = ctx
}
