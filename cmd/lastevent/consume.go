package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"lastevent/cmd/lastevent/internal/client"
	"lastevent/stream/sse"
)

// outputs are the values of --output.
var outputs = []string{"text", "json", "raw"}

var errGap = errors.New("met a gap")

// gaps tells of gaps, and ends at one if it is to fail.
type gaps struct{ fail bool }

func (g gaps) take(m sse.Message) error {
	var gap struct {
		Reason, LastEventID string
		First               uint64
		Missed              *uint64
	}
	if err := json.Unmarshal([]byte(m.Data), &gap); err != nil {
		return fmt.Errorf("the gap %q cannot be read: %w", m.Data, err)
	}
	missed := "events"
	if gap.Missed != nil {
		missed = strconv.FormatUint(*gap.Missed, 10) + " events"
	}
	say("tail: gap: %s after ID %s are gone (%s); it goes on with ID %d", missed, gap.LastEventID, gap.Reason, gap.First)
	if g.fail {
		return errGap
	}
	return nil
}

// A writer is a consumer that writes events out.
type writer struct {
	out    *bufio.Writer
	format string
	state  *client.State // may be nil
	gaps   gaps
}

func newWriter(out io.Writer, format string, state *client.State, g gaps) *writer {
	return &writer{bufio.NewWriterSize(out, 64<<10), format, state, g}
}

func (w *writer) Take(_ context.Context, m sse.Message) error {
	var failed error
	if m.Type == "gap" {
		failed = w.gaps.take(m)
	}
	return errors.Join(failed, w.write(m))
}

func (w *writer) write(m sse.Message) error {
	control := m.Type == "gap" || m.Type == "end" || m.Type == "position"
	switch {
	case w.format == "raw" && (control && m.Type != "position"):
		_, err := w.out.Write(sse.AppendControl(w.out.AvailableBuffer(), m.Type, []byte(m.Data)))
		return err
	case w.format == "raw":
		_, err := w.out.Write(sse.AppendEventText(w.out.AvailableBuffer(), m.Type, m.ID, []byte(m.Data)))
		return err
	case w.format == "json" && m.Type == "gap":
		return w.writeLine(struct {
			Event string          `json:"event"`
			Data  json.RawMessage `json:"data"`
		}{m.Type, json.RawMessage(m.Data)})
	case control:
		return nil
	case w.format == "json":
		return w.writeLine(struct {
			ID    json.Number `json:"id"`
			Event string      `json:"event"`
			Data  string      `json:"data"`
		}{json.Number(m.ID), m.Type, m.Data})
	}
	_, err := w.out.WriteString(m.Data + "\n")
	return err
}

func (w *writer) writeLine(v any) error {
	e := json.NewEncoder(w.out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// Settle writes out what was taken, and only then keeps that it was.
func (w *writer) Settle(p client.Position) error {
	if err := w.out.Flush(); err != nil {
		return err
	}
	return save(w.state, p)
}

func save(state *client.State, p client.Position) error {
	if state == nil {
		return nil
	}
	if err := state.Save(p); err != nil {
		return fmt.Errorf("--state: %w", err)
	}
	return nil
}

// A runner is a consumer that runs a command for each event.
type runner struct {
	command string
	stream  string
	log     string
	state   *client.State // may be nil
	gaps    gaps
}

// runBase is the base of the pauses between two runs for the same event.
const runBase = 500 * time.Millisecond

func (r *runner) Take(ctx context.Context, m sse.Message) error {
	switch m.Type {
	case "gap":
		return r.gaps.take(m)
	case "position":
		var p struct{ Log string }
		err := json.Unmarshal([]byte(m.Data), &p)
		r.log = p.Log
		return err
	case "end":
		return nil
	}
	for failures := 1; ; failures++ {
		err := r.run(m)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil { // perhaps the signal was the command's, too
			return context.Cause(ctx)
		}
		say("tail: event %s: --exec: %v; running it again", m.ID, err)
		if err := client.Pause(ctx, client.Backoff(runBase, failures)); err != nil {
			return err
		}
	}
}

// run runs the command once, and lets it finish whatever happens.
func (r *runner) run(m sse.Message) error {
	shell := []string{"sh", "-c"}
	if runtime.GOOS == "windows" {
		shell = []string{"cmd", "/C"}
	}
	cmd := exec.Command(shell[0], shell[1], r.command)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(m.Data), os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(),
		"LASTEVENT_STREAM="+r.stream, "LASTEVENT_ID="+m.ID, "LASTEVENT_EVENT="+m.Type, "LASTEVENT_LOG="+r.log)
	return cmd.Run()
}

// Settle keeps what was taken.
func (r *runner) Settle(p client.Position) error { return save(r.state, p) }
