// Lastevent serves Server-Sent Events that nobody misses: each event is numbered,
// made durable in a bounded log and only then sent, and a client that comes back
// with a Last-Event-ID gets what it missed, or is told what is gone.
package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// Exit statuses: 1 where the work failed, 2 where the command line was wrong.
const (
	exitFailed = 1
	exitUsage  = 2
)

// tagged are commands of builds with a tag.
var tagged []func() *cobra.Command

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	root := &cobra.Command{
		Use:           "lastevent",
		Short:         "Server-Sent Events with a durable log, resumed by Last-Event-ID",
		Long:          "Server-Sent Events with a durable log, resumed by Last-Event-ID.\n\nWithout a command, lastevent serves, and takes the flags of serve (lastevent serve --help).",
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.AddCommand(serveCommand(), publishCommand(), tailCommand(), doctorCommand(),
		inspectCommand(), backupCommand(), copyCommand(), tokenCommand(), healthcheckCommand(), benchCommand(), versionCommand())
	for _, command := range tagged {
		root.AddCommand(command())
	}
	root.SetArgs(withDefaultCommand(args))
	err := root.Execute()
	var failed *failure
	var ended *exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &ended):
		return ended.status
	case errors.As(err, &failed):
		return exitFailed // logged already
	}
	fmt.Fprintf(os.Stderr, "lastevent: %s\n", strings.ReplaceAll(err.Error(), "\n", " "))
	return exitUsage
}

// withDefaultCommand makes serve the command where none is given.
func withDefaultCommand(args []string) []string {
	if len(args) > 0 && (!strings.HasPrefix(args[0], "-") || slices.Contains([]string{"-h", "--help", "--version"}, args[0])) {
		return args
	}
	return append([]string{"serve"}, args...)
}

// A failure is an error of the work itself. Any other error of a command is one of
// its command line.
type failure struct{ error }

func (f *failure) Unwrap() error { return f.error }
