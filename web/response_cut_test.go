package web

import (
	"crypto/tls"
	"net"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// A cut waits for no client, as it keeps all others waiting: also not over TLS, to whose
// end a client that takes nothing would have to listen.
func TestCutWaitsForNobody(t *testing.T) {
	s := httptest.NewTLSServer(nil)
	certificates := s.TLS.Certificates
	s.Close()
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		conn := tls.Server(server, &tls.Config{Certificates: certificates, SessionTicketsDisabled: true})
		go func() { _ = tls.Client(client, &tls.Config{InsecureSkipVerify: true}).Handshake() }()
		if err := conn.Handshake(); err != nil {
			t.Fatal(err)
		}
		res := &connResponse{conn: conn, chunked: true, watcher: new(watcher)}
		begun := time.Now()
		res.cut()
		if took := time.Since(begun); took > 0 {
			t.Errorf("it took %v", took)
		}
		_ = client.SetReadDeadline(begun.Add(time.Second))
		if _, err := client.Read(make([]byte, 1)); err == nil || time.Since(begun) > 0 {
			t.Errorf("the connection is open: %v", err)
		}
	})
}
