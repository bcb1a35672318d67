//go:build unix

package main

import (
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Of those that start together in the place of one that is dead, one listens.
func TestListenTogether(t *testing.T) {
	dir, err := os.MkdirTemp("", "") // a short one, as sockets need
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "x.sock")
	for range 100 {
		dead, err := listenUnix(path, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		dead.(*net.UnixListener).SetUnlinkOnClose(false)
		dead.Close()
		var listeners [4]net.Listener
		var wg sync.WaitGroup
		for i := range listeners {
			wg.Go(func() { listeners[i], _ = listenUnix(path, 0o600) })
		}
		wg.Wait()
		listening := 0
		for _, l := range listeners {
			if l != nil {
				listening++
				defer l.Close()
			}
		}
		conn, err := net.Dial("unix", path)
		if err != nil || listening != 1 {
			t.Fatalf("%d listen, %v", listening, err)
		}
		conn.Close()
		for _, l := range listeners {
			if l != nil {
				l.Close()
			}
		}
	}
}

func TestIsLocal(t *testing.T) {
	for _, test := range []struct {
		addr net.Addr
		want bool
	}{
		{&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, true},
		{&net.TCPAddr{IP: net.IPv4(127, 9, 9, 9)}, true},
		{&net.TCPAddr{IP: net.IPv6loopback}, true},
		{&net.UnixAddr{Net: "unix", Name: "/run/x.sock"}, true},
		{&net.TCPAddr{IP: net.IPv4zero}, false},
		{&net.TCPAddr{IP: net.IPv6zero}, false},
		{&net.TCPAddr{}, false},
		{&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}, false},
	} {
		if got := isLocal(test.addr); got != test.want {
			t.Errorf("%v: %v, want %v", test.addr, got, test.want)
		}
	}
}

// A socket that was passed is open to others only where it was said who may do what.
func TestPassedListenersNeedKeys(t *testing.T) {
	for _, test := range []struct {
		addr   string
		access accessFlags
		served bool
	}{
		{"127.0.0.1:0", accessFlags{}, true},
		{"0.0.0.0:0", accessFlags{}, false},
		{"0.0.0.0:0", accessFlags{anonymous: []string{anonymousSubscribe}}, true},
		{"0.0.0.0:0", accessFlags{jwksURL: "https://id.example/keys"}, true},
	} {
		l, err := net.Listen("tcp4", test.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := test.access.checkListeners([]net.Listener{l}); (err == nil) != test.served {
			t.Errorf("%s: %v", test.addr, err)
		}
	}
}
