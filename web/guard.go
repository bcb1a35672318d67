package web

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// guard keeps web pages of other origins from what they must not do to a server
// that their visitor can reach: publish to it, or read from it. Those of the origins may.
func (s *Server) guard(origins []string, next http.Handler) (http.Handler, error) {
	next, err := protectOrigin(origins, next)
	if err != nil {
		return nil, err
	}
	if len(origins) > 0 {
		next = allowOrigins(origins, next)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
		if onLoopback(r) && !s.hostAllowed(r.Host) {
			problem(w, http.StatusForbidden, "this server is for its own machine and is not called "+r.Host+"; --allow-host allows a name")
			return
		}
		next.ServeHTTP(w, r)
	}), nil
}

// onLoopback reports whether the request came in on a loopback address. There a
// name that is not the machine's own may be an attacker's that resolves to it (DNS
// rebinding), by which a page gets the server into its own origin. No page reaches a
// unix socket but through a proxy, which has its own names.
func onLoopback(r *http.Request) bool {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && addr.IP.IsLoopback()
}

// hostAllowed judges a Host header. A browser always sends one.
func (s *Server) hostAllowed(host string) bool {
	return isLocalHost(host) || slices.ContainsFunc(s.config.AllowHosts, func(h string) bool { return strings.EqualFold(h, hostName(host)) })
}

// isLocalHost reports whether a Host header is a name that the machine has for itself.
func isLocalHost(host string) bool {
	host = hostName(host)
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	return host == "" || host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// hostName is a Host header without its port.
func hostName(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

// checkCuts refuses a request for events over HTTP/1.0 on a unix socket: a cut is a
// reset there, which such a socket does not have, so it would look like an end.
func checkCuts(r *http.Request) error {
	_, unix := r.Context().Value(http.LocalAddrContextKey).(*net.UnixAddr)
	if unix && !r.ProtoAtLeast(1, 1) {
		return &refusal{http.StatusHTTPVersionNotSupported, "on a unix socket events need HTTP/1.1; in nginx: proxy_http_version 1.1"}
	}
	return nil
}
