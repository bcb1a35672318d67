package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"lastevent/store"
)

// backupFlags are the flags of backup.
type backupFlags struct{ url string }

func backupCommand() *cobra.Command {
	var f backupFlags
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Take a backup of a running server into a file",
		Long: "Take a backup of a running server into a file, which must not exist.\n\n" +
			"The server goes on meanwhile. All that was acknowledged before is in the backup. The\n" +
			"file appears when all of it is on the disk, and has been checked as by inspect.\n\n" +
			"To restore it, put a copy in the place of the server's file, and start the server. It\n" +
			"begins a new numbering then: clients that resume get a gap, and all that is retained.\n\n" +
			"The server gives backups at its --admin-listen; without one, to callers on its own\nmachine, unless clients need tokens.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := setFromEnvironment(cmd.Flags()); err != nil {
				return err
			}
			u, err := url.Parse(f.url)
			if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
				return fmt.Errorf("--url %q is not one like http://localhost:8080", f.url)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return reported("backup", f.run(ctx, args[0], cmd.OutOrStdout()))
		},
	}
	cmd.Flags().StringVar(&f.url, "url", "http://localhost:8080", "`URL` of the server")
	return cmd
}

func (f *backupFlags) run(ctx context.Context, path string, out io.Writer) error {
	if _, err := os.Lstat(path); err == nil { // before the server does the work
		return fmt.Errorf("%s exists already, and is not overwritten", path)
	}
	res, err := f.get(ctx)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	// A body that ends before its length is an error of reading it.
	r, err := store.SaveBackup(path, res.Body)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: %s, %d streams of log %s\n", path, humanize.IBytes(uint64(r.Size)), len(r.Streams), r.Log)
	if !r.Whole() {
		writeDamage(out, r)
		return fmt.Errorf("%s is there, but damaged, as the server's file may be", path)
	}
	return nil
}

// get asks the server for a backup.
func (f *backupFlags) get(ctx context.Context) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(f.url, "/")+"/backup", nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	switch {
	case res.StatusCode != http.StatusOK:
		defer res.Body.Close()
		var problem struct{ Detail string }
		_ = json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&problem) // not all have one
		return nil, fmt.Errorf("%s: %s: %s", req.URL, res.Status, problem.Detail)
	case res.ContentLength < 0:
		defer res.Body.Close()
		return nil, errors.New(req.URL.String() + " does not say how long the backup is")
	}
	return res, nil
}
