package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"lastevent/store"
)

// inspectFlags are the flags of inspect.
type inspectFlags struct {
	json   bool
	repair string
}

func inspectCommand() *cobra.Command {
	var f inspectFlags
	cmd := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Check a file and list what it holds",
		Long: "Check a file that no server has open, and list what it holds.\n\n" +
			"Each event and each checksum is read, and how all is laid out on pages. The file is\n" +
			"never written to. The exit status is 0 if it is whole, 1 if something is damaged.\n\n" +
			"With --repair, what is whole is written to another file. Events keep their IDs, and\n" +
			"the log its name, unless a stream's last ID is not certain: then the new file is one\n" +
			"like a backup, which begins a new numbering when a server first opens it. The exit\n" +
			"status is 0 once the new file is there.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkGiven(cmd.Flags(), "repair"); err != nil {
				return err
			}
			return reported("inspect", f.run(args[0], cmd.OutOrStdout()))
		},
	}
	cmd.Flags().BoolVar(&f.json, "json", false, "write the report as JSON")
	cmd.Flags().StringVar(&f.repair, "repair", "", "write what is whole to this new `file`")
	return cmd
}

// reported tells of an error of the work.
func reported(command string, err error) error {
	if err == nil {
		return nil
	}
	fmt.Fprintf(os.Stderr, "lastevent: %s: %s\n", command, strings.ReplaceAll(err.Error(), "\n", " "))
	return &failure{err}
}

func (f *inspectFlags) run(path string, out io.Writer) error {
	if f.repair != "" {
		return f.runRepair(path, out)
	}
	r, err := store.Inspect(path)
	if err != nil {
		return withHint(err)
	}
	if err := f.write(out, r); err != nil {
		return err
	}
	if !r.Whole() {
		return errors.New(path + " is damaged; --repair NEW writes what is whole to another file")
	}
	return nil
}

func (f *inspectFlags) runRepair(path string, out io.Writer) error {
	old, repaired, err := store.Repair(path, f.repair)
	if err != nil {
		return withHint(err)
	}
	if f.json {
		return writeJSON(out, map[string]*store.Report{"old": old, "new": repaired})
	}
	writeDamage(out, old)
	fmt.Fprintf(out, "\nwritten to %s:\n\n", repaired.Path)
	writeReport(out, repaired)
	if !repaired.Backup.IsZero() {
		fmt.Fprint(out, "\nIt begins a new numbering when a server opens it: clients get a gap, and then all of it.\n")
	}
	return nil
}

// withHint adds to an error what can be done.
func withHint(err error) error {
	if errors.Is(err, store.ErrLocked) {
		return fmt.Errorf("%w; of a running server, take a copy by lastevent backup", err)
	}
	return err
}

func (f *inspectFlags) write(out io.Writer, r *store.Report) error {
	if f.json {
		return writeJSON(out, r)
	}
	writeReport(out, r)
	return nil
}

func writeJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// writeReport writes what a file holds, for people.
func writeReport(out io.Writer, r *store.Report) {
	fmt.Fprintf(out, "file     %s, %s, %d of %d pages free\n", r.Path, humanize.IBytes(uint64(r.Size)), r.FreePages, r.Pages)
	fmt.Fprintf(out, "format   %d\n", r.Format)
	fmt.Fprintf(out, "log      %s\n", r.Log)
	if !r.Backup.IsZero() {
		fmt.Fprintf(out, "backup   of that log, taken %s\n", r.Backup.Format(time.RFC3339))
	}
	if len(r.Streams) > 0 {
		fmt.Fprintln(out)
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(table, "first\tlast\tevents\tbytes\tin the file\t  stream")
		for _, s := range r.Streams {
			closed := ""
			if s.Closed {
				closed = " (closed)"
			}
			fmt.Fprintf(table, "%d\t%d\t%d\t%d\t%d\t  %s%s\n", s.First, s.Last, s.Events, s.Bytes, s.Stored, s.Name, closed)
		}
		_ = table.Flush() // as little to be done as for what is printed
	}
	writeDamage(out, r)
}

// writeDamage writes what of a file is not whole.
func writeDamage(out io.Writer, r *store.Report) {
	if r.TornMeta {
		fmt.Fprint(out, "\nOne of the two meta pages is not intact. A power cut can leave that, and the next\n"+
			"start mends it; otherwise the last commit is missing.\n")
	}
	if r.Whole() {
		fmt.Fprint(out, "\nwhole\n")
		return
	}
	fmt.Fprint(out, "\ndamaged:\n")
	for _, d := range r.Damage {
		fmt.Fprintf(out, "  %s\n", d)
	}
	if r.MoreDamage > 0 {
		fmt.Fprintf(out, "  and %d more\n", r.MoreDamage)
	}
	for _, s := range r.Streams {
		for _, c := range s.Corrupt {
			fmt.Fprintf(out, "  stream %q: events %d to %d are corrupt\n", s.Name, c.First, c.Last)
		}
	}
}

// logRestored tells of a backup that has been made a log of its own.
func logRestored(log zerolog.Logger, db fileEngine) {
	if of := db.BackupOf(); of != "" {
		log.Warn().EmbedObject(db).Str("backup_of", of).Str("log", db.ID()).
			Msg("the file was a backup, and is another log now: clients that resume get a gap, then all that is retained")
	}
}
