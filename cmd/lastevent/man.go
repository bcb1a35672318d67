//go:build man

package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// The generator of man pages is a twentieth of the program, so it is not built in:
//
//	go run -tags man ./cmd/lastevent man DIR
func init() { tagged = append(tagged, manCommand) }

func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the man pages",
		Long:   "Write a man page for each command into a folder.",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.DisableAutoGenTag = true
			return ended(doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "lastevent", Manual: "lastevent"}, args[0]))
		},
	}
}
