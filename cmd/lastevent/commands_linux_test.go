package main_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lastevent/cmd/lastevent/internal/selfsigned"
	"lastevent/cmd/lastevent/servetest"
)

// The commands that call a server do so over TLS and HTTP/2, and do not go on where its
// certificate is not to be trusted.
func TestCommandsOverTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := selfsigned.Write(cert, key); err != nil {
		t.Fatal(err)
	}
	s := servetest.Start(t, "--tls-cert", cert, "--tls-key", key, "--time-every", "15ms")
	run := func(env string, args ...string) (string, error) {
		cmd := exec.CommandContext(s.Ctx, servetest.Program(t), args...)
		cmd.Dir, cmd.Env = dir, []string{env, "LASTEVENT_URL=" + s.URL}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	trusted := "SSL_CERT_FILE=" + cert
	for _, test := range []struct{ args, want string }{
		{"publish x hello", `{"id":1,"count":1}`},
		{"tail --from earliest --limit 1 x", "hello"},
		{"doctor --idle 0s " + s.URL, "HTTP/2.0: all tabs"},
		{"doctor --idle 0s " + s.URL, "ok       cut"},
	} {
		if out, err := run(trusted, strings.Fields(test.args)...); err != nil || !strings.Contains(out, test.want) {
			t.Errorf("%s: %v\n%s", test.args, err, out)
		}
		if out, err := run("", strings.Fields(test.args)...); err == nil || !strings.Contains(out, "certificate signed by unknown authority") {
			t.Errorf("%s, untrusted: %v\n%s", test.args, err, out)
		}
	}
}
