package web

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

var errDraining = errors.New("the server is stopping")

const (
	// writeTimeout is how long a client may take none of what is written to it
	// before it is cut.
	writeTimeout = 30 * time.Second
	// maxChunk is the most that is written under one deadline, and in one chunk.
	maxChunk = 64 << 10
	// lingerTimeout is how long the last bytes have to reach a client that has
	// sent something that nobody reads: closing at once would reset them away.
	lingerTimeout = time.Second
)

// A response is a body of unknown length on a connection taken over from net/http.
// To HTTP/1.1 it is chunked, which tells an end from a cut; to HTTP/1.0 the end of
// the connection is an end and its reset a cut.
type response struct {
	conn    net.Conn
	chunked bool
	header  []byte // until it is written with the first chunk

	written  time.Time // of the last write
	deadline time.Time // of the next write

	// What a write is made of; here so that it allocates nothing.
	buffers net.Buffers
	parts   [4][]byte
	size    [20]byte
}

// takeOver takes the connection from net/http. The header is not yet written.
func takeOver(w http.ResponseWriter, r *http.Request) (*response, error) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("taking over a connection: %w", err)
	}
	res := &response{conn: conn, chunked: r.ProtoAtLeast(1, 1)}
	h := w.Header()
	h.Set("Connection", "close")
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	head := bytes.NewBufferString("HTTP/1.0 200 OK\r\n")
	if res.chunked {
		head = bytes.NewBufferString("HTTP/1.1 200 OK\r\n")
		h.Set("Transfer-Encoding", "chunked")
	}
	_ = h.Write(head) // a buffer takes all
	head.WriteString("\r\n")
	res.header = head.Bytes()
	// A connection that refuses these is broken, as the first write will show.
	_ = limitUnsent(conn)
	_ = conn.SetDeadline(time.Time{})
	return res, nil
}

// write writes p, which must not be empty.
func (res *response) write(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), maxChunk)
		if err := res.writeChunk(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// writeChunk writes without copying: p may be shared by many clients.
func (res *response) writeChunk(p []byte) error {
	now := time.Now()
	res.written = now
	if res.deadline.Sub(now) < writeTimeout/2 {
		res.deadline = now.Add(writeTimeout)
		if err := res.conn.SetWriteDeadline(res.deadline); err != nil {
			return err
		}
	}
	parts := res.parts[:0]
	if res.header != nil {
		parts = append(parts, res.header)
		res.header = nil
	}
	if res.chunked {
		size := append(strconv.AppendUint(res.size[:0], uint64(len(p)), 16), "\r\n"...)
		parts = append(parts, size, p, crlf)
	} else {
		parts = append(parts, p)
	}
	res.buffers = parts
	_, err := res.buffers.WriteTo(res.conn)
	return err
}

var (
	crlf      = []byte("\r\n")
	lastChunk = []byte("0\r\n\r\n")
)

// end completes the response.
func (res *response) end() {
	defer res.conn.Close()
	if res.chunked {
		if _, err := res.conn.Write(lastChunk); err != nil {
			return
		}
	}
	tcp, ok := res.conn.(interface{ CloseWrite() error })
	if !ok || tcp.CloseWrite() != nil || res.conn.SetReadDeadline(time.Now().Add(lingerTimeout)) != nil {
		return
	}
	_, _ = io.Copy(io.Discard, res.conn) // until the client closes too, or the deadline
}

// cut breaks the response off. It may be called while a write is under way, which
// then fails.
func (res *response) cut() {
	if tcp, ok := res.conn.(*net.TCPConn); ok && !res.chunked {
		_ = tcp.SetLinger(0) // the connection is closed all the same
	}
	_ = res.conn.Close()
}
