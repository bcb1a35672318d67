package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lastevent/cmd/lastevent/internal/client"
)

// An exit ends the program with a status of its own. What there is to say was said.
type exit struct{ status int }

func (e *exit) Error() string { return fmt.Sprint("exit status ", e.status) }

// connectFlags are the flags of commands that call a server.
type connectFlags struct {
	url       string
	tokenFile string
}

func (f *connectFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.url, "url", "http://localhost:8080", "`address` of the server")
	f.addToken(flags)
}

func (f *connectFlags) addToken(flags *pflag.FlagSet) {
	flags.StringVar(&f.tokenFile, "token-file", "", "`file` with the token that the server wants; read again for each request. Or give the token itself in LASTEVENT_TOKEN")
}

// fromEnvironment sets the flags from the environment. Others are not, as tail --exec
// uses some of their variables.
func (f *connectFlags) fromEnvironment(flags *pflag.FlagSet) error {
	own := pflag.NewFlagSet("", pflag.ContinueOnError)
	for _, name := range []string{"url", "token-file"} {
		if flag := flags.Lookup(name); flag != nil {
			own.AddFlag(flag)
		}
	}
	return setFromEnvironment(own)
}

// server checks the flags. Errors are of the command line.
func (f *connectFlags) server(flags *pflag.FlagSet) (*client.Server, error) {
	if err := f.fromEnvironment(flags); err != nil {
		return nil, err
	}
	if _, err := f.token(); err != nil {
		return nil, err
	}
	s, err := client.NewServer(f.url, f.token)
	if err != nil {
		return nil, fmt.Errorf("the URL %w", err)
	}
	return s, nil
}

func (f *connectFlags) token() (string, error) {
	text, from := os.Getenv("LASTEVENT_TOKEN"), "LASTEVENT_TOKEN"
	if f.tokenFile != "" {
		content, err := os.ReadFile(f.tokenFile)
		if err != nil {
			return "", fmt.Errorf("--token-file: %w", err)
		}
		text, from = string(content), "--token-file "+f.tokenFile
	}
	token := strings.TrimSpace(text)
	if token == "" && f.tokenFile != "" || strings.ContainsFunc(token, notInToken) {
		return "", fmt.Errorf("%s must hold one token", from)
	}
	return token, nil
}

func notInToken(c rune) bool { return c <= ' ' || c > '~' }

// completeStream completes a stream's name with those of the server, where it is up.
func (f *connectFlags) completeStream(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	server, err := f.server(cmd.Flags())
	var names []string
	if err == nil {
		names, _ = server.Streams(ctx, prefix) // a shell shows no error
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// A signalled is the end of a context by a signal.
type signalled struct{ syscall.Signal }

func (s signalled) Error() string { return "stopped by a signal: " + s.String() }

// untilSignal returns a context that ends with the first SIGINT or SIGTERM. The second
// ends the process.
func untilSignal() (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		if s, ok := (<-signals).(syscall.Signal); ok {
			signal.Stop(signals)
			cancel(signalled{s})
		}
	}()
	return ctx, cancel
}

// untilUnread ends a context when nobody reads standard output any more, if that is a
// pipe, although nothing is written.
func untilUnread(cancel context.CancelCauseFunc) {
	if s, err := os.Stdout.Stat(); err != nil || s.Mode()&os.ModeNamedPipe == 0 {
		return
	}
	go func() {
		if waitUnread(os.Stdout) {
			cancel(signalled{syscall.SIGPIPE})
		}
	}()
}

// ended tells the user about the error of a command's work, and returns the program's.
func ended(err error) error {
	if err == nil {
		return nil
	}
	s, stopped := errors.AsType[signalled](err)
	if err != error(s) { // there is more to say than that
		say("%v", err)
	}
	if stopped {
		return &exit{128 + int(s.Signal)}
	}
	return &failure{err}
}

// say tells the user something on standard error.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "lastevent: "+format+"\n", args...)
}
