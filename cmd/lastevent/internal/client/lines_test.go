package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"lastevent/cmd/lastevent/internal/client"
)

// A line goes out at once, and those that came meanwhile are the next batch.
func TestLinesDoNotWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in, out := io.Pipe()
		lines := client.ReadLines(in, false, false)
		next := func(first, last int, body string) {
			t.Helper()
			b, err := lines.Next(t.Context())
			if err != nil || b.First != first || b.Last != last || string(b.Body) != body {
				t.Errorf("lines %d to %d, %q, %v; want %d to %d, %q", b.First, b.Last, b.Body, err, first, last, body)
			}
		}
		fmt.Fprint(out, "a\n")
		next(1, 1, `{"data":"a"}`+"\n")
		fmt.Fprint(out, "b\nc\r\n\nhalf")
		synctest.Wait()
		next(2, 4, `{"data":"b"}`+"\n"+`{"data":"c"}`+"\n"+`{"data":""}`+"\n")
		out.Close()
		next(5, 5, `{"data":"half"}`+"\n")
		if _, err := lines.Next(t.Context()); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	})
}

func TestLinesStopWithTheirContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in, out := io.Pipe()
		defer out.Close()
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("why")
		go func() { synctest.Wait(); cancel(why) }()
		if _, err := client.ReadLines(in, false, false).Next(ctx); err != why {
			t.Errorf("%v, want the cause", err)
		}
	})
}

// A batch has no more events and bytes than a server, or a proxy, takes.
func TestBatchesAreBounded(t *testing.T) {
	for name, test := range map[string]struct {
		line       string
		count      int
		lines, max int // of a batch: how many lines of the first, at most; bytes
	}{
		"events": {"x", 250_000, 100_000, 2 << 20},
		"bytes":  {strings.Repeat("x", 1000), 5000, 1100, 1 << 20},
		"large":  {strings.Repeat("x", 3<<20), 3, 1, 3<<20 + 100},
	} {
		in := strings.NewReader(strings.Repeat(test.line+"\n", test.count))
		lines := client.ReadLines(in, false, false)
		last, most := 0, 0
		for {
			b, err := lines.Next(t.Context())
			if err == io.EOF {
				break
			}
			n := bytes.Count(b.Body, []byte("\n"))
			if err != nil || b.First != last+1 || b.Last-b.First+1 != n || n > test.lines || len(b.Body) > test.max {
				t.Fatalf("%s: lines %d to %d with %d events and %d bytes, after line %d; %v", name, b.First, b.Last, n, len(b.Body), last, err)
			}
			last, most = b.Last, max(most, n)
		}
		if last != test.count {
			t.Errorf("%s: %d lines, want %d", name, last, test.count)
		}
	}
}

func TestBadLines(t *testing.T) {
	for _, test := range []struct {
		in    string
		json  bool
		whole bool
		lines int // in batches before the error
		want  string
	}{
		{"a\nb\n\xff\nc\n", false, false, 2, "line 3: it is not UTF-8"},
		{"{}\n\n{\xff}\n", true, false, 2, "line 3: it is not UTF-8"},
		{"a\nb\n\xff\nc\n", false, true, 0, "line 3: it is not UTF-8"},
		{"a\n" + strings.Repeat("x", 17<<20), false, false, 1, "line 2: it has more than 16 MiB"},
		{strings.Repeat("x\n", 100_001), false, true, 0, "with an idempotency key of your own, all lines are one batch, which has at most 100000 lines and 16 MiB"},
		{strings.Repeat("\n", 200_000), true, false, 0, "EOF"},
		{strings.Repeat("\n", 200_000), true, true, 0, "EOF"},
	} {
		lines := client.ReadLines(strings.NewReader(test.in), test.json, test.whole)
		n := 0
		b, err := lines.Next(t.Context())
		for ; err == nil; b, err = lines.Next(t.Context()) {
			n = b.Last
		}
		if n != test.lines || err.Error() != test.want {
			t.Errorf("%.10q: %d lines, %v; want %d, %s", test.in, n, err, test.lines, test.want)
		}
	}
}

// The server counts the lines of a batch; who wrote them counts all.
func TestLocate(t *testing.T) {
	b := client.LineBatch{First: 11, Last: 20}
	for in, want := range map[error]string{
		&client.Error{Status: 400, Detail: "line 1: data is missing: so it is"}: "line 11: 400: data is missing: so it is",
		&client.Error{Status: 413, Detail: "line 10: too long"}:                 "line 20: 413: too long",
		&client.Error{Status: 400, Detail: "line 11: what"}:                     "400: line 11: what",
		&client.Error{Status: 409, Detail: "closed"}:                            "409: closed",
		io.ErrUnexpectedEOF: io.ErrUnexpectedEOF.Error(),
	} {
		if got := b.Locate(in).Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
