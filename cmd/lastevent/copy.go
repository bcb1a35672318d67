package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"lastevent/store"
	"lastevent/store/jetstream"
)

// copyFlags are the flags of copy.
type copyFlags struct{ db, to string }

func copyCommand() *cobra.Command {
	var f copyFlags
	cmd := &cobra.Command{
		Use:   "copy",
		Short: "Copy a file's streams to JetStream",
		Long: `Copy all streams of a file that no server has open to NATS JetStream, for servers with
--store. Events keep their IDs and times, streams are as closed or empty as they were,
idempotency keys stay in use, and the log keeps its name: clients resume where they were,
without a gap. The file is not changed.

The one JetStream stream that gets all of them is created where it is missing, and must
hold nothing else. A copy that was broken off goes on where it is run again, unless it
was in the middle of a stream: then it says what to remove. Start no server on either side
before it is complete.

Exit status: 0 all is copied, 1 not all is, 2 the command line is wrong. --db and --to can
be given as LASTEVENT_DB and LASTEVENT_TO.`,
		Example: `  lastevent copy --db lastevent.db --to nats://host1:4222,nats://host2:4222
  lastevent copy --db lastevent.db --to 'nats://localhost:4222/shop?replicas=1'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := setFromEnvironment(cmd.Flags()); err != nil {
				return err
			}
			if err := f.validate(); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return reported("copy", f.run(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr()))
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.db, "db", "lastevent.db", "`file` that holds the events")
	flags.StringVar(&f.to, "to", "", "`URL` of the NATS JetStream that gets them, as for --store of serve: nats://HOST:4222,nats://HOST:4222/NAME?replicas=3")
	return cmd
}

func (f *copyFlags) validate() error {
	if f.db == "" {
		return errors.New("--db must name a file")
	}
	if f.to == "" {
		return errors.New("--to must name a JetStream, as in nats://host:4222")
	}
	if err := jetstream.CheckURL(f.to); err != nil {
		return fmt.Errorf("--to: %w", err)
	}
	return nil
}

func (f *copyFlags) run(ctx context.Context, out, progress io.Writer) (err error) {
	if err := checkWhole(f.db); err != nil { // before anything is created
		return err
	}
	from, err := store.Open(f.db, store.Options{ReadOnly: true})
	if err != nil {
		return withStop(err)
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	streams, err := from.Streams(ctx)
	if err != nil {
		return err
	}
	to, err := openJetStream(ctx, "--to", f.to, jetstream.Options{
		LogID:   from.ID(),
		Waiting: func(err error) { fmt.Fprintln(progress, "lastevent: copy: waiting for JetStream:", err) },
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	c := &copying{from: from, to: to, progress: progress, streams: len(streams), told: time.Now()}
	there, err := c.alreadyThere(ctx, streams)
	if err != nil {
		return err
	}
	for _, s := range streams {
		if !there[s.Name] {
			err = c.copy(ctx, s)
		}
		if err != nil {
			return fmt.Errorf("%d of %d streams are copied: %w", c.done, c.streams, err)
		}
		c.done++
	}
	fmt.Fprintf(out, "%s: %d streams of log %s are in the JetStream stream %s at %s; %d events, %s, were copied now\n",
		f.db, c.done, from.ID(), to.Name(), to.Servers(), c.events, humanize.IBytes(c.bytes))
	return nil
}

// checkWhole refuses a file of which something is damaged: JetStream has no place for
// numbers without events.
func checkWhole(path string) error {
	r, err := store.Inspect(path)
	switch {
	case err != nil:
		return withStop(err)
	case !r.Backup.IsZero():
		return fmt.Errorf("%s is a backup, whose clients may have got more since: copy the server's own file, or serve the backup once, which makes a log of its own of it", path)
	case !r.Whole():
		return fmt.Errorf("%s is damaged, as lastevent inspect tells; a server can delete the streams that are, so that the rest can be copied", path)
	}
	return nil
}

// withStop adds to an error what can be done.
func withStop(err error) error {
	if errors.Is(err, store.ErrLocked) {
		return fmt.Errorf("%w; stop the server before its file is copied", err)
	}
	return err
}

// A copying is the state of a copy.
type copying struct {
	from          *store.DB
	to            *jetstream.DB
	progress      io.Writer
	streams, done int
	events, bytes uint64 // copied now
	told          time.Time
}

// alreadyThere returns which of the streams an earlier run has copied. It refuses what
// is anything else.
func (c *copying) alreadyThere(ctx context.Context, streams []store.Stream) (map[string]bool, error) {
	if c.to.ID() != c.from.ID() {
		return nil, c.refuse("is log %s, and the file log %s", c.to.ID(), c.from.ID())
	}
	found, err := c.to.Streams(ctx)
	if err != nil {
		return nil, err
	}
	ours := make(map[string]store.Bounds, len(streams))
	for _, s := range streams {
		ours[s.Name] = s.Bounds
	}
	there := make(map[string]bool, len(found))
	for _, s := range found {
		b, ok := ours[s.Name]
		switch {
		case !ok:
			return nil, c.refuse("holds %q, which the file does not", s.Name)
		case s.Bounds != b:
			return nil, c.refuse("has events %d to %d of %q, and the file %d to %d: some were published since it was copied, and nothing is to be done, or not all were copied", s.First, s.Last, s.Name, b.First, b.Last)
		}
		there[s.Name] = true
	}
	return there, nil
}

// refuse says what is wrong with what there is, and what to do about it.
func (c *copying) refuse(format string, args ...any) error {
	name := c.to.Name()
	return fmt.Errorf("the JetStream stream %s %s; name another in --to (nats://host:4222/NAME), or, only if no server has served it, remove it with `nats stream rm %s`, and copy again",
		name, fmt.Sprintf(format, args...), name)
}

func (c *copying) copy(ctx context.Context, s store.Stream) error {
	l := c.from.Log(s.Name)
	keys, err := l.UsedKeys(ctx)
	if err != nil {
		return err
	}
	return c.to.Import(ctx, s.Name, s.Bounds, keys, c.read(ctx, l, s.Bounds))
}

// read yields the log's events. It reads on behind a page that cannot be read, and so
// comes to know of it.
func (c *copying) read(ctx context.Context, l *store.Log, b store.Bounds) iter.Seq2[store.Event, error] {
	return func(yield func(store.Event, error) bool) {
		for after, more := b.First-1, true; more && after < b.Last; {
			_, err := l.Read(ctx, after, func(e store.Event) bool {
				after = e.Seq
				c.count(e)
				e.Data = bytes.Clone(e.Data)
				more = yield(e, nil)
				return more
			})
			if more && err != nil {
				yield(store.Event{}, err)
				return
			}
		}
	}
}

// count counts an event, and tells now and then how far the copy has come.
func (c *copying) count(e store.Event) {
	c.events++
	c.bytes += uint64(len(e.Type) + len(e.Data))
	if now := time.Now(); now.Sub(c.told) >= 2*time.Second {
		c.told = now
		fmt.Fprintf(c.progress, "lastevent: copy: %d of %d streams, %s events\n", c.done, c.streams, humanize.Comma(int64(c.events)))
	}
}
