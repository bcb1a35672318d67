package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lastevent/store"
	"lastevent/store/jetstream"
	"lastevent/stream"
	"lastevent/web"
)

// storeFlags say where the events are.
type storeFlags struct {
	db    string // the file
	store string // URL of JetStream; empty: they are in the file
}

func (f *storeFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.db, "db", "lastevent.db", "`file` that holds the events; created where it is missing")
	flags.StringVar(&f.store, "store", "", "`URL` of the NATS JetStream that holds the events instead, for any number of servers: nats://HOST:4222,nats://HOST:4222/NAME?replicas=3")
}

// checkCommandLine is for before the variables are looked at: where one of them names the
// file, as in an image, --store takes its place.
func (f *storeFlags) checkCommandLine(cmd *cobra.Command) error {
	given := cmd.Flags().Changed("db")
	if err := cmp.Or(setFromEnvironment(cmd.Flags()), checkGiven(cmd.Flags(), "db", "store")); err != nil {
		return err
	}
	if given && f.store != "" {
		return errors.New("--db and --store exclude each other: the events are in a file, or in JetStream")
	}
	return nil
}

func (f *storeFlags) validate() error {
	if f.store == "" {
		return nil
	}
	if err := jetstream.CheckURL(f.store); err != nil {
		return fmt.Errorf("--store: %w", err)
	}
	return nil
}

// An engine holds the events.
type engine interface {
	Log(name string) stream.Log
	Streams(context.Context) ([]store.Stream, error)
	StreamCount() int
	ID() string
	Stats() (store.Stats, error)
	// Err is why nothing can be appended now.
	Err() error
	// Failed is closed when the process should end. Nil: it never should.
	Failed() <-chan struct{}
	Close() error
	// A line of the log gets fields that say where the events are.
	zerolog.LogObjectMarshaler
	// setBackup says how backups are taken.
	setBackup(*web.Config)
}

// openEngine opens the one that the flags name.
func (f *serveFlags) openEngine(ctx context.Context, metrics *web.Metrics, log zerolog.Logger) (engine, error) {
	retention := store.Retention{Events: f.retainEvents, Bytes: uint64(f.retainBytes), Age: f.retainAge}
	if f.store != "" {
		db, err := openJetStream(ctx, "--store", f.store,
			jetstream.Options{
				Retention:  retention,
				MaxStreams: f.maxStreams,
				Observer:   metrics,
				Waiting:    func(err error) { log.Info().Err(err).Msg("waiting for JetStream") },
				Connection: func(err error) { logConnection(log, err) },
			})
		if err != nil {
			return nil, err
		}
		return jetstreamEngine{db}, nil
	}
	db, err := store.Open(f.db, store.Options{
		Retention:  retention,
		MaxStreams: f.maxStreams,
		Observer:   metrics,
		Damaged: func(err error) {
			log.Error().Err(err).Msg("events cannot be read; the rest goes on, and what cannot be read stays in the file")
		},
	})
	if err != nil {
		return nil, err
	}
	return fileEngine{db, f.db}, nil
}

// A fileEngine is a file of bbolt.
type fileEngine struct {
	*store.DB
	path string
}

func (e fileEngine) Log(name string) stream.Log               { return e.DB.Log(name) }
func (e fileEngine) setBackup(c *web.Config)                  { c.Backup = e.Backup }
func (e fileEngine) MarshalZerologObject(line *zerolog.Event) { line.Str("db", e.path) }

// A jetstreamEngine outlives all that may happen to JetStream: it goes on when that is
// there again.
type jetstreamEngine struct{ *jetstream.DB }

func (e jetstreamEngine) Log(name string) stream.Log { return e.DB.Log(name) }
func (e jetstreamEngine) Failed() <-chan struct{}    { return nil }

func (e jetstreamEngine) Stats() (store.Stats, error) {
	return store.Stats{Streams: e.StreamCount()}, nil
}

func (e jetstreamEngine) setBackup(c *web.Config) {
	c.NoBackup = "events are in JetStream: back them up with `nats stream backup " + e.Name() + " FOLDER`"
}

func (e jetstreamEngine) MarshalZerologObject(line *zerolog.Event) {
	line.Str("store", e.Servers()).Str("name", e.Name()).Int("replicas", e.Replicas())
}

func logConnection(log zerolog.Logger, err error) {
	if err != nil {
		log.Warn().Err(err).Msg("lost the connection to JetStream")
		return
	}
	log.Info().Msg("connected to JetStream again")
}

// jetstreamTimeout is how long JetStream is waited for at the start.
const jetstreamTimeout = 30 * time.Second

// openJetStream opens what a flag has the URL of.
func openJetStream(ctx context.Context, flag, url string, o jetstream.Options) (*jetstream.DB, error) {
	ctx, cancel := context.WithTimeout(ctx, jetstreamTimeout)
	defer cancel()
	db, err := jetstream.Open(ctx, url, o)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && err != nil {
		return nil, fmt.Errorf("%s: in %v: %w", flag, jetstreamTimeout, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return db, nil
}
