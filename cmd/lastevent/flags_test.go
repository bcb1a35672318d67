//go:build unix

package main_test

import (
	"os"
	"strings"
	"testing"

	"lastevent/cmd/lastevent/servetest"
)

func TestWrongFlagsCreateNothing(t *testing.T) {
	t.Parallel()
	const listen = "--listen=127.0.0.1:0"
	for _, test := range []struct {
		named string // in the message
		env   string
		args  []string
	}{
		{"--listen", "", []string{"--listen", "nonsense"}},
		{"--listen", "", []string{"--listen", "127.0.0.1:99999"}},
		{"--listen", "", []string{"--listen", "unix:"}},
		{"--listen", "", []string{"--listen", "unix:@abstract"}},
		{"--listen", "", []string{"--listen", "unix:/" + strings.Repeat("long", 26)}},
		{"--socket-mode", "", []string{listen, "--socket-mode", "rw"}},
		{"--socket-mode", "", []string{listen, "--socket-mode", "1777"}},
		{"--db", "", []string{listen, "--db", ""}},
		{"--store", "", []string{listen, "--store", ""}},
		{"--store", "", []string{listen, "--store", "http://localhost:4222"}},
		{"--store", "", []string{listen, "--store", "nats://localhost:4222/a.b"}},
		{"--store", "", []string{listen, "--store", "nats://localhost:4222?replicas=none"}},
		{"--db and --store", "", []string{listen, "--store", "nats://localhost:4222", "--db", "x.db"}},
		{"--db and --store", "LASTEVENT_STORE=nats://localhost:4222", []string{listen, "--db", "x.db"}},
		{"--to", "", []string{"copy"}},
		{"--to", "", []string{"copy", "--to", "localhost:4222"}},
		{"--db", "", []string{"copy", "--db", "", "--to", "nats://localhost:4222"}},
		{"copy", "", []string{"copy", "--to", "nats://localhost:4222", "lastevent.db"}},
		{"--time-every", "", []string{listen, "--time-every", "soon"}},
		{"--time-every", "", []string{listen, "--time-every", "-15ms"}},
		{"--time-every", "", []string{listen, "--time-every", "1us"}},
		{"--retain-events", "", []string{listen, "--retain-events", "-1"}},
		{"--retain-bytes", "", []string{listen, "--retain-bytes", "much"}},
		{"--retain-bytes", "", []string{listen, "--retain-bytes", "-1"}},
		{"--retain-age", "", []string{listen, "--retain-age", "-1s"}},
		{"--heartbeat", "", []string{listen, "--heartbeat", "0"}},
		{"--retry", "", []string{"serve", listen, "--retry", "-1s"}},
		{"--admin-listen", "", []string{listen, "--admin-listen", "nonsense"}},
		{"--metrics-stream", "", []string{listen, "--metrics-stream", "a//b"}},
		{"--pprof", "", []string{listen, "--pprof=perhaps"}},
		{"--no-such", "", []string{listen, "--no-such"}},
		{"extra", "", []string{"serve", listen, "extra"}},
		{"LASTEVENT_LISTEN", "LASTEVENT_LISTEN=nonsense", nil},
		{"LASTEVENT_STORE", "LASTEVENT_STORE=nonsense", []string{listen}},
		{"LASTEVENT_STORE", "LASTEVENT_STORE=", []string{listen}},
		{"LASTEVENT_TO", "LASTEVENT_TO=nonsense", []string{"copy"}},
		{"LASTEVENT_RETAIN_AGE", "LASTEVENT_RETAIN_AGE=old", []string{listen}},
		{"LASTEVENT_RETAIN_AGE", "LASTEVENT_RETAIN_AGE=-1s", []string{listen}},
		{"LASTEVENT_RETAIN_BYTES", "LASTEVENT_RETAIN_BYTES=64XB", []string{"serve", listen}},
	} {
		dir := t.TempDir()
		status, stderr := servetest.Run(t, dir, []string{test.env}, test.args...)
		flag := "--" + strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(test.named, "LASTEVENT_"), "_", "-"))
		named := strings.Contains(stderr, test.named) || test.env != "" && strings.Contains(stderr, flag)
		if status != 2 || !named || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s %q: status %d, %q; want 2 and a line that names %s", test.env, test.args, status, stderr, test.named)
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
			t.Errorf("%s %q: created %v, %v", test.env, test.args, files, err)
		}
	}
}
