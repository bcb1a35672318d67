package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"lastevent/cmd/lastevent/internal/doctor"
)

// doctorFlags are the flags of doctor.
type doctorFlags struct {
	connectFlags
	stream string
	origin string
	idle   time.Duration
}

func doctorCommand() *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor URL",
		Short: "Find out what stands between a server and its clients",
		Long: `Find out what stands between a server and its clients. URL is that by which clients
reach the server, without /sse. doctor publishes some events there and watches how they
come back: whether something holds them back, compresses them, cuts idle connections,
drops Last-Event-ID or makes an end of a cut, and what to do about it.

The events go to a stream of their own, and are deleted at the end, unless --stream
names one that held some before; the stream stays, without events. Where the server wants
a token, it must be one that may publish to the stream and read it.

It prints a line for each check, which begins with ok, problem or skipped, and below
each problem its cures, indented.

Exit status: 0 no problem, 1 problems, 2 the command line is wrong, 130 or 143 stopped by
SIGINT or SIGTERM. --token-file can be given as LASTEVENT_TOKEN_FILE.`,
		Example: `  lastevent doctor https://events.example.com
  lastevent doctor --idle 5m --origin https://www.example.com https://events.example.com`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.url = args[0]
			return f.run(cmd)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	f.addToken(flags)
	flags.StringVar(&f.stream, "stream", "lastevent/doctor", "`stream` to publish to")
	flags.StringVar(&f.origin, "origin", "", "`origin` of pages that are to read, such as https://www.example.com")
	flags.DurationVar(&f.idle, "idle", 20*time.Second, "how long a connection without events must last")
	return cmd
}

func (f *doctorFlags) run(cmd *cobra.Command) error {
	if f.stream == "" {
		return errors.New("--stream must name a stream")
	}
	if f.idle < 0 {
		return fmt.Errorf("--idle must not be negative, and is %v", f.idle)
	}
	server, err := f.server(cmd.Flags())
	if err != nil {
		return err
	}
	ctx, cancel := untilSignal()
	defer cancel(nil)
	healthy, err := doctor.Run(ctx, doctor.Config{
		Server: server, Stream: f.stream, Origin: f.origin, Idle: f.idle,
		Report: func(d doctor.Finding) {
			fmt.Fprintf(cmd.OutOrStdout(), "%-8s %-12s %s\n", d.Verdict, d.Check, d.Text)
			for _, cure := range d.Cures {
				fmt.Fprintf(cmd.OutOrStdout(), "%21s %s\n", "", cure)
			}
		},
	})
	if err != nil {
		return ended(err)
	}
	if !healthy {
		return &exit{exitFailed}
	}
	return nil
}
