//go:build unix

package main_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"lastevent/cmd/lastevent/internal/selfsigned"
	"lastevent/cmd/lastevent/servetest"
)

// A hundred subscriptions on one HTTP/2 connection all resume when that is cut, again
// and again, and have every event: with TLS, and without as behind a proxy.
func TestHTTP2ConnectionIsCut(t *testing.T) {
	t.Parallel()
	t.Run("TLS", func(t *testing.T) {
		t.Parallel()
		cert, key, pool := selfSigned(t)
		protocols := new(http.Protocols)
		protocols.SetHTTP2(true)
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, Protocols: protocols}
		testHTTP2(t, servetest.Start(t, "--tls-cert", cert, "--tls-key", key), "https://", transport)
	})
	t.Run("h2c", func(t *testing.T) {
		t.Parallel()
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
		testHTTP2(t, servetest.Start(t), "http://", &http.Transport{Protocols: protocols})
	})
}

func testHTTP2(t *testing.T, s *servetest.Server, scheme string, transport *http.Transport) {
	const clients, events, cuts = 100, 60, 6
	transport.MaxConnsPerHost = 1
	defer transport.CloseIdleConnections()
	s.HTTP = &http.Client{Transport: transport}
	proxy := servetest.StartProxy(t, s.Addr, servetest.Faults{})
	followers := make([]*resuming, clients)
	seen := servetest.NewLedger()
	var following sync.WaitGroup
	for i := range followers {
		f := &resuming{Follower: servetest.Follower{Client: s.HTTP, URL: scheme + proxy.Addr + "/sse/x", Seen: seen, Began: true}}
		followers[i] = f
		following.Go(func() {
			if err := f.resume(s.Ctx, func() bool { return f.After < events }); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	connected := func(times int) bool {
		for _, f := range followers {
			if f.connections.Load() < int64(times) {
				return false
			}
		}
		return true
	}
	for cut := range cuts {
		await(t, s, "all to resume", func() bool { return connected(cut + 1) })
		if n := proxy.Connections(); n != 1 {
			t.Errorf("the subscriptions are on %d connections", n)
		}
		for i := range events / cuts {
			e := servetest.Event{Type: "message", Data: fmt.Sprint("event ", cut, "-", i)}
			id, err := s.Publish("x", e)
			if err := errors.Join(err, seen.Acknowledge(id, e)); err != nil {
				t.Fatal(err)
			}
			if i == events/cuts/2 {
				proxy.Reset()
			}
		}
	}
	following.Wait()
	for i, f := range followers {
		if f.Events != events || f.Gaps > 0 {
			t.Errorf("client %d has %d events and %d gaps", i, f.Events, f.Gaps)
		}
	}
	s.Stop()
}

// selfSigned makes a certificate, its key, and the pool that trusts it.
func selfSigned(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	dir := t.TempDir()
	cert, key, pool = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), x509.NewCertPool()
	if err := selfsigned.Write(cert, key); err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(cert)
	if err != nil || !pool.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate", err)
	}
	return cert, key, pool
}
