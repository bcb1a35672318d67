//go:build linux

package browsertest

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"

	"lastevent/cmd/lastevent/servetest"
)

// A server gets its certificate from an authority that has never heard of it, by its
// first connection, and has it still after a restart.
func TestACME(t *testing.T) {
	t.Parallel()
	const name = "events.lastevent.test"
	front := http.NewServeMux() // of the authority
	authority := httptest.NewTLSServer(front)
	t.Cleanup(authority.Close)
	trusted := filepath.Join(t.TempDir(), "authority.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: authority.Certificate().Raw}
	if err := os.WriteFile(trusted, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	cache := filepath.Join(t.TempDir(), "cache")
	s := servetest.StartWith(t, []string{"SSL_CERT_FILE=" + trusted},
		"--acme-host", name, "--acme-directory", authority.URL+wfe.DirectoryPath, "--acme-cache", cache, "--acme-email", "someone@lastevent.test")
	roots := startAuthority(t, front, s.Addr)

	client := func(name string) *http.Client {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: name}, ForceAttemptHTTP2: true}
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport}
	}
	s.HTTP = client(name)
	serial := func() string {
		t.Helper()
		res, err := s.HTTP.Get(s.URL + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.ProtoMajor != 2 {
			t.Errorf("it speaks %s", res.Proto)
		}
		return res.TLS.PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	s.MustPublish("x", 3, servetest.Numbered(3)...)
	f := &servetest.Follower{Client: s.HTTP, URL: s.URL + "/sse/x", Began: true}
	if err := f.Follow(s.Ctx, f.UpTo(3)); err != nil {
		t.Fatal(err)
	}
	if _, err := client("other.lastevent.test").Get(s.URL + "/healthz"); err == nil {
		t.Error("it has a certificate for a name that is not its own")
	}
	s.Stop()
	s.Restart()
	if again := serial(); again != first {
		t.Error("another certificate after a restart")
	}
	s.MustPublish("x", 4, "four")
	if err := f.Follow(s.Ctx, f.UpTo(4)); err != nil || f.Events != 4 {
		t.Errorf("%d events, %v", f.Events, err)
	}
}

// startAuthority starts one that finds every name at the server's address, and returns
// its roots. Now and then it refuses a nonce that is good, as authorities may.
func startAuthority(t *testing.T, front *http.ServeMux, server string) *x509.CertPool {
	t.Helper()
	_, port, err := net.SplitHostPort(server)
	if err != nil {
		t.Fatal(err)
	}
	tlsPort, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "20"} {
		if err := os.Setenv(name, value); err != nil {
			t.Fatal(err)
		}
	}
	quiet := log.New(io.Discard, "", 0)
	memory := db.NewMemoryStore()
	issuer := ca.New(quiet, memory, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {}})
	validator := va.New(quiet, 0, tlsPort, false, startNames(t), memory)
	web := wfe.New(quiet, memory, validator, issuer, []string{"authority.lastevent.test"}, false, false, 1, 1)
	front.Handle("/", web.Handler())
	roots := x509.NewCertPool()
	roots.AddCert(issuer.GetRootCert(0).Cert)
	return roots
}

// startNames starts a name server for which every name is this machine.
func startNames(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	names := &dns.Server{Listener: l, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		answer := new(dns.Msg).SetReply(r)
		if q := r.Question[0]; q.Qtype == dns.TypeA {
			header := dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET}
			answer.Answer = []dns.RR{&dns.A{Hdr: header, A: net.IPv4(127, 0, 0, 1)}}
		}
		_ = w.WriteMsg(answer) // who asked asks again
	})}
	go names.ActivateAndServe()
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}
