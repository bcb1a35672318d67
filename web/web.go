// Package web serves streams over HTTP: GET subscribes to one by Server-Sent
// Events, or reads it, POST publishes to it, DELETE removes its events.
//
// A subscription is taken over from net/http, where that is possible, and costs a
// goroutine only while it has not caught up; those that are live share one a stream.
// A response that is complete ends; one that the server breaks off is cut, in a way
// that the client can see, as a client that takes a clean end for "done" would not
// come back.
package web

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"lastevent/stream"
	"lastevent/web/page"
)

// Config is what a [Server] needs to know. All but Streams can be left out.
type Config struct {
	// Streams are served.
	Streams *stream.Set
	// Log takes what clients are not told: errors of the store, and at debug level
	// a line a connection.
	Log zerolog.Logger
	// Heartbeat is how long a connection is idle before it gets a comment line. At least
	// a millisecond; 0 is 15 seconds.
	Heartbeat time.Duration
	// Retry is the base of the reconnection time that clients are given: each gets
	// between once and twice this much. At least a millisecond; 0 is a second.
	Retry time.Duration
	// MaxEventBytes is the size of the largest event that can be published, type and
	// data; 0 is 1 MiB.
	MaxEventBytes int64
	// MaxBatchBytes is the size of the largest body of a batch. At least MaxEventBytes;
	// 0 is 16 MiB, or MaxEventBytes if that is more.
	MaxBatchBytes int64
	// Owned are streams that the program itself writes: nobody can publish to them,
	// close or delete them.
	Owned []string
	// Demo is the stream that the demo page shows, and whose connections the page can
	// cut, its own only. Empty: there is no demo.
	Demo string
	// AllowHosts are names by which the server may be called on a loopback address,
	// beside localhost and loopback addresses: those of a proxy's sites.
	AllowHosts []string
	// Limits are what clients can have of the server; zero is no limit.
	Limits Limits
	// TrustedProxies tell whom requests are from that they pass on.
	TrustedProxies TrustedProxies
	// Access is who may do what. Zero: everybody may do all.
	Access Access
	// Backup returns a copy of all that is stored, complete, and its size in bytes. The
	// copy is closed when it has been read. Nil: there are no backups.
	Backup func(context.Context) (io.ReadCloser, int64, error)
	// NoBackup tells who asks for one where Backup is nil how to take it elsewhere.
	NoBackup string
	// Ready says why the store cannot append now, as [store.DB.Err] does; nil if it can.
	Ready func() error
	// Inside is for those who run the server.
	Inside Inside
}

// setDefaults fills in what was left out.
func (c *Config) setDefaults() {
	c.Heartbeat = cmp.Or(c.Heartbeat, 15*time.Second)
	c.Retry = cmp.Or(c.Retry, time.Second)
	c.MaxEventBytes = cmp.Or(c.MaxEventBytes, 1<<20)
	c.MaxBatchBytes = cmp.Or(c.MaxBatchBytes, max(16<<20, c.MaxEventBytes))
	c.Inside.Streams = slices.Compact(slices.Sorted(slices.Values(c.Inside.Streams)))
	if c.Inside.Metrics == nil {
		c.Inside.Metrics = NewMetrics("")
	}
	if c.Ready == nil {
		c.Ready = func() error { return nil }
	}
}

func (c *Config) validate() error {
	var errs []error
	check := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New("web: "+what))
		}
	}
	check(c.Streams != nil, "Streams is required")
	check(c.Heartbeat >= time.Millisecond, "Heartbeat must be at least 1ms")
	check(c.Retry >= time.Millisecond, "Retry must be at least 1ms")
	check(c.MaxEventBytes >= 1, "MaxEventBytes must be at least 1")
	check(c.MaxBatchBytes >= c.MaxEventBytes, "MaxBatchBytes must be at least MaxEventBytes")
	errs = append(errs, c.Limits.validate())
	check(c.Access.valid(), "Access.Origins must not be * beside others, nor beside a Cookie")
	return errors.Join(errs...)
}

// failuresASecond is how many lines a second the log gets of them, at most.
const failuresASecond = 10

// A Server is the HTTP handler of a set of streams.
type Server struct {
	config  Config
	handler http.Handler
	admin   http.Handler
	// ctx lasts as long as the server: subscriptions outlive their handlers.
	ctx    context.Context
	cancel context.CancelFunc
	cut    chan struct{} // closed once all subscriptions are to be cut

	metrics *Metrics
	// failures takes what may fail for each request alike, and so leaves most of it out:
	// the metrics count them all.
	failures  zerolog.Logger
	gate      *gate
	bodies    atomic.Int64 // bytes of those that are on their way
	watcher   *watcher
	started   time.Time
	backingUp atomic.Bool

	mu       sync.Mutex // guards clients, and draining, cuts and given together with them
	clients  map[*client]struct{}
	given    clientFigures // to those that are not in clients
	draining bool
	cuts     map[string]time.Time // of the demo: by secret, until when
	gone     sync.WaitGroup       // the clients; added to under mu, before draining

	liveMu sync.Mutex    // guards lives, and what says so of each and of its clients
	lives  map[any]*live // by client.key
}

// New returns a server, or all that is wrong with the config.
func New(c Config) (*Server, error) {
	c.setDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	s := &Server{
		config:   c,
		metrics:  c.Inside.Metrics,
		failures: c.Log.Sample(&zerolog.BurstSampler{Burst: failuresASecond, Period: time.Second}),
		cut:      make(chan struct{}),
		gate:     newGate(c.Limits),
		started:  time.Now(),
		clients:  map[*client]struct{}{},
		cuts:     map[string]time.Time{},
		lives:    map[any]*live{},
	}
	var err error
	if s.handler, err = s.guard(c.Access.Origins, s.routes()); err != nil {
		return nil, err
	}
	if s.admin, err = s.guard(nil, s.allAdminRoutes()); err != nil {
		return nil, err
	}
	if err := s.metrics.registry.Register(scrape{s}); err != nil {
		return nil, fmt.Errorf("web: the metrics are another server's: %w", err)
	}
	if s.watcher, err = newWatcher(); err != nil {
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.handler = c.TrustedProxies.handler(s.count(s.handler))
	return s, nil
}

// ServeHTTP serves one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	files := methods{"GET": page.Handler().ServeHTTP}
	for _, pattern := range page.Patterns() {
		mux.Handle(pattern, files)
	}
	if s.config.Demo != "" {
		mux.Handle("/demo", methods{"GET": s.demo})
		mux.Handle("/demo/sse", methods{"GET": s.demoStream})
		mux.Handle("/demo/cut", methods{"POST": s.demoCut})
	}
	mux.Handle("/sse", methods{"GET": s.streams})
	if !s.config.Inside.Apart {
		for pattern, m := range s.adminRoutes() {
			mux.Handle(pattern, s.onlyLocal(m))
		}
	}
	mux.Handle("/healthz", methods{"GET": s.healthz})
	mux.Handle("/readyz", methods{"GET": s.readyz})
	mux.HandleFunc("/", notFound)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Stream names are judged as they were sent; the mux would clean the path.
		if name, ok := strings.CutPrefix(r.URL.EscapedPath(), "/sse/"); ok {
			s.stream(name).ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// stream returns the handler of one stream.
func (s *Server) stream(name string) http.Handler {
	if err := checkName(name); err != nil {
		return problemHandler(http.StatusBadRequest, err)
	}
	return methods{
		"GET":    s.allow(subscribing, s.get, name),
		"POST":   s.paced(s.counted(s.allow(publishing, s.post, name))),
		"DELETE": s.paced(s.allow(publishing, s.delete, name)),
	}
}

// methods are the handlers of one resource. HEAD is served as GET; a method that
// is not there is refused.
type methods map[string]http.HandlerFunc

func (m methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if h := m[method]; h != nil {
		h(w, r)
		return
	}
	var allowed []string
	for method := range m {
		allowed = append(allowed, method)
		if method == http.MethodGet {
			allowed = append(allowed, http.MethodHead)
		}
	}
	slices.Sort(allowed)
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	problem(w, http.StatusMethodNotAllowed, fmt.Sprintf("%s is not possible here; allowed: %s", r.Method, strings.Join(allowed, ", ")))
}

func notFound(w http.ResponseWriter, r *http.Request) {
	problem(w, http.StatusNotFound, "there is nothing here; streams are at /sse/{stream}")
}

// healthz answers as long as the process serves.
func (s *Server) healthz(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "ok") }

// readyz answers whether new clients should be sent here.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	if err := s.unready(); err != nil {
		problem(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	fmt.Fprintln(w, "ready")
}

func (s *Server) unready() error {
	if s.isDraining() {
		return errDraining
	}
	if err := s.config.Ready(); err != nil {
		return fmt.Errorf("the store cannot append: %w", err)
	}
	return nil
}

func (s *Server) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

// Drain makes the server unready and cuts all subscriptions, so that the clients
// resume, here or elsewhere; one that comes from now on is cut after its beginning.
// It returns when the last is gone, or with the context's error. Publishing goes on.
func (s *Server) Drain(ctx context.Context) error {
	s.mu.Lock()
	if !s.draining {
		s.draining = true
		close(s.cut)
	}
	for c := range s.clients {
		s.cutClientLocked(c, errDraining)
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.gone.Wait()
		close(done)
	}()
	select {
	case <-done:
		s.watcher.close()
		return nil
	case <-ctx.Done():
		s.cancel() // what still waits for the store waits in vain
		return ctx.Err()
	}
}
