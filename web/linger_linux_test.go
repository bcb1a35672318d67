package web_test

import (
	"bytes"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"lastevent/web"
)

// What the client has sent too much must not reset away the response's end, of which
// the kernel holds some as long as the client has no room for it.
func TestEndReachesAClientThatSendsOn(t *testing.T) {
	s := overTCP(t, setup{config: func(c *web.Config) { c.MaxEventBytes, c.MaxBatchBytes = 1<<20, 1<<20 }})
	s.publish(t, "x", strings.Repeat("x", 15_000))
	little := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		ctrl := raw.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 1)
		})
		if ctrl != nil {
			return ctrl
		}
		return err
	}}
	for range 5 {
		w, err := little.DialContext(t.Context(), "tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		request := "GET /sse/x?from=earliest&limit=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
		if _, err := io.WriteString(w, request+strings.Repeat("and more ", 1000)); err != nil {
			t.Fatal(err)
		}
		if raw, err := io.ReadAll(w); err != nil || !bytes.HasSuffix(raw, []byte("xxx\n\n\r\n0\r\n\r\n")) {
			t.Fatalf("%d bytes, %v", len(raw), err)
		}
		w.Close()
	}
}
