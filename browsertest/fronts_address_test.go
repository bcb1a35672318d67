//go:build linux

package browsertest

import (
	"testing"

	"lastevent/cmd/lastevent/servetest"
)

// Each proxy tells whom requests are from: that is then in the log, without a port.
func TestProxiesTellTheAddress(t *testing.T) {
	t.Parallel()
	for _, f := range fronts {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			s := servetest.Start(t, "--allow-host", host, "--trusted-proxy", "127.0.0.1,::1", "--log-level", "debug")
			client := &servetest.Follower{Client: named(), URL: "http://" + f.start(t, s.Addr, false) + "/sse/s"}
			sub, err := client.Subscribe(s.Ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer sub.Drop()
			if err := client.Read(sub, func() bool { return !client.Began }); err != nil {
				t.Fatal(err)
			}
			s.AwaitLog(`"addr":"127.0.0.1",`)
		})
	}
}
