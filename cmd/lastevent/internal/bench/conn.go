//go:build linux

package bench

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// A conn takes a client's response apart as far as counting needs it. Its zero
// value is ready for the first byte.
type conn struct {
	sample bool // measures latencies
	open   bool // has got the beginning
	done   bool // has got all

	header  []byte // until it is complete
	body    bool   // the header is complete
	chunked bool
	digits  []byte // of the size of the chunk that begins
	left    uint64 // bytes until the chunk's end
	newline bool   // the last byte was one
	blocks  int    // that have ended: the beginning, and then an event each
}

var endOfHeader = []byte("\r\n\r\n")

// feed takes the next bytes. Where the conn samples, received is called with each
// piece of the body.
func (c *conn) feed(p []byte, received func([]byte)) (err error) {
	for len(p) > 0 && err == nil {
		switch {
		case !c.body:
			p, err = c.feedHeader(p)
		case c.chunked && c.left == 0:
			p, err = c.feedSize(p)
		default:
			piece := p
			if c.chunked && c.left < uint64(len(p)) {
				piece = p[:c.left]
			}
			c.count(piece)
			if c.sample {
				received(piece)
			}
			c.left -= uint64(len(piece))
			p = p[len(piece):]
		}
	}
	return err
}

func (c *conn) feedHeader(p []byte) (rest []byte, err error) {
	c.header = append(c.header, p...)
	header, rest, ok := bytes.Cut(c.header, endOfHeader)
	if !ok {
		return nil, nil
	}
	status, _, _ := bytes.Cut(header, []byte("\r\n"))
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
		return nil, fmt.Errorf("the server answered %q", status)
	}
	c.chunked = bytes.Contains(header, []byte("chunked"))
	c.body, c.header = true, nil
	return rest, nil
}

// feedSize takes the line with a chunk's size, and the end of the line before it.
func (c *conn) feedSize(p []byte) (rest []byte, err error) {
	for i, b := range p {
		switch {
		case b == '\r', b == '\n' && len(c.digits) == 0:
		case b == '\n':
			c.left, err = strconv.ParseUint(string(c.digits), 16, 32)
			if err == nil && c.left == 0 {
				err = errors.New("the server ended the response")
			}
			c.digits = c.digits[:0]
			return p[i+1:], err
		default:
			c.digits = append(c.digits, b)
		}
	}
	return nil, nil
}

var endOfBlock = []byte("\n\n")

// count counts the blocks that end in a piece of the body.
func (c *conn) count(piece []byte) {
	if c.newline && piece[0] == '\n' {
		c.blocks++
	}
	c.blocks += bytes.Count(piece, endOfBlock)
	c.newline = piece[len(piece)-1] == '\n'
}
