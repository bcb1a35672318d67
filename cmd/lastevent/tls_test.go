//go:build unix

package main_test

import (
	"crypto/tls"
	"net/http"
	"os"
	"strings"
	"testing"

	"lastevent/cmd/lastevent/servetest"
)

// Over TLS a stream is served by HTTP/2 and by HTTP/1.1, and resumes across them.
func TestTLS(t *testing.T) {
	t.Parallel()
	cert, key, pool := selfSigned(t)
	s := servetest.Start(t, "--tls-cert", cert, "--tls-key", key)
	client := func(version int) *http.Client {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, Protocols: new(http.Protocols)}
		transport.Protocols.SetHTTP1(version == 1)
		transport.Protocols.SetHTTP2(version == 2)
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport}
	}
	s.HTTP = client(2)
	s.MustPublish("x", 3, servetest.Numbered(3)...)
	for i, version := range []int{1, 2} {
		sub, err := servetest.Subscribe(s.Ctx, client(version), s.URL+"/sse/x", "1")
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"position", "2", "3"} {
			if m, err := sub.Next(); err != nil || m.Type != want && m.ID != want {
				t.Fatalf("HTTP/%d: %+v, %v; want %s", version, m, err, want)
			}
		}
		s.MustPublish("y", uint64(i+1), "another stream's")
		sub.Drop()
	}
}

// What is wrong with the files is said before anything is made.
func TestTLSFlags(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, test := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"--tls-cert", "cert.pem"}, 2, "--tls-key"},
		{[]string{"--tls-key", "key.pem"}, 2, "--tls-cert"},
		{[]string{"--tls-cert", "cert.pem", "--tls-key", "key.pem"}, 1, "cert.pem"},
	} {
		status, stderr := servetest.Run(t, dir, nil, append([]string{"serve", "--listen", "127.0.0.1:0"}, test.args...)...)
		if status != test.status || !strings.Contains(stderr, test.says) {
			t.Errorf("%q: status %d, %q", test.args, status, stderr)
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("%v, %v", files, err)
	}
}
