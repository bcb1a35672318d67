//go:build !linux

package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func benchCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "bench",
		Short: "Measure how fast the server is on this machine (on Linux)",
		RunE:  func(*cobra.Command, []string) error { return errors.New("bench measures on Linux only") },
	}
}
