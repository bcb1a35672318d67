//go:build unix

package main_test

import (
	"strings"
	"testing"

	"lastevent/cmd/lastevent/servetest"
)

// However a server is set to be reached, a check that is set the same finds it.
func TestHealthcheck(t *testing.T) {
	t.Parallel()
	cert, key, _ := selfSigned(t)
	plain, unix := servetest.Start(t), servetest.StartUnix(t)
	secure := servetest.Start(t, "--tls-cert", cert, "--tls-key", key)
	_, port, _ := strings.Cut(plain.Addr, ":")
	for name, env := range map[string][]string{
		"TCP":         {"LASTEVENT_LISTEN=" + plain.Addr},
		"all of them": {"LASTEVENT_LISTEN=0.0.0.0:" + port},
		"unix":        {"LASTEVENT_LISTEN=" + unix.Addr},
		"TLS":         {"LASTEVENT_LISTEN=" + secure.Addr, "LASTEVENT_TLS_CERT=" + cert},
	} {
		if status, stderr := servetest.Run(t, t.TempDir(), env, "healthcheck"); status != 0 || stderr != "" {
			t.Errorf("%s: status %d, %q", name, status, stderr)
		}
	}
	plain.Stop()
	unix.Kill()
	for _, test := range []struct {
		status int
		args   []string
	}{
		{1, []string{"--listen", plain.Addr}},
		{1, []string{"--listen", unix.Addr}},
		{1, []string{"--listen", secure.Addr}}, // without TLS
		{2, []string{"--no-such"}},
		{2, []string{"extra"}},
	} {
		status, stderr := servetest.Run(t, t.TempDir(), nil, append([]string{"healthcheck"}, test.args...)...)
		if status != test.status || !strings.Contains(stderr, test.args[len(test.args)-1]) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: status %d, %q; want %d and a line that says why", test.args, status, stderr, test.status)
		}
	}
}
