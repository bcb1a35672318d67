package main

import (
	"fmt"
	stdlog "log"
	"net"
	"net/http"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/pflag"

	"lastevent/web"
)

// insideFlags are the flags of serve that are for those who run it.
type insideFlags struct {
	adminListen string
	streams     []string
	pprof       bool
}

func (f *insideFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.adminListen, "admin-listen", "",
		"`address` of its own for /metrics, /backup, /healthz, /readyz, the list of all streams at /sse, and pprof; whoever reaches it can have all events, without a token, so keep it from the public. "+
			"Without it, /metrics, /backup and pprof are at --listen, for callers on this machine")
	flags.StringSliceVar(&f.streams, "metrics-stream", nil, "`name` of a stream that has series of its own in /metrics; repeatable")
	flags.BoolVar(&f.pprof, "pprof", false, "serve Go's profiles at /debug/pprof/, beside /metrics")
}

func (f *insideFlags) validate() error {
	if f.adminListen != "" {
		if err := checkAddress(f.adminListen); err != nil {
			return fmt.Errorf("--admin-listen: %w", err)
		}
	}
	for _, name := range f.streams {
		if err := web.CheckName(name); err != nil {
			return fmt.Errorf("--metrics-stream %q: %w", name, err)
		}
	}
	return nil
}

// checkAddress checks an address to listen at.
func checkAddress(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	return err
}

func (f *insideFlags) config(metrics *web.Metrics, db engine) web.Inside {
	return web.Inside{
		Metrics: metrics,
		Stats:   db.Stats,
		Streams: f.streams,
		Pprof:   f.pprof,
		Apart:   f.adminListen != "",
	}
}

// listen listens at the admin address; nil: there is none.
func (f *insideFlags) listen() (net.Listener, error) {
	if f.adminListen == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", f.adminListen)
	if err != nil {
		return nil, fmt.Errorf("--admin-listen %s: %w", f.adminListen, err)
	}
	return l, nil
}

// serveAdmin serves on the admin address, if there is one, until stop is called, which
// cuts what is under way.
func serveAdmin(l net.Listener, admin http.Handler, log zerolog.Logger) (stop func()) {
	if l == nil {
		return func() {}
	}
	h := &http.Server{
		Handler:           admin,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          stdlog.New(logWriter{log}, "", 0),
	}
	log.Info().Str("url", "http://"+l.Addr().String()).Msg("serving those who run this server")
	if !isLocal(l.Addr()) {
		log.Warn().Str("address", l.Addr().String()).Msg("--admin-listen is not only for this machine: whoever reaches it can have all events, by /backup")
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := h.Serve(l); err != http.ErrServerClosed {
			log.Error().Err(err).Msg("the admin address is served no more")
		}
	}()
	return func() {
		_ = h.Close() // connections have nothing to report
		<-served
	}
}
