package sse

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// ErrTooLong: a line or an event exceeds the reader's limit.
var ErrTooLong = errors.New("sse: event is too long")

// A Message is an event as a client gets it.
type Message struct {
	Type string // "message" where the event names none
	ID   string // the client's last event ID as it is after this event
	Data string
	// Retry is the reconnection time last set; zero if none was.
	Retry time.Duration
}

// A Reader reads messages as a browser's EventSource does.
type Reader struct {
	lines   *bufio.Scanner
	limit   int
	begun   bool
	afterCR bool
	next    Message // ID and Retry as they are so far
}

// NewReader returns a Reader whose messages have at most limit bytes of data.
func NewReader(r io.Reader, limit int) *Reader {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, limit+len("data: \r\n"))
	reader := &Reader{lines: lines, limit: limit}
	lines.Split(reader.scanLine)
	return reader
}

// Next returns the next message. At the end of the input it returns io.EOF; an
// event that is cut off there is dropped, as the standard has it.
func (r *Reader) Next() (Message, error) {
	var (
		data    []byte
		hasData bool
		typ     string
		id      = r.next.ID
	)
	for r.lines.Scan() {
		line := r.lines.Bytes()
		if !r.begun {
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
			r.begun = true
		}
		if len(line) == 0 {
			r.next.ID = id
			if !hasData {
				typ = ""
				continue
			}
			m := r.next
			if m.Type = typ; typ == "" {
				m.Type = "message"
			}
			m.Data = string(data[:len(data)-1])
			return m, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "event":
			typ = string(value)
		case "data":
			hasData = true
			data = append(append(data, value...), '\n')
			if len(data) > r.limit+1 {
				return Message{}, fmt.Errorf("%w: over %d bytes", ErrTooLong, r.limit)
			}
		case "id":
			if bytes.IndexByte(value, 0) < 0 {
				id = string(value)
			}
		case "retry":
			if ms, err := strconv.ParseUint(string(value), 10, 31); err == nil {
				r.next.Retry = time.Duration(ms) * time.Millisecond
			}
		}
	}
	switch err := r.lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return Message{}, fmt.Errorf("%w: a line of over %d bytes", ErrTooLong, r.limit)
	case err != nil:
		return Message{}, err
	}
	return Message{}, io.EOF
}

// scanLine splits at LF, CRLF and CR; a CR ends its line before it is known
// whether an LF follows. A line that the input ends without a line end is dropped:
// it is part of an event that was cut off.
func (r *Reader) scanLine(data []byte, atEOF bool) (advance int, line []byte, err error) {
	start := 0
	if len(data) > 0 {
		if r.afterCR && data[0] == '\n' {
			start = 1
		}
		r.afterCR = false
	}
	end := bytes.IndexAny(data[start:], "\r\n")
	switch {
	case end >= 0:
		end += start
		r.afterCR = data[end] == '\r'
		return end + 1, data[start:end], nil
	case atEOF:
		return len(data), nil, nil
	}
	return start, nil, nil
}
