package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"
)

// setFromEnvironment sets each flag that the command line does not, from its
// variable: LASTEVENT_ and the flag's name in capitals, - as _.
func setFromEnvironment(flags *pflag.FlagSet) error {
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		name := "LASTEVENT_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, ok := os.LookupEnv(name)
		if !ok || f.Changed || f.Name == "help" {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("%s, the variable of --%s: %w", name, f.Name, err))
		}
	})
	return errors.Join(errs...)
}

// checkGiven refuses those of the flags that are given and empty, as by a variable of the
// shell that was not set.
func checkGiven(flags *pflag.FlagSet, names ...string) error {
	for _, name := range names {
		f := flags.Lookup(name)
		if value := f.Value.String(); f.Changed && (value == "" || value == "[]") {
			return fmt.Errorf("--%s must not be empty where it is given", name)
		}
	}
	return nil
}

// size is a flag's value in bytes, as people write it: 64MB, 1GiB, 1000.
type size uint64

func (s *size) String() string { return strings.ReplaceAll(humanize.IBytes(uint64(*s)), " ", "") }
func (s *size) Type() string   { return "size" }

func (s *size) Set(text string) error {
	n, err := humanize.ParseBytes(text)
	if err != nil {
		return fmt.Errorf("%q is not a size, such as 64MB or 1GiB", text)
	}
	*s = size(n)
	return nil
}
