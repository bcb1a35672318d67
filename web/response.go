package web

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

var errDraining = errors.New("the server is stopping")

const (
	// writeTimeout is how long a client may take nothing of what is written to it
	// before it is cut.
	writeTimeout = 30 * time.Second
	// patience is how long a write waits before it is looked at what the client takes,
	// and progressEvery how often that is looked at from then on.
	patience      = 200 * time.Millisecond
	progressEvery = time.Second
	// maxChunk is the most that is written in one chunk.
	maxChunk = 64 << 10
	// lingerTimeout is how long the last bytes have to reach a client that has
	// sent something that nobody reads: closing at once would reset them away.
	lingerTimeout = time.Second
)

// A response is a body of unknown length, whose end the client can tell from a cut.
type response interface {
	// begin writes the header and p.
	begin(p []byte, now time.Time) error
	// write writes p, which must not be empty.
	write(p []byte, now time.Time) error
	// watch has c told when the client may be gone, as far as that can be seen.
	watch(c hangUpper)
	// end completes the response.
	end()
	// cut breaks the response off. It may be called while a write is under way,
	// which then fails.
	cut()
}

// A hangUpper is told when its client has hung up, or may have.
type hangUpper interface{ hungUp() }

// A connResponse is a response on a connection taken over from net/http. To HTTP/1.1
// it is chunked, which tells an end from a cut; to HTTP/1.0 the end of the connection
// is an end and its reset a cut, which a unix socket does not have; see [checkCuts].
type connResponse struct {
	conn     net.Conn
	placed   *placedConn     // to close in conn's place; nil: there is none
	socket   syscall.RawConn // under conn; nil: there is none
	direct   bool            // it can be written to without waiting
	plain    bool            // a write that has failed for its deadline can go on
	chunked  bool
	header   []byte      // to begin with
	deadline time.Time   // of writes
	chunk    net.Buffers // what tryWrite has left of one
	rest     []byte      // and behind it
	watcher  *watcher
	watched  int32 // the watcher's name for the connection
	client   hangUpper
}

// takeOver takes the connection from net/http.
func takeOver(w http.ResponseWriter, r *http.Request, watcher *watcher) (*connResponse, error) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("taking over a connection: %w", err)
	}
	res := &connResponse{conn: conn, chunked: r.ProtoAtLeast(1, 1), watcher: watcher}
	if placed, ok := conn.(*placedConn); ok {
		conn = placed.Conn
		res.conn, res.placed = conn, placed
	}
	h := w.Header()
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	head := bytes.NewBufferString("HTTP/1.0 200 OK\r\n")
	if res.chunked {
		head = bytes.NewBufferString("HTTP/1.1 200 OK\r\n")
		h.Set("Transfer-Encoding", "chunked")
	}
	_ = h.Write(head) // a buffer takes all
	head.WriteString("\r\n")
	// A connection that refuses these is broken, as the first write will show.
	res.plain = under(conn) == conn
	if socket, ok := under(conn).(syscall.Conn); ok {
		res.direct = canWriteNow && res.plain
		res.socket, _ = socket.SyscallConn()
		_ = limitUnsent(res.socket)
	}
	_ = conn.SetDeadline(time.Time{})
	res.header = head.Bytes()
	return res, nil
}

// under returns the connection that TLS runs on, or else the connection itself.
func under(conn net.Conn) net.Conn {
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = c.NetConn()
	}
	if c, ok := conn.(*placedConn); ok {
		return c.Conn
	}
	return conn
}

func (res *connResponse) begin(p []byte, now time.Time) error {
	header := res.header
	res.header = nil
	n := min(len(p), maxChunk)
	err := res.writeAll(res.appendChunk(header, p[:n]), now)
	if err != nil || n == len(p) {
		return err
	}
	return res.write(p[n:], now)
}

func (res *connResponse) write(p []byte, now time.Time) error {
	if len(p) > maxCopied {
		return res.writeShared(p, now)
	}
	buf := chunks.Get().(*[]byte)
	*buf = res.appendChunk((*buf)[:0], p)
	err := res.writeAll(*buf, now)
	chunks.Put(buf)
	return err
}

// writeShared writes without copying p, which many clients may share.
func (res *connResponse) writeShared(p []byte, now time.Time) error {
	for len(p) > 0 {
		n := min(len(p), maxChunk)
		parts := res.partsOf(p[:n])
		if err := res.setDeadline(now); err != nil {
			return err
		}
		taken, err := parts.WriteTo(res.conn)
		if err != nil {
			err = res.persist(now, taken, err, func() (int64, error) { return parts.WriteTo(res.conn) })
		}
		if err != nil {
			return err
		}
		p, now = p[n:], time.Now()
	}
	return nil
}

// writeAll is on the way of every live event, and of a depth that the smallest stack
// has room for.
func (res *connResponse) writeAll(p []byte, now time.Time) error {
	if err := res.setDeadline(now); err != nil {
		return err
	}
	n, err := res.conn.Write(p)
	if err != nil {
		p = p[n:]
		err = res.persist(now, int64(n), err, func() (int64, error) {
			n, err := res.conn.Write(p)
			p = p[n:]
			return int64(n), err
		})
	}
	return err
}

// setDeadline makes a write end to see whether the client takes anything. Setting it
// for each write would cost more; but a write that cannot go on, as with TLS, is to
// have its whole time.
func (res *connResponse) setDeadline(now time.Time) error {
	switch {
	case !res.plain:
		res.deadline = now.Add(writeTimeout)
	case res.deadline.Sub(now) >= patience/2:
		return nil
	default:
		res.deadline = now.Add(patience)
	}
	return res.conn.SetWriteDeadline(res.deadline)
}

// persist goes on with a write that began at taken and of which the client took n bytes
// before err, until it is done or the client has taken nothing for writeTimeout.
func (res *connResponse) persist(taken time.Time, n int64, err error, write func() (int64, error)) error {
	for res.plain && errors.Is(err, os.ErrDeadlineExceeded) {
		now := time.Now()
		if n > 0 {
			taken = now
		}
		left := writeTimeout - now.Sub(taken)
		if left <= 0 {
			return err
		}
		res.deadline = now.Add(min(left, progressEvery))
		if err := res.conn.SetWriteDeadline(res.deadline); err != nil {
			return err
		}
		if n, err = 0, waitWritable(res.socket); err == nil {
			n, err = write()
		}
	}
	return err
}

// tryWrite writes as much of p as it can without waiting for the client, and reports
// whether that is all. If not, finish is to be called before any other write, and p
// must stay as it is until then. The response must be direct.
func (res *connResponse) tryWrite(p []byte) (all bool, err error) {
	buf := chunks.Get().(*[]byte)
	defer chunks.Put(buf)
	p, rest := p[:min(len(p), maxChunk)], p[min(len(p), maxChunk):]
	*buf = res.appendChunk((*buf)[:0], p)
	n, err := writeNow(res.socket, *buf)
	if err != nil || n == len(*buf) && len(rest) == 0 {
		return err == nil, err
	}
	res.chunk, res.rest = res.partsOf(p), rest
	for i, part := range res.chunk {
		taken := min(n, len(part))
		res.chunk[i], n = part[taken:], n-taken
	}
	return false, nil
}

// finish writes what tryWrite has left.
func (res *connResponse) finish(now time.Time) error {
	chunk, rest := res.chunk, res.rest
	res.chunk, res.rest = nil, nil
	for _, part := range chunk {
		if len(part) == 0 {
			continue
		}
		if err := res.writeAll(part, now); err != nil {
			return err
		}
	}
	if len(rest) == 0 {
		return nil
	}
	return res.write(rest, time.Now())
}

func (res *connResponse) watch(c hangUpper) {
	res.client = c
	if res.socket != nil {
		res.watched = res.watcher.watch(res.socket, c)
	}
}

// maxCopied is up to which size copying a chunk costs less than writing its parts.
const maxCopied = 4 << 10

var chunks = sync.Pool{New: func() any {
	b := make([]byte, 0, maxCopied+64)
	return &b
}}

func (res *connResponse) appendChunk(dst, p []byte) []byte {
	if !res.chunked {
		return append(dst, p...)
	}
	dst = append(strconv.AppendUint(dst, uint64(len(p)), 16), crlf...)
	return append(append(dst, p...), crlf...)
}

// partsOf is appendChunk without copying.
func (res *connResponse) partsOf(p []byte) net.Buffers {
	if !res.chunked {
		return net.Buffers{p}
	}
	return net.Buffers{append(strconv.AppendUint(nil, uint64(len(p)), 16), crlf...), p, crlf}
}

var (
	crlf      = []byte("\r\n")
	lastChunk = []byte("0\r\n\r\n")
)

func (res *connResponse) end() {
	defer res.watcher.forget(res.watched, res.client)
	defer res.close()
	if res.chunked {
		if res.socket != nil {
			_ = cork(res.socket)
		}
		if err := res.writeAll(lastChunk, time.Now()); err != nil {
			return
		}
	}
	half, ok := res.conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || res.conn.SetReadDeadline(time.Now().Add(lingerTimeout)) != nil {
		return
	}
	_, _ = io.Copy(io.Discard, res.conn) // until the client closes too, or the deadline
}

func (res *connResponse) cut() {
	res.reset()
	res.watcher.forget(res.watched, res.client)
}

// reset closes the connection: without the final chunk, or by a reset where there are
// no chunks. It never waits for the client, as TLS would to announce its end.
func (res *connResponse) reset() {
	if tcp, ok := under(res.conn).(*net.TCPConn); ok && !res.chunked {
		_ = tcp.SetLinger(0) // the connection is closed all the same
	}
	if tls, ok := res.conn.(interface{ NetConn() net.Conn }); ok {
		_ = tls.NetConn().Close()
		return
	}
	res.close()
}

func (res *connResponse) close() {
	if res.placed != nil {
		_ = res.placed.Close()
		return
	}
	_ = res.conn.Close()
}
