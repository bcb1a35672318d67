package web

import (
	"runtime"
	"testing"

	"lastevent/stream"
)

// An idleSource has nothing: calling it returns what is closed when it has.
type idleSource func() <-chan struct{}

func (s idleSource) Begin() []byte                          { return nil }
func (s idleSource) BeginCut() []byte                       { return nil }
func (s idleSource) Next() ([]byte, <-chan struct{}, error) { return nil, s(), nil }
func (s idleSource) Behind() bool                           { return false }
func (s idleSource) Idle() []byte                           { return nil }
func (s idleSource) Finished() bool                         { return false }
func (s idleSource) Figures() stream.Figures                { return stream.Figures{} }
func (s idleSource) Close()                                 {}

func waitingFor(changed <-chan struct{}) *client {
	return &client{source: idleSource(func() <-chan struct{} { return changed })}
}

// An event may come while its clients are served, of whom some then wait for it and
// some for the next: the live must wait for the older, though it is not closed yet.
func TestLiveWaitsForTheOlder(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	older, newer := make(chan struct{}), make(chan struct{})
	asked := make(chan struct{})
	l := &live{server: &Server{}}
	for i := range 2 * clientsAWorker {
		l.clients = append(l.clients, &client{listed: true, source: idleSource(func() <-chan struct{} {
			if i == 0 {
				close(asked)
				return older
			}
			<-asked
			if i < clientsAWorker/2 {
				return older
			}
			return newer
		})})
	}
	l.serve()
	if l.changed != older {
		t.Error("those who wait for the older are not woken")
	}

	joining := waitingFor(newer)
	joining.live = l
	l.attended = []*client{joining}
	l.attend()
	if l.changed != older {
		t.Error("those who wait for the older are not woken after another has joined")
	}
}

// When all have left, the stream may be started anew, and nobody closes what the last
// of them waited for.
func TestLiveForgetsWhatNobodyWaitsFor(t *testing.T) {
	before, after := make(chan struct{}), make(chan struct{})
	l := &live{server: &Server{clients: map[*client]struct{}{}, metrics: NewMetrics("")}}
	last, next := waitingFor(before), waitingFor(after)
	for _, c := range []*client{last, next} {
		c.server, c.live, c.res = l.server, l, nowhere{}
		l.attended = []*client{c}
		l.attend()
		if c == last {
			c.err = errDraining
			l.outUnless(c, false)
			l.letGo()
		}
	}
	if l.changed != after {
		t.Error("whoever joins when all have left is not woken")
	}
}

// nowhere is a response of which nothing is left but that it is cut.
type nowhere struct{ response }

func (nowhere) cut() {}
