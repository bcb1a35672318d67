// Package sse is the wire format of Server-Sent Events, written and read: the
// text/event-stream of the HTML standard, section 9.2 "Server-sent events"
// (https://html.spec.whatwg.org/multipage/server-sent-events.html).
package sse

import (
	"bytes"
	"strconv"
	"time"
)

// Heartbeat is a comment line. It is not followed by a blank line, as some
// clients make an empty message of a block that holds nothing but a comment.
const Heartbeat = ":\n"

// AppendEvent appends an event with an ID. The type is left out where it is
// "message", which is what clients take an event without one for; it must hold no
// line end. A line end in data, of whichever kind, reaches the client as LF.
func AppendEvent(dst []byte, typ string, id uint64, data []byte) []byte {
	dst = append(appendType(dst, typ), "id: "...)
	dst = append(strconv.AppendUint(dst, id, 10), '\n')
	return appendData(dst, data)
}

// AppendEventText is AppendEvent with an ID that is not one number. It must hold
// neither a line end nor a NUL.
func AppendEventText(dst []byte, typ, id string, data []byte) []byte {
	dst = append(appendType(dst, typ), "id: "...)
	dst = append(append(dst, id...), '\n')
	return appendData(dst, data)
}

// Split returns the parts of what AppendEvent appended: the line of the type, which
// may be empty, that of the ID, and the data.
func Split(event []byte) (typ, id, data []byte) {
	n := 0
	if bytes.HasPrefix(event, []byte(typePrefix)) {
		n = bytes.IndexByte(event, '\n') + 1
	}
	m := n + bytes.IndexByte(event[n:], '\n') + 1
	return event[:n], event[n:m], event[m:]
}

// TypeOf returns the type of what AppendEvent appended. It is not to be changed.
func TypeOf(event []byte) []byte {
	typ, _, _ := Split(event)
	if len(typ) == 0 {
		return typeMessage
	}
	return typ[len(typePrefix) : len(typ)-1]
}

var typeMessage = []byte("message")

// Fields returns the type and the data of what AppendEvent appended, where the data
// had no CR. The type is nil where that was something else.
func Fields(event []byte) (typ, data []byte) {
	_, _, lines := Split(event)
	n := len(lines) - len("\n\n")
	if n < len(dataPrefix) || !bytes.HasPrefix(lines, []byte(dataPrefix)) || string(lines[n:]) != "\n\n" {
		return nil, nil
	}
	data = lines[len(dataPrefix):n:n]
	if bytes.IndexByte(data, '\n') >= 0 {
		data = bytes.ReplaceAll(data, []byte("\n"+dataPrefix), []byte("\n"))
	}
	return TypeOf(event), data
}

// AppendControl appends an event without an ID, which leaves the client's as it is.
func AppendControl(dst []byte, typ string, data []byte) []byte {
	return appendData(appendType(dst, typ), data)
}

// AppendRetry appends the line that sets the client's reconnection time, in whole
// milliseconds. It belongs in front of an event: alone, some clients make an empty
// message of it.
func AppendRetry(dst []byte, d time.Duration) []byte {
	dst = append(dst, "retry: "...)
	dst = strconv.AppendInt(dst, d.Milliseconds(), 10)
	return append(dst, '\n')
}

const (
	typePrefix = "event: "
	dataPrefix = "data: "
)

func appendType(dst []byte, typ string) []byte {
	if typ == "message" {
		return dst
	}
	dst = append(dst, typePrefix...)
	dst = append(dst, typ...)
	return append(dst, '\n')
}

// appendData appends a data line for each line of data, and ends the event.
func appendData(dst, data []byte) []byte {
	crs := bytes.IndexByte(data, '\r') >= 0
	for {
		dst = append(dst, dataPrefix...)
		var end int
		if crs {
			end = bytes.IndexAny(data, "\r\n")
		} else {
			end = bytes.IndexByte(data, '\n')
		}
		if end < 0 {
			dst = append(dst, data...)
			return append(dst, "\n\n"...)
		}
		dst = append(dst, data[:end]...)
		dst = append(dst, '\n')
		if data[end] == '\r' && end+1 < len(data) && data[end+1] == '\n' {
			end++
		}
		data = data[end+1:]
	}
}
