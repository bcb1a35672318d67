package main_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

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

// What is not written out yet is not in the state.
func TestStateIsBehindTheOutput(t *testing.T) {
	t.Parallel()
	const events, size, room = 200, 100, 4096
	s := servetest.Start(t)
	s.MustPost("/sse/x", servetest.Lines(slices.Repeat([]servetest.Event{{Data: strings.Repeat("x", size-1)}}, events)...),
		"Content-Type", "application/x-ndjson")
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := unix.FcntlInt(in.Fd(), unix.F_SETPIPE_SZ, room); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(t.TempDir(), "state")
	tail := exec.CommandContext(s.Ctx, servetest.Program(t), "tail", "--url", s.URL, "--from", "earliest", "--state", state, "x")
	tail.Stdout = in
	if err := tail.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	_, err = out.Read(make([]byte, 1)) // it has begun to write
	_ = tail.Process.Kill()
	_ = tail.Wait()
	text, readErr := os.ReadFile(state)
	var kept struct{ ID string }
	jsonErr := json.Unmarshal(text, &kept)
	id, idErr := strconv.Atoi(kept.ID)
	if err := errors.Join(err, readErr, jsonErr, idErr); err != nil || id*size > room+1 {
		t.Errorf("%d events of %d bytes are kept as written out, with room for %d; %v", id, size, room, err)
	}
}
