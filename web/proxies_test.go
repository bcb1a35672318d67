package web_test

import (
	"net/http"
	"strings"
	"testing"

	"lastevent/web"
)

func TestTrustedProxies(t *testing.T) {
	for _, test := range []struct {
		trusted string
		peer    string
		header  []string
		want    string
	}{
		{"", "198.51.100.1:99", []string{"203.0.113.1"}, "198.51.100.1:99"},
		{"10.0.0.0/8", "198.51.100.1:99", []string{"203.0.113.1"}, "198.51.100.1:99"},
		{"10.0.0.0/8", "10.1.2.3:99", nil, "10.1.2.3:99"},
		{"10.0.0.0/8", "10.1.2.3:99", []string{""}, "10.1.2.3:99"},
		{"10.0.0.0/8", "10.1.2.3:99", []string{"203.0.113.1"}, "203.0.113.1"},
		{"10.0.0.0/8", "10.1.2.3:99", []string{"made-up, 1.1.1.1, 203.0.113.1"}, "203.0.113.1"},
		{"10.0.0.0/8", "10.1.2.3:99", []string{"1.1.1.1", "203.0.113.1"}, "203.0.113.1"},
		{"10.0.0.0/8", "10.1.2.3:99", []string{"1.1.1.1,203.0.113.1 ,\t10.9.9.9"}, "203.0.113.1"},
		{"10.0.0.0/8", "10.1.2.3:99", []string{"1.1.1.1, 203.0.113.1, 10.9.9.9, nonsense"}, "10.1.2.3:99"},
		{"10.0.0.0/8", "10.1.2.3:99", []string{"203.0.113.1, nonsense, 10.9.9.9"}, "10.9.9.9"},
		{"10.0.0.0/8", "10.1.2.3:99", []string{"203.0.113.1,"}, "10.1.2.3:99"},
		{"10.0.0.0/8", "10.1.2.3:99", []string{"10.3.3.3, 10.2.2.2"}, "10.3.3.3"},
		{"10.0.0.0/8", "[::ffff:10.1.2.3]:99", []string{"[2001:db8::1]:443"}, "2001:db8::1"},
		{"10.0.0.0/8", "10.1.2.3:99", []string{"203.0.113.1:1234"}, "203.0.113.1"},
		{"10.0.0.0/8", "10.1.2.3:99", []string{"fe80::1%eth0"}, "fe80::1"},
		{"10.1.2.3 192.0.2.1", "192.0.2.1:99", []string{"203.0.113.1, 10.1.2.3"}, "203.0.113.1"},
		{"2001:db8::/32", "[2001:db8::9]:99", []string{"203.0.113.1"}, "203.0.113.1"},
		{"unix", "@", []string{"203.0.113.1"}, "203.0.113.1"},
		{"unix", "", []string{"203.0.113.1"}, "203.0.113.1"},
		{"unix", "127.0.0.1:99", []string{"203.0.113.1"}, "127.0.0.1:99"},
		{"10.0.0.0/8", "@", []string{"203.0.113.1"}, "@"},
	} {
		var proxies web.TrustedProxies
		for _, proxy := range strings.Fields(test.trusted) {
			if err := proxies.Add(proxy); err != nil {
				t.Fatal(err)
			}
		}
		r := &http.Request{RemoteAddr: test.peer, Header: http.Header{"X-Forwarded-For": test.header}}
		if got := proxies.Client(r); got != test.want {
			t.Errorf("%q trusted, from %s by %q: %s, want %s", test.trusted, test.peer, test.header, got, test.want)
		}
	}
}

func TestNoTrustedProxy(t *testing.T) {
	for _, proxy := range []string{"", "nonsense", "10.0.0.0/33", "localhost", "fe80::1%eth0", "10.0.0.1:80"} {
		if err := new(web.TrustedProxies).Add(proxy); err == nil {
			t.Errorf("%q is taken", proxy)
		}
	}
}
