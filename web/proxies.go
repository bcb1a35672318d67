package web

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// TrustedProxies are those whose X-Forwarded-For tells whom a request is from.
type TrustedProxies struct {
	addresses []netip.Prefix
	unix      bool
}

// Add adds an address, a CIDR, or "unix": all that comes by a Unix socket.
func (t *TrustedProxies) Add(proxy string) error {
	if proxy == "unix" {
		t.unix = true
		return nil
	}
	prefix, err := netip.ParsePrefix(proxy)
	if err != nil {
		addr, addrErr := netip.ParseAddr(proxy)
		if addrErr != nil || addr.Zone() != "" {
			return fmt.Errorf("%q is no address, no CIDR such as 10.0.0.0/8, and not unix", proxy)
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	t.addresses = append(t.addresses, prefix)
	return nil
}

// handler has a request's RemoteAddr be that of the client, where a trusted proxy tells
// it: without a port.
func (t *TrustedProxies) handler(next http.Handler) http.Handler {
	if !t.unix && t.addresses == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if addr := t.client(r); addr != r.RemoteAddr {
			from := *r
			from.RemoteAddr = addr
			r = &from
		}
		next.ServeHTTP(w, r)
	})
}

// client is the last address in the way of the request that is not a trusted proxy's:
// what came before it may be made up. X-Forwarded-For holds the way, but for its last.
func (t *TrustedProxies) client(r *http.Request) string {
	ip, ok := parseAddress(r.RemoteAddr)
	if ok && !t.trusts(ip) || !ok && !t.unix {
		return r.RemoteAddr
	}
	client := r.RemoteAddr
	way := strings.Join(r.Header.Values("X-Forwarded-For"), ",")
	for more := way != ""; more; {
		hop := way
		i := strings.LastIndexByte(way, ',')
		if more = i >= 0; more {
			way, hop = way[:i], way[i+1:]
		}
		ip, ok := parseAddress(strings.TrimSpace(hop))
		if !ok {
			break
		}
		client = ip.String()
		if !t.trusts(ip) {
			break
		}
	}
	return client
}

func (t *TrustedProxies) trusts(ip netip.Addr) bool {
	for _, prefix := range t.addresses {
		if prefix.Contains(ip) {
			return true
		}
	}
	return false
}

// parseAddress reads an IP address, with a port or without.
func parseAddress(addr string) (netip.Addr, bool) {
	ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(addr, "["), "]"))
	if err != nil {
		withPort, portErr := netip.ParseAddrPort(addr)
		ip, err = withPort.Addr(), portErr
	}
	return ip.Unmap().WithZone(""), err == nil
}
