package web

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lastevent/stream"
)

// A live serves the clients of one stream that have all there is. One goroutine waits
// for all of them and writes what comes to each, without waiting for any: a client
// that does not take all of it at once goes on in a goroutine of its own, and joins
// again when it has caught up. So an idle client costs no goroutine, and a slow one
// costs the others nothing.
type live struct {
	server *Server
	key    any // in Server.lives

	// For the live's goroutine and those that it waits for:
	clients []*client
	out     atomic.Bool     // some of the clients are to be let go
	changed <-chan struct{} // closed when there is more for one of the clients
	beat    *time.Timer     // runs until a heartbeat is due, at most

	wake     chan struct{} // holds a token while there is somebody to attend to
	attended []*client     // those who join, or may be gone; guarded by Server.liveMu
}

// join has the client served with the others of its stream that are live.
func (s *Server) join(c *client) {
	s.liveMu.Lock()
	defer s.liveMu.Unlock()
	key := c.key()
	if c.live = s.lives[key]; c.live == nil {
		c.live = &live{server: s, key: key, beat: time.NewTimer(s.config.Heartbeat), wake: make(chan struct{}, 1)}
		s.lives[key] = c.live
		go c.live.run()
	}
	c.live.attendLocked(c)
}

// key is what clients have in common that wait for the same.
func (c *client) key() any {
	if _, ok := c.source.(*stream.Cursor); ok {
		return c.stream
	}
	return c
}

// hungUp is called when the client may be gone, which a write tells.
func (c *client) hungUp() {
	if c.direct == nil {
		poke(c.wake)
		return
	}
	c.server.liveMu.Lock()
	defer c.server.liveMu.Unlock()
	c.maybeGone = true
	if c.live != nil {
		c.live.attendLocked(c)
	}
}

func (l *live) attendLocked(c *client) {
	l.attended = append(l.attended, c)
	poke(l.wake)
}

// poke leaves a token where none is.
func poke(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// run ends when the live has no clients.
func (l *live) run() {
	defer l.beat.Stop()
	for l.attend() {
		if len(l.clients) == 0 {
			continue
		}
		select {
		case <-l.changed:
			begun := time.Now()
			l.serve()
			l.letGo()
			l.rest(time.Since(begun))
		case <-l.beat.C:
			l.beatAll(time.Now())
		case <-l.wake:
		case <-l.server.cut:
			l.cut()
		}
		l.letGo()
	}
}

// attend serves those who join, and writes to those who may be gone. It reports false
// when nobody is left.
func (l *live) attend() bool {
	l.server.liveMu.Lock()
	attended := slices.DeleteFunc(l.attended, func(c *client) bool { return c.live != l })
	l.attended = nil
	for _, c := range attended {
		c.check, c.maybeGone = c.check || c.maybeGone, false
	}
	if len(attended) == 0 && len(l.clients) == 0 {
		delete(l.server.lives, l.key)
		l.server.liveMu.Unlock()
		return false
	}
	l.server.liveMu.Unlock()
	now := time.Now()
	for _, c := range attended {
		if !c.listed {
			c.listed = true
			l.clients = append(l.clients, c)
			l.serveOne(c, now)
		}
		if c.check && !c.out {
			c.check = false
			l.outUnless(c, c.tryWrite(c.idle(), now))
		}
	}
	l.letGo()
	return true
}

// serveOne writes what there is for the client, and keeps what is closed when there is
// more for one of the clients: what the first of them waits for, whom the others only
// come after.
func (l *live) serveOne(c *client, now time.Time) {
	changed := c.serveLive(now)
	l.outUnless(c, changed != nil)
	if l.changed == nil {
		l.changed = changed
	}
}

func (l *live) outUnless(c *client, served bool) {
	if !served {
		c.out = true
		l.out.Store(true)
	}
}

const (
	// clientsAWorker is from how many clients on it pays to share them.
	clientsAWorker = 128
	// clientsInARow are served before other goroutines have their turn.
	clientsInARow = 16
)

// serve writes to each client what there is for it.
func (l *live) serve() {
	l.changed = nil
	rest, now := l.clients, time.Now()
	for ; l.changed == nil && len(rest) > 0; rest = rest[1:] {
		l.serveOne(rest[0], now)
	}
	n := min(runtime.GOMAXPROCS(0), 1+len(rest)/clientsAWorker)
	var workers sync.WaitGroup
	for i := range n - 1 {
		workers.Go(func() { l.servePart(rest[i*len(rest)/n : (i+1)*len(rest)/n]) })
	}
	l.servePart(rest[(n-1)*len(rest)/n:])
	workers.Wait()
}

const (
	// minRound is from which length on a round is worth a rest.
	minRound = time.Millisecond
	// restFor is how many times as long as the round the rest is, but for maxRest.
	restFor = 4
	maxRest = 30 * time.Millisecond
)

// rest waits a while after a round if there is more already: clients of a busy stream
// cost a fifth of the CPU at most. What comes meanwhile goes out in the same writes.
func (l *live) rest(round time.Duration) {
	if round < minRound {
		return
	}
	select {
	case <-l.changed:
		time.Sleep(min(restFor*round, maxRest))
	default:
	}
}

// servePart serves clients after the one whose changed the live waits for.
func (l *live) servePart(clients []*client) {
	var now time.Time
	for i, c := range clients {
		if i%clientsInARow == 0 {
			runtime.Gosched()
			now = time.Now()
		}
		l.outUnless(c, c.serveLive(now) != nil)
	}
}

// beatAll writes to those who were idle for a heartbeat, or will soon have been.
func (l *live) beatAll(now time.Time) {
	every := l.server.config.Heartbeat
	rest, written := every, 0
	for _, c := range l.clients {
		idle := now.Sub(c.written)
		if idle >= every-every/16 {
			l.outUnless(c, c.tryWrite(c.idle(), now))
			idle = 0
			written++
		}
		rest = min(rest, every-idle)
	}
	l.beat.Reset(rest)
	l.server.metrics.heartbeats.Add(float64(written))
}

// cut gives up all clients, for them to resume elsewhere.
func (l *live) cut() {
	for _, c := range l.clients {
		c.err = errDraining
		l.outUnless(c, false)
	}
}

// letGo has those go on by themselves who are out.
func (l *live) letGo() {
	if !l.out.Swap(false) {
		return
	}
	l.clients = slices.DeleteFunc(l.clients, func(c *client) bool {
		if !c.out {
			return false
		}
		c.out, c.listed = false, false
		l.server.liveMu.Lock()
		c.live = nil
		l.server.liveMu.Unlock()
		go c.serve()
		return true
	})
	if len(l.clients) == 0 {
		l.changed = nil // whoever closes it may be gone with the last of them
	}
}
