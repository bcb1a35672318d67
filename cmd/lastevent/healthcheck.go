package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// healthTimeout is how long a server has to say that it serves.
const healthTimeout = 5 * time.Second

// healthFlags are the flags of healthcheck: those of serve that say how it is reached.
type healthFlags struct {
	listen, tlsCert string
	acmeHosts       []string
}

func healthcheckCommand() *cobra.Command {
	var f healthFlags
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask the server on this machine whether it serves",
		Long: "Ask the server on this machine whether it serves: its /healthz, within " + healthTimeout.String() +
			". The exit status is 0 if it does, and 1 if not.\n\nThe flags, and their environment variables, are those of serve.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := setFromEnvironment(cmd.Flags()); err != nil {
				return err
			}
			if err := f.check(); err != nil {
				fmt.Fprintf(os.Stderr, "lastevent: %s\n", err)
				return &failure{err}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.listen, "listen", "localhost:8080", "`address` that it serves at")
	flags.StringVar(&f.tlsCert, "tls-cert", "", "`file` with its certificate, which is not read: with it the server speaks TLS")
	flags.StringSliceVar(&f.acmeHosts, "acme-host", nil, "`name` for which it has a certificate by ACME, which is not checked; repeatable")
	return cmd
}

func (f *healthFlags) check() error {
	ctx, cancel := context.WithTimeout(context.Background(), healthTimeout)
	defer cancel()
	scheme, config := "http", &tls.Config{InsecureSkipVerify: true} // it is asked whether it lives, not who it is
	if f.tlsCert != "" || len(f.acmeHosts) > 0 {
		scheme = "https"
	}
	if len(f.acmeHosts) > 0 {
		config.ServerName = f.acmeHosts[0]
	}
	client := &http.Client{Transport: &http.Transport{DialContext: f.dial, TLSClientConfig: config}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://localhost/healthz", nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("--listen %s: %w", f.listen, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10)) // for the message alone
		return fmt.Errorf("--listen %s: %s: %s", f.listen, res.Status, strings.TrimSpace(string(body)))
	}
	return nil
}

// dial connects to --listen, whatever the URL. An address that is not one machine's,
// as 0.0.0.0, is this one's.
func (f *healthFlags) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if path, ok := strings.CutPrefix(f.listen, unixPrefix); ok {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", f.listen)
}
