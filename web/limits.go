package web

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"lastevent/store"
)

// Limits bound what clients can have of a server. Of each, 0 is no limit. An address
// is one of IPv4, or a /64 of IPv6, which is what a host has to itself; where there is
// none, as with Unix sockets, it has no limit.
type Limits struct {
	// MaxClients is how many clients there can be: subscribers, and reads that end.
	MaxClients int
	// MaxClientsPerAddress is how many of them an address can have.
	MaxClientsPerAddress int
	// MaxPublishesPerSecond is how many requests that publish or delete an address can
	// make a second, and at once. A batch is one.
	MaxPublishesPerSecond int
	// MaxConnectionAge is when a subscription is cut, for the client to resume elsewhere:
	// a tenth more or less of it, so that those that came together part.
	MaxConnectionAge time.Duration
}

func (l Limits) validate() error {
	if min(l.MaxClients, l.MaxClientsPerAddress, l.MaxPublishesPerSecond) < 0 || l.MaxConnectionAge < 0 {
		return errors.New("web: no limit can be negative")
	}
	return nil
}

// Why a client is refused or cut.
var (
	errOverloaded = errors.New("there are as many clients as --max-clients allows")
	errCrowded    = errors.New("there are as many clients of this address as --max-clients-per-address allows")
	errTooFast    = errors.New("this address publishes more often than --max-publishes-per-second allows")
	errAge        = errors.New("the connection is as old as --max-connection-age allows")
)

const (
	// overloadRetry is how many times as long as usual the clients stay away that are
	// refused, at least.
	overloadRetry = 4
	// returns is how many of those that --max-clients refuses come again a second: each
	// takes a turn, so the more there are, the longer they stay away.
	returns = 500
	// maxAway is the longest that a turn makes a client stay away.
	maxAway = time.Minute
	// warnEvery is how often the log tells that a limit refuses clients.
	warnEvery = time.Minute
)

// A gate is where the limits are applied.
type gate struct {
	Limits

	mu        sync.Mutex // guards all that follows
	clients   int
	addresses map[netip.Addr]int // clients of each
	turn      time.Time          // the last that was taken
	paces     map[netip.Addr]*rate.Limiter
	manyPaces int // from how many on some are forgotten
	warned    map[error]time.Time
}

func newGate(l Limits) *gate {
	return &gate{
		Limits:    l,
		addresses: map[netip.Addr]int{},
		paces:     map[netip.Addr]*rate.Limiter{},
		warned:    map[error]time.Time{},
	}
}

// enter lets a client in, which leave is then to be called for, or says why not.
func (g *gate) enter(addr string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.MaxClients > 0 && g.clients >= g.MaxClients {
		return errOverloaded
	}
	if key, ok := g.addressOfClient(addr); ok {
		if g.addresses[key] >= g.MaxClientsPerAddress {
			return errCrowded
		}
		g.addresses[key]++
	}
	g.clients++
	return nil
}

func (g *gate) leave(addr string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.clients--
	if key, ok := g.addressOfClient(addr); ok {
		if g.addresses[key]--; g.addresses[key] == 0 {
			delete(g.addresses, key)
		}
	}
}

// addressOfClient is the address that a client counts for, if any.
func (g *gate) addressOfClient(addr string) (netip.Addr, bool) {
	if g.MaxClientsPerAddress == 0 {
		return netip.Addr{}, false
	}
	return limitedAddress(addr)
}

// limitedAddress reads an address, with a port or without, that limits are for.
func limitedAddress(addr string) (netip.Addr, bool) {
	ip, ok := parseAddress(addr)
	if ip.Is6() {
		ip = netip.PrefixFrom(ip, 64).Masked().Addr()
	}
	return ip, ok
}

// away is how long a client that was refused is to stay away.
func (g *gate) away(reason error, retry time.Duration) time.Duration {
	retry *= overloadRetry
	retry += rand.N(retry)
	if reason != errOverloaded {
		return retry
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if g.turn.Before(now) {
		g.turn = now
	}
	wait := min(g.turn.Sub(now)+time.Second/returns, maxAway)
	g.turn = now.Add(wait)
	return retry + wait
}

// mayPublish reports whether the address has not published too often in the last second.
func (g *gate) mayPublish(addr string) bool {
	key, ok := limitedAddress(addr)
	if !ok {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	pace := g.paces[key]
	if pace == nil {
		if len(g.paces) >= g.manyPaces {
			g.forgetPaces()
		}
		pace = rate.NewLimiter(rate.Limit(g.MaxPublishesPerSecond), g.MaxPublishesPerSecond)
		g.paces[key] = pace
	}
	return pace.Allow()
}

// forgetPaces forgets those that are as good as new.
func (g *gate) forgetPaces() {
	for key, pace := range g.paces {
		if pace.Tokens() >= float64(pace.Burst()) {
			delete(g.paces, key)
		}
	}
	g.manyPaces = max(1024, 2*len(g.paces))
}

// refuses warns that a limit refuses clients, now and then.
func (s *Server) refuses(reason error, addr string) {
	g, now := s.gate, time.Now()
	g.mu.Lock()
	last, ok := g.warned[reason]
	warn := !ok || now.Sub(last) >= warnEvery
	if warn {
		g.warned[reason] = now
	}
	g.mu.Unlock()
	if warn {
		s.config.Log.Warn().Err(reason).Str("addr", addr).Msg("a limit refuses clients; it is said once a minute at most")
	}
}

// tooMany answers a request that a limit refuses, and of which nothing was done.
func (s *Server) tooMany(w http.ResponseWriter, r *http.Request, reason error, again time.Duration) {
	s.refuses(reason, r.RemoteAddr)
	s.config.Log.Debug().Err(reason).Str("addr", r.RemoteAddr).Msg("refused")
	w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(again.Seconds()))))
	problem(w, http.StatusTooManyRequests, reason.Error()+"; nothing was done, try again later")
}

// paced limits how often an address can do what the handler does.
func (s *Server) paced(h http.HandlerFunc) http.HandlerFunc {
	if s.gate.MaxPublishesPerSecond == 0 {
		return h
	}
	return func(w http.ResponseWriter, r *http.Request) {
		if !s.gate.mayPublish(r.RemoteAddr) {
			s.tooMany(w, r, errTooFast, time.Second)
			return
		}
		h(w, r)
	}
}

// admit lets a client in that is not started yet, or says why it is to be cut right
// after its beginning. It returns the reconnection time for it.
func (s *Server) admit(c *client) (retry time.Duration, refused error) {
	retry = s.config.Retry
	if s.isDraining() {
		refused = errDraining
	} else if c.source == (lost{}) {
		refused = store.ErrUnavailable
	} else if refused = s.gate.enter(c.addr); refused != nil {
		s.refuses(refused, c.addr)
	}
	if refused != nil {
		return s.gate.away(refused, retry), refused
	}
	c.entered = true
	// Clients that are cut together must not return together.
	return retry + rand.N(retry), nil
}

// limitAge has a client cut when its connection is old. A connection of HTTP/2 that is
// itself old takes no more requests, so that the client resumes on another.
func (s *Server) limitAge(c *client, w http.ResponseWriter, r *http.Request) {
	age := s.gate.MaxConnectionAge
	if age == 0 {
		return
	}
	now := time.Now()
	c.cutAt(now.Add(age-age/10+rand.N(age/5+1)), errAge)
	if begun, ok := r.Context().Value(connectionBegun{}).(time.Time); ok && r.ProtoMajor > 1 && now.Sub(begun) >= age/2 {
		w.Header().Set("Connection", "close") // which sends GOAWAY
	}
}

type connectionBegun struct{}

// ConnContext is for http.Server, for it to tell the age of connections of HTTP/2.
func (s *Server) ConnContext(ctx context.Context, _ net.Conn) context.Context {
	if s.gate.MaxConnectionAge == 0 {
		return ctx
	}
	return context.WithValue(ctx, connectionBegun{}, time.Now())
}
