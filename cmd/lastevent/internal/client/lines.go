package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

const (
	// maxBatchEvents is what a server takes at once.
	maxBatchEvents = 100_000
	// fullBatch is how many bytes make a batch full. More would cost as much by the
	// byte, and proxies often refuse bodies over 1 MiB.
	fullBatch = 1 << 20
	// maxBatch is what a server takes at once unless it is told otherwise.
	maxBatch = 16 << 20
)

// Lines turns text into batches with an event a line. It reads ahead of its reader's
// batches, so that a line which comes while nothing is under way goes out at once, and
// those that come while something is are the next batch.
type Lines struct {
	mu      sync.Mutex // guards all below
	changed sync.Cond
	json    bool
	whole   bool // there is but one batch
	full    int  // bytes
	next    LineBatch
	err     error // what ended the reading; io.EOF at the end
}

// A LineBatch is the events of consecutive lines, as lines of JSON.
type LineBatch struct {
	First, Last int // lines; First is 1 more than the Last before it
	Body        []byte
	events      int
}

// A LineError is an error of a line.
type LineError struct {
	Line int
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }
func (e *LineError) Unwrap() error { return e.Err }

var (
	errNotUTF8  = errors.New("it is not UTF-8")
	errTooLong  = fmt.Errorf("it has more than %d MiB", maxBatch>>20)
	errTooMuch  = fmt.Errorf("with an idempotency key of your own, all lines are one batch, which has at most %d lines and %d MiB", maxBatchEvents, maxBatch>>20)
	eventBefore = []byte(`{"data":`)
)

// ReadLines reads lines that end with LF or CRLF, the last perhaps with neither. They
// are the data of an event each, or {"event":…,"data":…} if they are JSON. If they are
// to be whole, they are one batch or, where they are too many, an error.
func ReadLines(in io.Reader, isJSON, whole bool) *Lines {
	l := &Lines{json: isJSON, whole: whole, full: fullBatch, next: LineBatch{First: 1}}
	if whole {
		l.full = maxBatch
	}
	l.changed.L = &l.mu
	go l.read(in)
	return l
}

// Next waits for lines that were not in a batch yet. After the last batch it returns
// io.EOF, or the error that ended the reading; one of a line is a [LineError].
func (l *Lines) Next(ctx context.Context) (LineBatch, error) {
	defer context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.changed.Broadcast()
	})()
	l.mu.Lock()
	defer l.mu.Unlock()
	for (l.next.events == 0 || l.whole) && l.err == nil && ctx.Err() == nil {
		l.changed.Wait()
	}
	b := l.next
	switch {
	case ctx.Err() != nil:
		return LineBatch{}, context.Cause(ctx)
	case b.events == 0 || l.whole && l.err != io.EOF:
		return LineBatch{}, l.err
	}
	l.next = LineBatch{First: b.Last + 1}
	l.changed.Broadcast()
	return b, nil
}

func (l *Lines) read(in io.Reader) {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), maxBatch)
	number := 0
	for lines.Scan() {
		number++
		if err := l.add(number, lines.Bytes()); err != nil {
			l.end(err)
			return
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		l.end(&LineError{number + 1, errTooLong})
	case err != nil:
		l.end(fmt.Errorf("reading line %d: %w", number+1, err))
	default:
		l.end(io.EOF)
	}
}

func (l *Lines) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
	l.changed.Broadcast()
}

// add adds a line, when there is room for it.
func (l *Lines) add(number int, line []byte) error {
	if !utf8.Valid(line) {
		return &LineError{number, errNotUTF8}
	}
	event := line
	if !l.json {
		event = quote(line)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.next.Last >= l.next.First && (len(l.next.Body)+len(event) >= l.full || l.next.Last-l.next.First+1 == maxBatchEvents) {
		if l.whole {
			return errTooMuch
		}
		l.changed.Wait()
	}
	b := &l.next
	if b.Last = number; l.json && len(bytes.TrimSpace(line)) == 0 { // no event, but it counts
		if b.events == 0 {
			b.First = number + 1
			return nil
		}
	} else {
		b.events++
		l.changed.Broadcast()
	}
	b.Body = append(append(b.Body, event...), '\n')
	return nil
}

// Locate returns the server's refusal of the batch as one of the line that it names.
func (b LineBatch) Locate(err error) error {
	e, refused := errors.AsType[*Error](err)
	if !refused {
		return err
	}
	in, why, _ := strings.Cut(e.Detail, ": ")
	n, notNamed := strconv.Atoi(strings.TrimPrefix(in, "line "))
	if notNamed != nil || n < 1 || b.First+n-1 > b.Last {
		return err
	}
	return &LineError{b.First + n - 1, &Error{Status: e.Status, Detail: why}}
}

// quote returns the event with this data, as a line of JSON.
func quote(data []byte) []byte {
	buf := bytes.NewBuffer(make([]byte, 0, len(data)+len(data)/8+16))
	buf.Write(eventBefore)
	e := json.NewEncoder(buf)
	e.SetEscapeHTML(false)
	_ = e.Encode(string(data)) // text has no error
	return append(bytes.TrimRight(buf.Bytes(), "\n"), '}')
}
