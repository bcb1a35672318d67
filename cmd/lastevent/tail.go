package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"lastevent/cmd/lastevent/internal/client"
)

// exitGap is the exit status where --fail-on-gap met a gap.
const exitGap = 3

// tailFlags are the flags of tail.
type tailFlags struct {
	connectFlags
	from      string
	events    []string
	limit     uint64
	noFollow  bool
	output    string
	exec      string
	state     string
	failOnGap bool
	silence   time.Duration
}

func tailCommand() *cobra.Command {
	var f tailFlags
	cmd := &cobra.Command{
		Use:   "tail STREAM",
		Short: "Follow a stream",
		Long: `Follow a stream: what comes from now on, unless --from or --state say otherwise. It
comes again after each cut and goes on where it was. A gap, events that it will never
get, is told on standard error.

--output says what is written: text, the data alone; json, a line for each event,
{"id":42,"event":"time","data":"…"}, and for each gap, {"event":"gap","data":{…}}; raw,
Server-Sent Events with position, gap and end.

--exec has a shell run a command for each event in turn instead. It gets the data on
standard input, and LASTEVENT_STREAM, LASTEVENT_ID, LASTEVENT_EVENT (the type) and
LASTEVENT_LOG in its environment. Where it fails it is run again, after a pause that
grows to 15 s, until it succeeds. A gap is told on standard error only.

--state keeps in a file how far it came, once that is written out or the command has
succeeded. Run again with it, tail goes on there, and misses nothing whatever it was
stopped by; after a kill -9 it may repeat the last events. One process at a time can
have a state. Beside the file there is one with .lock at its end.

Exit status: 0 the stream has ended, the limit is reached, or all is read with
--no-follow; 1 failure; 2 the command line is wrong; 3 a gap, with --fail-on-gap; 130 or
143 stopped by SIGINT or SIGTERM; 141 nobody reads its output any more. After one signal
a command of --exec may finish; a second ends tail at once.

--url and --token-file can be given as LASTEVENT_URL and LASTEVENT_TOKEN_FILE.`,
		Example: `  lastevent tail greetings
  lastevent tail --from earliest --no-follow --output json orders | jq .data
  lastevent tail --state orders.state --from earliest --exec ./handle-order orders
  lastevent tail --event paid --from 10m --limit 1 orders`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: f.completeStream,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cmp.Or(checkGiven(cmd.Flags(), "exec", "state"), f.validate(args[0])); err != nil {
				return err
			}
			server, err := f.server(cmd.Flags())
			if err != nil {
				return err
			}
			err = f.follow(server, args[0])
			if errors.Is(err, errGap) {
				return &exit{exitGap}
			}
			return ended(err)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	f.add(flags)
	flags.StringVar(&f.from, "from", "", "`where` to start: earliest, latest, -N (the newest N), a duration back (10m), or a time (2026-01-02T15:04:05Z); not used once --state has a position")
	flags.StringArrayVar(&f.events, "event", nil, "`type` of the events wanted; repeatable; without, all are")
	flags.Uint64Var(&f.limit, "limit", 0, "how many events to end after; 0 is no limit")
	flags.BoolVar(&f.noFollow, "no-follow", false, "read what there is, from the earliest unless --from says otherwise, and end")
	flags.StringVar(&f.output, "output", "text", "`format`: text, json or raw")
	flags.StringVar(&f.exec, "exec", "", "`command` to run for each event, instead of writing it out")
	flags.StringVar(&f.state, "state", "", "`file` that keeps how far it came")
	flags.BoolVar(&f.failOnGap, "fail-on-gap", false, "end at a gap; the state stays before it")
	flags.DurationVar(&f.silence, "silence", 45*time.Second, "after how long without even a heartbeat to connect anew; more than the server's --heartbeat")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
	return cmd
}

func (f *tailFlags) validate(stream string) error {
	switch {
	case stream == "":
		return errors.New("STREAM must not be empty")
	case !slices.Contains(outputs, f.output):
		return fmt.Errorf("--output %q is not text, json or raw", f.output)
	case f.exec != "" && f.output != "text":
		return errors.New("--exec and --output exclude each other")
	case f.silence < time.Second:
		return fmt.Errorf("--silence must be at least 1s, and is %v", f.silence)
	}
	return nil
}

// follow follows the stream until it ends, or a signal comes.
func (f *tailFlags) follow(server *client.Server, stream string) error {
	ctx, cancel := untilSignal()
	defer cancel(nil)
	follower := &client.Follower{
		Server:  server,
		Stream:  stream,
		Types:   f.events,
		From:    f.from,
		Limit:   f.limit,
		Once:    f.noFollow,
		Silence: f.silence,
		Waiting: sayCut,
	}
	var state *client.State
	if f.state != "" {
		var err error
		if state, err = client.OpenState(f.state, stream); err != nil {
			return fmt.Errorf("--state: %w", err)
		}
		defer state.Close()
		follower.Position = state.Position()
	}
	gaps := gaps{f.failOnGap}
	if f.exec != "" {
		follower.SettleEach = true
		follower.Consumer = &runner{command: f.exec, stream: stream, state: state, gaps: gaps}
	} else {
		untilUnread(cancel)
		follower.Consumer = newWriter(os.Stdout, f.output, state, gaps)
	}
	return follower.Run(ctx)
}

// sayCut tells of the second failure of those in a row. One alone is a cut, as servers
// and proxies make for many a good reason.
func sayCut(err error, failures int) {
	if failures == 2 {
		say("tail: %v; trying again", err)
	}
}
