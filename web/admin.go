package web

import (
	"errors"
	"net/http"
	"net/http/pprof"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"lastevent/store"
)

// Inside is what a server shows of itself to those who run it.
type Inside struct {
	// Metrics are those that the store was opened with; nil: new ones.
	Metrics *Metrics
	// Stats are the store's, as [store.DB.Stats] returns them, without FileBytes where
	// there is no file; nil: there are none.
	Stats func() (store.Stats, error)
	// Streams have series of their own in the metrics.
	Streams []string
	// Pprof: there is what net/http/pprof serves.
	Pprof bool
	// Apart: [Server.Admin] is served by itself, and only there.
	Apart bool
}

// CheckName says what is wrong with a stream's name, in words; nil if it is one.
func CheckName(name string) error { return checkName(name) }

// adminRoutes are for those who run the server.
func (s *Server) adminRoutes() map[string]methods {
	metrics := promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{})
	routes := map[string]methods{
		"/metrics": {"GET": metrics.ServeHTTP},
	}
	switch {
	case s.config.Backup != nil:
		routes["/backup"] = methods{"GET": s.backup}
	case s.config.NoBackup != "":
		routes["/backup"] = methods{"GET": problemHandler(http.StatusNotFound, errors.New(s.config.NoBackup)).ServeHTTP}
	}
	if s.config.Inside.Pprof {
		routes["/debug/pprof/"] = methods{"GET": pprof.Index}
		routes["/debug/pprof/cmdline"] = methods{"GET": pprof.Cmdline}
		routes["/debug/pprof/profile"] = methods{"GET": pprof.Profile}
		routes["/debug/pprof/symbol"] = methods{"GET": pprof.Symbol, "POST": pprof.Symbol}
		routes["/debug/pprof/trace"] = methods{"GET": pprof.Trace}
	}
	return routes
}

// Admin returns the handler of an address that only those who run the server can reach:
// metrics, health, backups, and the list of all streams. Where [Inside.Apart] is not set,
// the server itself has the metrics and backups too, for callers on its machine, unless
// clients need tokens.
func (s *Server) Admin() http.Handler { return s.admin }

func (s *Server) allAdminRoutes() http.Handler {
	mux := http.NewServeMux()
	for pattern, m := range s.adminRoutes() {
		mux.Handle(pattern, m)
	}
	mux.Handle("/sse", methods{"GET": s.listAll})
	mux.Handle("/healthz", methods{"GET": s.healthz})
	mux.Handle("/readyz", methods{"GET": s.readyz})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		problem(w, http.StatusNotFound, "there is nothing here; this address is for /metrics, /backup, /healthz, /readyz and GET /sse")
	})
	return mux
}

// listAll answers with the list of all streams.
func (s *Server) listAll(w http.ResponseWriter, r *http.Request) {
	if err := s.list(w, r, func(string) bool { return true }); err != nil {
		s.fail(w, r, err)
	}
}

// onlyLocal refuses all but callers on this machine that call it by its own name. One
// that comes through a proxy is not from here: as a rule it calls the proxy's site, or
// the proxy says for whom it asks. Where others need a token, so would these.
func (s *Server) onlyLocal(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.config.Access.Verifier != nil || !onLoopback(r) || !isLocalHost(r.Host) || forwarded(r) {
			problem(w, http.StatusForbidden, "this is for callers on the server's machine, where clients need no tokens; --admin-listen gives it an address of its own")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// forwarded reports whether the request may have come through a proxy. HTTP/1.0 is what
// nginx speaks where it is told nothing, and then it says nothing of whom it asks for.
func forwarded(r *http.Request) bool {
	if !r.ProtoAtLeast(1, 1) {
		return true
	}
	for _, name := range []string{"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip"} {
		if r.Header.Get(name) != "" {
			return true
		}
	}
	return false
}
