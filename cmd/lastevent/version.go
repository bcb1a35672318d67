package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintln(cmd.OutOrStdout(), version())
		},
	}
}

// release is the version of a release, which the linker sets.
var release string

// version tells the release, or the module's version, or the commit that it was built from.
func version() string {
	v := cmp.Or(release, "unknown")
	if info, ok := debug.ReadBuildInfo(); ok && release == "" {
		v = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && v == "(devel)" {
				v = s.Value
			}
		}
	}
	return fmt.Sprintf("lastevent %s %s %s/%s", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
