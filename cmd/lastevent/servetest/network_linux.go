package servetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A Network is a link between a host for the server and one for its clients, each of
// them a network namespace of its own.
type Network struct {
	Addr string // of the server

	t      *testing.T
	server string // the namespaces' names
	client string
}

// StartNetwork makes a network that lasts as long as the test, whose goroutine is on
// the server's host from now on. It skips the test where the machine does not allow
// that.
func StartNetwork(t *testing.T) *Network {
	t.Helper()
	for _, tool := range []string{"ip", "tc", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s, of the packages iproute2 and nftables", tool)
		}
	}
	name := fmt.Sprint("lastevent-", os.Getpid())
	n := &Network{Addr: "10.99.0.1:8080", t: t, server: name + "-s", client: name + "-c"}
	t.Cleanup(func() {
		for _, host := range []string{n.server, n.client} {
			_ = exec.Command("ip", "netns", "del", host).Run() // it may not be there
		}
	})
	for _, host := range []string{n.server, n.client} {
		if out, err := exec.Command("ip", "netns", "add", host).CombinedOutput(); err != nil {
			t.Skipf("needs network namespaces, which root can make: %s", out)
		}
	}
	n.run("ip", "link", "add", "link0", "netns", n.server, "type", "veth", "peer", "name", "link0", "netns", n.client)
	for host, addr := range map[string]string{n.server: "10.99.0.1/24", n.client: "10.99.0.2/24"} {
		n.run("ip", "-n", host, "addr", "add", addr, "dev", "link0")
		n.run("ip", "-n", host, "link", "set", "link0", "up")
		n.run("ip", "netns", "exec", host, "nft", "add table inet bad; add chain inet bad in { type filter hook input priority 0; }")
	}
	runtime.LockOSThread() // for good: the thread ends with the test's goroutine
	if err := enter(n.server); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *Network) run(args ...string) {
	n.t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		n.t.Fatalf("%s: %v, %s", strings.Join(args, " "), err, out)
	}
}

// enter takes the thread to a host.
func enter(host string) error {
	ns, err := os.Open("/run/netns/" + host)
	if err != nil {
		return err
	}
	defer ns.Close()
	return os.NewSyscallError("setns", unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET))
}

// Dial connects from the clients' host.
func (n *Network) Dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err = enter(n.client); err == nil {
			conn, err = new(net.Dialer).DialContext(ctx, network, addr)
		}
	}()
	<-done
	return conn, err
}

// Drop makes so many packets in a hundred get lost, either way.
func (n *Network) Drop(percent int) {
	n.t.Helper()
	for _, host := range []string{n.server, n.client} {
		n.run("ip", "netns", "exec", host, "nft", fmt.Sprintf("add rule inet bad in numgen random mod 100 < %d counter drop", percent))
	}
}

// Limit limits what the link carries, each way.
func (n *Network) Limit(bitsPerSecond int) {
	n.t.Helper()
	for _, host := range []string{n.server, n.client} {
		n.run("tc", "-n", host, "qdisc", "add", "dev", "link0", "root", "tbf", "rate", fmt.Sprint(bitsPerSecond), "burst", "16kb", "latency", "200ms")
	}
}

// Cut takes the link down, or up again.
func (n *Network) Cut(down bool) {
	n.t.Helper()
	state := "up"
	if down {
		state = "down"
	}
	n.run("ip", "-n", n.client, "link", "set", "link0", state)
}

// Dropped is how many packets got lost by Drop.
func (n *Network) Dropped() (packets int, err error) {
	for _, host := range []string{n.server, n.client} {
		out, listErr := exec.Command("ip", "netns", "exec", host, "nft", "list", "ruleset").Output()
		k := 0
		if i := strings.Index(string(out), "packets "); i >= 0 {
			_, scanErr := fmt.Sscanf(string(out[i:]), "packets %d", &k)
			listErr = errors.Join(listErr, scanErr)
		}
		packets += k
		err = errors.Join(err, listErr)
	}
	return packets, err
}
