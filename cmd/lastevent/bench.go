//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"lastevent/cmd/lastevent/internal/bench"
)

// benchFlags are the flags of bench.
type benchFlags struct {
	url       string
	workloads []string
	repeat    int
	quick     bool
	json      string
	plot      string
	dir       string
}

func benchCommand() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure how fast the server is on this machine",
		Long: "Measure how fast the server is on this machine, in turns with the least work that\n" +
			"moves the same bytes (limit) and with the server that most people write (classic).\n\n" +
			"Workloads: " + strings.Join(bench.Names(), ", ") + ".",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.quick && !cmd.Flags().Changed("repeat") {
				f.repeat = 1
			}
			config, err := f.config()
			if err != nil {
				return err
			}
			if err := f.run(config, cmd.OutOrStdout()); err != nil {
				fmt.Fprintf(os.Stderr, "lastevent: bench: %v\n", err)
				return &failure{err}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.url, "url", "", "`address` of a running server to measure, such as http://localhost:8080; it gets new streams. Without, one is started")
	flags.StringArrayVar(&f.workloads, "workload", nil, "`name` of a workload to run; repeatable; without, all are")
	flags.IntVar(&f.repeat, "repeat", 5, "how often each is measured")
	flags.BoolVar(&f.quick, "quick", false, "small and once, to see that it works; the figures mean nothing")
	flags.StringVar(&f.json, "json", "", "`file` to write the figures to")
	flags.StringVar(&f.plot, "plot", "", "`file` to draw the curves in, as SVG")
	flags.StringVar(&f.dir, "dir", os.TempDir(), "`folder` on the disk to measure")
	cmd.AddCommand(&cobra.Command{
		Use:    "play ROLE [CONFIG]",
		Hidden: true,
		Args:   cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := bench.Play(args[0], strings.Join(args[1:], "")); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return &failure{err}
			}
			return nil
		},
	})
	return cmd
}

// config checks the flags.
func (f *benchFlags) config() (c bench.Config, err error) {
	c = bench.Config{Workloads: f.workloads, Repeat: f.repeat, Quick: f.quick, Dir: f.dir, Step: showStep}
	if f.url != "" {
		if c.URL, err = url.Parse(f.url); err != nil || c.URL.Scheme != "http" || c.URL.Port() == "" || strings.Trim(c.URL.Path, "/") != "" {
			return c, fmt.Errorf("--url %q is not of the form http://HOST:PORT", f.url)
		}
	}
	for _, name := range f.workloads {
		if !slices.Contains(bench.Names(), name) {
			return c, fmt.Errorf("--workload %q is none of %s", name, strings.Join(bench.Names(), ", "))
		}
	}
	if f.repeat < 1 {
		return c, fmt.Errorf("--repeat must be at least 1, and is %d", f.repeat)
	}
	curve := func(name string) bool { return strings.HasPrefix(name, "curve-") }
	if f.plot != "" && len(f.workloads) > 0 && !slices.ContainsFunc(f.workloads, curve) {
		return c, errors.New("--plot needs one of the curves, and --workload selects none")
	}
	return c, nil
}

// run measures, until a signal at most, and writes what was measured.
func (f *benchFlags) run(config bench.Config, out io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	report, err := bench.Run(ctx, config)
	endSteps()
	if report == nil {
		return err
	}
	errs := []error{err, report.WriteTable(out)}
	if f.json != "" {
		errs = append(errs, writeFile(f.json, func(w io.Writer) error {
			e := json.NewEncoder(w)
			e.SetIndent("", "  ")
			return e.Encode(report)
		}))
	}
	if f.plot != "" && report.HasCurves() {
		errs = append(errs, writeFile(f.plot, report.WriteSVG))
	}
	return errors.Join(errs...)
}

func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// showStep tells what is going on: on a terminal in one line, else on a line each.
func showStep(done, total int, what string) {
	format := "[%d/%d] %s\n"
	if isatty.IsTerminal(os.Stderr.Fd()) {
		format = "\r\x1b[K[%d/%d] %s"
	}
	fmt.Fprintf(os.Stderr, format, done+1, total, what)
}

func endSteps() {
	if isatty.IsTerminal(os.Stderr.Fd()) {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
}
