package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"
	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"lastevent/cmd/lastevent/internal/client"
)

// publishFlags are the flags of publish.
type publishFlags struct {
	connectFlags
	event string
	file  string
	json  bool
	close bool
	key   string
}

func publishCommand() *cobra.Command {
	var f publishFlags
	cmd := &cobra.Command{
		Use:   "publish STREAM [DATA]",
		Short: "Publish events to a stream",
		Long: `Publish events to a stream: one with DATA, one with what a file holds, or one for each
line of standard input, empty lines too.

While the server is down, restarts or is overloaded, publish tries again. Each request
has an idempotency key, so that all events are published once and in order. Lines go
out as they come; those that come while a request is under way are the next.

At the end it prints the last event's ID, and how many there were:
{"id":45,"count":4}. Standard error tells what went wrong, with the line, and up to
which one all is published.

Exit status: 0 all is published, 1 something is refused or cannot be read, 2 the
command line is wrong, 130 or 143 stopped by SIGINT or SIGTERM.

--url and --token-file can be given as LASTEVENT_URL and LASTEVENT_TOKEN_FILE.`,
		Example: `  lastevent publish greetings hello
  lastevent publish --event price --key order-17 shop/prices '{"apple":3}'
  lastevent publish --file notice.html notices
  tail -f access.log | lastevent publish log/access
  lastevent publish --json --close imports/7 < events.ndjson`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: f.completeStream,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cmp.Or(checkGiven(cmd.Flags(), "key", "file"), f.validate(args)); err != nil {
				return err
			}
			server, err := f.server(cmd.Flags())
			if err != nil {
				return err
			}
			ctx, cancel := untilSignal()
			defer cancel(nil)
			p := &client.Publisher{Server: server, Stream: args[0], Waiting: sayOnce("publish")}
			receipt, err := f.publish(ctx, p, args[1:])
			if err != nil {
				return ended(err)
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(receipt)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	f.add(flags)
	flags.StringVar(&f.event, "event", "", "`type` of the events; without, it is message")
	flags.StringVar(&f.file, "file", "", "`file` whose content is the event's data")
	flags.BoolVar(&f.json, "json", false, `lines of standard input are {"event":"TYPE","data":…}, where event may be left out and data may be any JSON`)
	flags.BoolVar(&f.close, "close", false, "close the stream for good after the last event")
	flags.StringVar(&f.key, "key", "", "idempotency `key`: the same again publishes nothing twice, also in another run. Lines are then one batch: all are published, or none")
	return cmd
}

func (f *publishFlags) validate(args []string) error {
	switch {
	case args[0] == "":
		return errors.New("STREAM must not be empty")
	case strings.ContainsFunc(f.key, unicode.IsControl):
		return fmt.Errorf("--key %q must not hold control characters", f.key)
	case len(args) == 2 && f.file != "":
		return errors.New("--file and DATA exclude each other")
	case f.json && (len(args) == 2 || f.file != ""):
		return errors.New("--json is for lines of standard input, and excludes --file and DATA")
	}
	return nil
}

// publish publishes the data, where it is given, or the file, or lines.
func (f *publishFlags) publish(ctx context.Context, p *client.Publisher, data []string) (client.Receipt, error) {
	b := client.Batch{Key: cmp.Or(f.key, rand.Text()), Type: f.event, Close: f.close}
	switch {
	case len(data) == 1:
		b.Body = []byte(data[0])
	case f.file != "":
		var err error
		if b.Body, err = os.ReadFile(f.file); err != nil {
			return client.Receipt{}, fmt.Errorf("--file: %w", err)
		}
	case f.key != "":
		lines, err := client.ReadLines(os.Stdin, f.json, true).Next(ctx)
		if err == io.EOF && !f.close {
			return client.Receipt{}, nil
		}
		if err != nil && err != io.EOF {
			return client.Receipt{}, fmt.Errorf("%w; nothing is published", err)
		}
		b.Lines, b.Body = true, lines.Body
		r, err := p.Publish(ctx, b)
		if err != nil {
			err = fmt.Errorf("%w; %s", lines.Locate(err), published(0, r, lines, ctx.Err() != nil))
		}
		return r, err
	default:
		return f.publishLines(ctx, p, client.ReadLines(os.Stdin, f.json, false))
	}
	r, err := p.Publish(ctx, b)
	if ctx.Err() != nil {
		err = fmt.Errorf("%w; it is unknown whether the event is published", err)
	}
	return r, err
}

// publishLines publishes an event a line. Its error tells what is published.
func (f *publishFlags) publishLines(ctx context.Context, p *client.Publisher, lines *client.Lines) (done client.Receipt, err error) {
	run := rand.Text()
	show := newProgress()
	defer show.end()
	upTo := 0 // the last line published
	for n := 1; ; n++ {
		batch, err := lines.Next(ctx)
		closes := err == io.EOF && f.close
		if err == io.EOF && !closes {
			return done, nil
		}
		var r client.Receipt
		if err == nil || closes {
			r, err = p.Publish(ctx, client.Batch{Key: fmt.Sprintf("%s-%d", run, n), Type: f.event, Lines: true, Body: batch.Body, Close: closes})
		}
		if err != nil {
			return done, fmt.Errorf("%w; %s", batch.Locate(err), published(upTo, done, batch, ctx.Err() != nil))
		}
		done = client.Receipt{ID: r.ID, Count: done.Count + r.Count}
		if closes {
			return done, nil
		}
		upTo = batch.Last
		show.step(done)
	}
}

// published says how far it came, where it did not come to the end.
func published(upTo int, done client.Receipt, batch client.LineBatch, interrupted bool) string {
	text := "nothing is published"
	if upTo > 0 {
		text = fmt.Sprintf("all up to line %d is published, the last under ID %d", upTo, done.ID)
	}
	if interrupted && batch.Body != nil {
		text += fmt.Sprintf("; of lines %d to %d, all are or none", batch.First, batch.Last)
	}
	return text
}

// sayOnce tells of the first failure of those in a row.
func sayOnce(what string) func(error, int) {
	return func(err error, failures int) {
		if failures == 1 {
			say("%s: %v; trying again", what, err)
		}
	}
}

// progress shows on a terminal how many events are published. Who types the lines has
// no use for it.
type progress struct {
	on    bool
	began time.Time
	shown time.Time
}

func newProgress() *progress {
	on := isatty.IsTerminal(os.Stderr.Fd()) && !isatty.IsTerminal(os.Stdin.Fd())
	return &progress{on: on, began: time.Now()}
}

func (p *progress) step(done client.Receipt) {
	now := time.Now()
	if !p.on || now.Sub(p.began) < time.Second || now.Sub(p.shown) < time.Second/5 {
		return
	}
	p.shown = now
	rate := float64(done.Count) / now.Sub(p.began).Seconds()
	fmt.Fprintf(os.Stderr, "\r\x1b[K%s events, %s/s, last ID %d", humanize.Comma(int64(done.Count)), humanize.Comma(int64(rate)), done.ID)
}

func (p *progress) end() {
	if !p.shown.IsZero() {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
}
