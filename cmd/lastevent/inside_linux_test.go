package main_test

import (
	"net"
	"strings"
	"testing"

	"lastevent/cmd/lastevent/servetest"
)

// Who opens the admin address to others is told what they get there.
func TestAdminAddressForOthers(t *testing.T) {
	t.Parallel()
	_, port, err := net.SplitHostPort(servetest.FreeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	for host, warned := range map[string]bool{"127.0.0.1": false, "0.0.0.0": true} {
		s := servetest.Start(t, "--admin-listen", net.JoinHostPort(host, port))
		if status, body := get(t, "127.0.0.1:"+port, "/healthz"); status != 200 {
			t.Errorf("%s: %d %s", host, status, body)
		}
		s.Terminate()
		s.Wait() // so all of the log is there
		if log := s.Log(); strings.Contains(log, "/backup") != warned {
			t.Errorf("%s: %s", host, log)
		}
	}
}
