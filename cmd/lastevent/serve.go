package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/dustin/go-humanize"
	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"lastevent/stream"
	"lastevent/web"
)

const (
	// ballast is address space that is never touched, and lets the heap grow by as much
	// before it is collected. A small heap would be collected fifty times a second while
	// hundreds publish, and all their stacks with it: a fifth of the CPU.
	ballast = 8 << 20
	// timeStream is where the time producer appends.
	timeStream = "time"
)

// serveFlags are the flags of serve.
type serveFlags struct {
	listenFlags
	storeFlags
	tlsFlags
	limitFlags
	access       accessFlags
	inside       insideFlags
	timeEvery    time.Duration
	retainEvents uint64
	retainBytes  size
	retainAge    time.Duration
	heartbeat    time.Duration
	retry        time.Duration
	maxEvent     size
	maxBatch     size
	maxStreams   int
	allowHosts   []string
	logLevel     string
}

func serveCommand() *cobra.Command {
	f := serveFlags{maxEvent: 1 << 20, maxBatch: 16 << 20}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve streams over HTTP",
		Long: "Serve streams over HTTP.\n\nEvery flag has an environment variable: " +
			"LASTEVENT_ and its name in capitals, - as _ (LASTEVENT_RETAIN_AGE).",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.checkCommandLine(cmd); err != nil {
				return err
			}
			if err := f.validate(); err != nil {
				return err
			}
			log := newLogger(f.logLevel)
			if err := f.serve(log); err != nil {
				log.Error().Err(err).Msg("stopped")
				return &failure{err}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	f.listenFlags.add(flags)
	f.storeFlags.add(flags)
	flags.DurationVar(&f.timeEvery, "time-every", 15*time.Millisecond, "interval of the time events on stream time; 0 turns them off")
	flags.Uint64Var(&f.retainEvents, "retain-events", 100_000, "how many events a stream retains; 0 is no limit")
	flags.Var(&f.retainBytes, "retain-bytes", "how many bytes of events a stream retains (64MB); 0 is no limit")
	flags.DurationVar(&f.retainAge, "retain-age", 0, "how long a stream retains events; 0 is no limit")
	flags.DurationVar(&f.heartbeat, "heartbeat", 15*time.Second, "idle time after which a connection gets a comment line")
	flags.DurationVar(&f.retry, "retry", time.Second, "base of the reconnection time sent to clients")
	flags.Var(&f.maxEvent, "max-event-bytes", "size of the largest event, type and data")
	flags.Var(&f.maxBatch, "max-batch-bytes", "size of the largest body of a batch")
	flags.IntVar(&f.maxStreams, "max-streams", 100_000, "how many streams can be written in all; 0 is no limit")
	f.limitFlags.add(flags)
	flags.StringSliceVar(&f.allowHosts, "allow-host", nil, "`name` by which a proxy on this machine may call the server; repeatable")
	f.tlsFlags.add(flags)
	f.access.add(flags)
	f.inside.add(flags)
	flags.StringVar(&f.logLevel, "log-level", "info", "`level` of the log: debug, info, warn or error")
	return cmd
}

func (f *serveFlags) validate() error {
	if err := f.listenFlags.validate(); err != nil {
		return err
	}
	if err := f.storeFlags.validate(); err != nil {
		return err
	}
	if f.timeEvery != 0 && f.timeEvery < time.Millisecond {
		return fmt.Errorf("--time-every must be 0 or at least 1ms, and is %v", f.timeEvery)
	}
	if f.retainAge < 0 {
		return fmt.Errorf("--retain-age must not be negative, and is %v", f.retainAge)
	}
	if f.heartbeat < time.Millisecond {
		return fmt.Errorf("--heartbeat must be at least 1ms, and is %v", f.heartbeat)
	}
	if f.retry < time.Millisecond {
		return fmt.Errorf("--retry must be at least 1ms, and is %v", f.retry)
	}
	if f.maxEvent < 1 {
		return errors.New("--max-event-bytes must be at least 1")
	}
	if f.maxBatch < f.maxEvent || f.maxBatch > 1<<30 {
		return fmt.Errorf("--max-batch-bytes, which is %v, must be at least --max-event-bytes, which is %v, and at most 1GiB", &f.maxBatch, &f.maxEvent)
	}
	if f.maxStreams < 0 {
		return fmt.Errorf("--max-streams must not be negative, and is %d", f.maxStreams)
	}
	if err := f.limitFlags.validate(); err != nil {
		return err
	}
	if err := f.tlsFlags.validate(); err != nil {
		return err
	}
	if err := f.access.validate(f.listen); err != nil {
		return err
	}
	if err := f.inside.validate(); err != nil {
		return err
	}
	if _, err := zerolog.ParseLevel(f.logLevel); err != nil || f.logLevel == "" {
		return fmt.Errorf("--log-level %q is not debug, info, warn or error", f.logLevel)
	}
	return nil
}

// retained says in words what is retained.
func (f *serveFlags) retained() string {
	var limits []string
	if f.retainEvents > 0 {
		limits = append(limits, fmt.Sprintf("%d events", f.retainEvents))
	}
	if f.retainBytes > 0 {
		limits = append(limits, humanize.IBytes(uint64(f.retainBytes)))
	}
	if f.retainAge > 0 {
		limits = append(limits, f.retainAge.String())
	}
	if limits == nil {
		return "all"
	}
	return strings.Join(limits, ", ") + " a stream"
}

// newLogger logs to standard error: readable on a terminal, JSON otherwise.
func newLogger(level string) zerolog.Logger {
	zerolog.TimeFieldFormat = time.RFC3339Nano
	return newLoggerTo(os.Stderr, isatty.IsTerminal(os.Stderr.Fd()), level)
}

func newLoggerTo(out io.Writer, terminal bool, level string) zerolog.Logger {
	l, _ := zerolog.ParseLevel(level) // validated
	log := zerolog.New(out)
	if terminal {
		log = zerolog.New(zerolog.ConsoleWriter{Out: out, TimeFormat: time.TimeOnly})
	}
	return log.Level(l).With().Timestamp().Logger()
}

// serve serves until a signal, or until something fails.
func (f *serveFlags) serve(log zerolog.Logger) (err error) {
	defer runtime.KeepAlive(make([]byte, ballast))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	listeners, err := f.open()
	if err != nil {
		return err
	}
	defer closeAll(listeners)
	if err := f.access.checkListeners(listeners); err != nil {
		return err
	}
	adminListener, err := f.inside.listen()
	if err != nil {
		return err
	}
	metrics := web.NewMetrics(strings.Fields(version())[1])
	tlsConfig, err := f.tlsConfig(f.db, log)
	if err != nil {
		return err
	}
	db, err := f.openEngine(ctx, metrics, log)
	switch {
	case err != nil && ctx.Err() != nil: // while it was waited for
		log.Info().Msg("stopping")
		return nil
	case err != nil:
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	streams := stream.NewSet(db.Log, db.Streams)
	config := f.config(streams, db, log)
	config.Inside = f.inside.config(metrics, db)
	server, err := web.New(config)
	if err != nil {
		return err
	}
	f.logStart(ctx, log, listeners, db)
	if file, ok := db.(fileEngine); ok {
		logRestored(log, file)
	}
	stopAdmin := serveAdmin(adminListener, server.Admin(), log)
	defer stopAdmin() // after all else but the store
	if f.timeEvery > 0 {
		stopTime := produceTime(db.Log(timeStream), f.timeEvery, log)
		defer stopTime()
	}
	return f.serveUntil(ctx, stop, listeners, tlsConfig, server, db, log)
}

func (f *serveFlags) config(streams *stream.Set, db engine, log zerolog.Logger) web.Config {
	c := web.Config{
		Streams:       streams,
		Log:           log,
		Heartbeat:     f.heartbeat,
		Retry:         f.retry,
		MaxEventBytes: int64(f.maxEvent),
		MaxBatchBytes: int64(f.maxBatch),
		AllowHosts:    f.allowHosts,
		Access:        f.access.config(log),
		Ready:         db.Err,
	}
	db.setBackup(&c)
	f.limitFlags.config(&c)
	if f.timeEvery > 0 {
		c.Owned, c.Demo = []string{timeStream}, timeStream
	}
	return c
}

// logStart tells where the server is and what it holds.
func (f *serveFlags) logStart(ctx context.Context, log zerolog.Logger, listeners []net.Listener, db engine) {
	b, err := db.Log(timeStream).Bounds(ctx)
	if err != nil {
		log.Warn().Err(err).Str("stream", timeStream).Msg("this stream cannot be read")
	}
	if err := db.Err(); err != nil {
		log.Error().Err(err).EmbedObject(db).Msg("nothing can be appended; what is whole is served")
	}
	var urls []string
	for _, l := range listeners {
		urls = append(urls, f.at(f.scheme(), l.Addr()))
	}
	log.Info().
		Str("url", strings.Join(urls, " ")).
		EmbedObject(db).
		Str("log", db.ID()).
		Str("retained", f.retained()).
		Int("streams", db.StreamCount()).
		Str("stream", timeStream).
		Uint64("first", b.First).
		Uint64("last", b.Last).
		Msg("serving")
}

// A logWriter logs what net/http has to say. That is about single connections, unless
// it cannot accept any.
type logWriter struct{ log zerolog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	level := zerolog.DebugLevel
	if bytes.Contains(p, []byte("Accept error")) {
		level = zerolog.WarnLevel
	}
	w.log.WithLevel(level).Str("error", strings.TrimSpace(string(p))).Msg("a connection failed")
	return len(p), nil
}

// serveUntil serves until the context ends, or something fails, and then stops in order.
func (f *serveFlags) serveUntil(ctx context.Context, restoreSignals func(), listeners []net.Listener, tlsConfig *tls.Config, server *web.Server, db engine, log zerolog.Logger) error {
	conns := &connections{busy: map[net.Conn]time.Time{}}
	h := &http.Server{
		Handler:           server,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,     // of a body that brings little
		WriteTimeout:      2 * time.Minute, // with the reading
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          stdlog.New(logWriter{log}, "", 0),
		ConnState:         conns.changed,
	}
	h.Protocols = new(http.Protocols)
	h.Protocols.SetHTTP1(true)
	h.Protocols.SetUnencryptedHTTP2(true) // as proxies may speak it
	h.ConnContext = server.ConnContext
	limited := limitAll(listeners, f.connections(h, log))
	serve := h.Serve
	if tlsConfig != nil {
		h.Protocols.SetHTTP2(true)
		h.TLSConfig = tlsConfig
		serve = func(l net.Listener) error { return h.ServeTLS(l, "", "") }
	}
	var accepting sync.WaitGroup
	served := make(chan error, len(limited))
	for _, l := range limited {
		accepting.Go(func() { served <- serve(l) })
	}
	notify(log, daemon.SdNotifyReady)
	var err error
	select {
	case <-ctx.Done():
		log.Info().Msg("stopping")
	case <-db.Failed():
		err = db.Err()
	case err = <-served:
	}
	notify(log, daemon.SdNotifyStopping)
	restoreSignals() // a second signal ends the process at once
	if err := stopServing(h, limited, &accepting, conns, server.Drain); err != nil {
		log.Warn().Err(err).Msg("cut what did not finish in time")
	}
	return err
}
