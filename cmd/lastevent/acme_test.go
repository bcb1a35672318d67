//go:build linux

package main_test

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lastevent/cmd/lastevent/servetest"
)

// Where there is no certificate to be had, the log says why, and once is enough; of
// names that are not the server's it says nothing.
func TestNoCertificate(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t, "--acme-host", "events.example.com", "--acme-directory", "https://127.0.0.1:1/directory")
	for _, name := range []string{"other.example.com", "events.example.com", "events.example.com"} {
		conn := tls.Client(s.Dial(), &tls.Config{ServerName: name})
		if err := conn.Handshake(); err == nil {
			t.Errorf("there is a certificate for %s", name)
		}
	}
	s.Stop()
	if log := s.Log(); strings.Count(log, "there is no certificate") != 1 || !strings.Contains(log, "https://127.0.0.1:1/directory") || strings.Contains(log, "other") {
		t.Error("the log does not say, once, why")
	}
	info, err := os.Stat(filepath.Join(filepath.Dir(s.DB), "acme"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the cache: %v, %v", info, err)
	}
}

func TestACMEFlags(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, test := range []struct {
		says string
		args []string
	}{
		{"--acme-host", []string{"--acme-host", "192.0.2.1"}},
		{"--acme-host", []string{"--acme-host", "https://events.example.com"}},
		{"--acme-host", []string{"--acme-host", "*.example.com"}},
		{"--acme-host", []string{"--acme-host", "localhost"}},
		{"--acme-host", []string{"--acme-host", ""}},
		{"--acme-host", []string{"--acme-cache", "dir"}},
		{"--acme-host", []string{"--acme-email", "someone@example.com"}},
		{"--acme-directory", []string{"--acme-host", "events.example.com", "--acme-directory", "http://192.0.2.1/"}},
		{"--tls-cert", []string{"--acme-host", "events.example.com", "--tls-cert", "cert.pem", "--tls-key", "key.pem"}},
	} {
		status, stderr := servetest.Run(t, dir, nil, append([]string{"--listen", "127.0.0.1:0"}, test.args...)...)
		if status != 2 || !strings.Contains(stderr, test.says) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: status %d, %q; want 2 and a line that names %s", test.args, status, stderr, test.says)
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("%v, %v", files, err)
	}
}
