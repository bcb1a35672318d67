package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/rs/zerolog"
	"github.com/spf13/pflag"

	"lastevent/web"
	"lastevent/web/access"
)

// accessFlags are the flags of serve that say who may do what.
type accessFlags struct {
	anonymous        []string
	secretFiles      []string
	keyFiles         []string
	jwksURL          string
	issuer, audience string
	cookie           string
	origins          []string

	flags *pflag.FlagSet
	keys  []access.Key // of the files
}

// What anonymous clients can be allowed.
const (
	anonymousPublish   = "publish"
	anonymousSubscribe = "subscribe"
)

func (f *accessFlags) add(flags *pflag.FlagSet) {
	f.flags = flags
	flags.StringSliceVar(&f.anonymous, "anonymous", nil, "`actions` that need no token: publish, subscribe or both; without this flag none if there are keys, and else all, which --listen then must keep to this machine")
	flags.StringSliceVar(&f.secretFiles, "jwt-secret-file", nil, "`file` with a secret of at least 32 bytes, as from openssl rand -hex 32; tokens signed with it by HS256 are valid; repeatable, as for a rotation")
	flags.StringSliceVar(&f.keyFiles, "jwt-key-file", nil, "`file` with a public key in PEM; tokens signed with its private key by RS256, ES256 or EdDSA, as the key is, are valid; repeatable")
	flags.StringVar(&f.jwksURL, "jwks-url", "", "`URL` of an identity provider's key set; tokens signed with its keys are valid")
	flags.StringVar(&f.issuer, "jwt-issuer", "", "`name` that tokens must have as iss")
	flags.StringVar(&f.audience, "jwt-audience", "", "`name` that tokens must have in aud; without it, they must have none")
	flags.StringVar(&f.cookie, "cookie", "", "`name` of a cookie that can hold the token, as an EventSource cannot send a header")
	flags.StringSliceVar(&f.origins, "cors-origin", nil, "`origin`, such as https://app.example, whose pages may use the server as its own may; repeatable; * is all, without cookies")
}

func (f *accessFlags) validate(listen string) error {
	for _, a := range f.anonymous {
		if a != anonymousPublish && a != anonymousSubscribe {
			return fmt.Errorf("--anonymous %q is neither publish nor subscribe", a)
		}
	}
	if err := f.validateTokens(); err != nil {
		return err
	}
	for _, o := range f.origins {
		if err := f.checkOrigin(o); err != nil {
			return fmt.Errorf("--cors-origin %q: %w", o, err)
		}
	}
	if f.limited() {
		return nil
	}
	if !local(listen) {
		return errOpen("--listen " + listen)
	}
	if slices.Contains(f.origins, "*") {
		return errors.New("--cors-origin * is for all pages, and none would need a token: give --jwt-secret-file, --jwt-key-file or --jwks-url, or --anonymous publish,subscribe if all may do all")
	}
	return nil
}

func errOpen(address string) error {
	return fmt.Errorf("%s is not only for this machine, and nobody would need a token: give --jwt-secret-file, --jwt-key-file or --jwks-url, or --anonymous publish,subscribe if all may do all", address)
}

// checkListeners is for the addresses that were not known before: a name's, and those of
// sockets that systemd passes.
func (f *accessFlags) checkListeners(listeners []net.Listener) error {
	for _, l := range listeners {
		if !f.limited() && !isLocal(l.Addr()) {
			return errOpen("the address " + l.Addr().String())
		}
	}
	return nil
}

// validateTokens checks what tokens are judged by, and reads the files.
func (f *accessFlags) validateTokens() error {
	if err := f.checkEmpty(); err != nil {
		return err
	}
	for _, files := range []struct {
		flag  string
		names []string
		read  func(string) (access.Key, error)
	}{
		{"--jwt-secret-file", f.secretFiles, access.ReadSecret},
		{"--jwt-key-file", f.keyFiles, access.ReadPublicKey},
	} {
		for _, name := range files.names {
			key, err := files.read(name)
			if err != nil {
				return fmt.Errorf("%s: %w", files.flag, err)
			}
			f.keys = append(f.keys, key)
		}
	}
	if !f.hasKeys() {
		for flag, value := range map[string]string{"--jwt-issuer": f.issuer, "--jwt-audience": f.audience, "--cookie": f.cookie} {
			if value != "" {
				return fmt.Errorf("%s is for tokens, and there is nothing to check them with: give --jwt-secret-file, --jwt-key-file or --jwks-url", flag)
			}
		}
	}
	if f.cookie != "" && (&http.Cookie{Name: f.cookie, Value: "x"}).Valid() != nil {
		return fmt.Errorf("--cookie %q is no name of a cookie", f.cookie)
	}
	if f.jwksURL == "" {
		return nil
	}
	u, err := url.Parse(f.jwksURL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return fmt.Errorf("--jwks-url %q is not of the form https://HOST/PATH", f.jwksURL)
	}
	if f.issuer == "" && f.audience == "" {
		return errors.New("--jwks-url needs --jwt-issuer or --jwt-audience, as its keys may sign tokens for others too")
	}
	return nil
}

// checkEmpty refuses what is given and says nothing: a variable that is empty by mistake
// must not let in everybody.
func (f *accessFlags) checkEmpty() error {
	return checkGiven(f.flags, "jwt-secret-file", "jwt-key-file", "jwks-url", "jwt-issuer")
}

// checkOrigin checks an origin as browsers send it.
func (f *accessFlags) checkOrigin(origin string) error {
	if origin == "*" {
		if len(f.origins) > 1 || f.cookie != "" {
			return errors.New("all origins cannot be allowed together with single ones, or with --cookie")
		}
		return nil
	}
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || strings.Contains(origin, "*") ||
		origin != u.Scheme+"://"+strings.ToLower(u.Host) || u.Port() == map[string]string{"https": "443", "http": "80"}[u.Scheme] {
		return errors.New("it is not an origin as browsers send it, such as https://app.example or http://localhost:3000: scheme, host in lower case, and port unless it is the usual one")
	}
	return nil
}

func (f *accessFlags) hasKeys() bool { return len(f.keys) > 0 || f.jwksURL != "" }

// limited reports whether it was said who may do what.
func (f *accessFlags) limited() bool { return f.hasKeys() || len(f.anonymous) > 0 }

// config begins to fetch the key set, if there is one.
func (f *accessFlags) config(log zerolog.Logger) web.Access {
	a := web.Access{Cookie: f.cookie, Origins: f.origins}
	publish, subscribe := slices.Contains(f.anonymous, anonymousPublish), slices.Contains(f.anonymous, anonymousSubscribe)
	if !f.limited() || publish && subscribe {
		return a
	}
	if u, err := url.Parse(f.jwksURL); err == nil && u.Scheme == "http" && !local(net.JoinHostPort(u.Hostname(), "80")) {
		log.Warn().Str("url", f.jwksURL).Msg("the key set comes without TLS: who is on its way can let in anybody")
	}
	if publish {
		a.Anonymous.Publish = access.All.Publish
	}
	if subscribe {
		a.Anonymous.Subscribe = access.All.Subscribe
	}
	a.Verifier = access.New(access.Config{Keys: f.keys, KeySetURL: f.jwksURL, Issuer: f.issuer, Audience: f.audience, Log: log})
	return a
}

// local reports whether only programs of this machine can reach a server that listens
// there.
func local(addr string) bool {
	if strings.HasPrefix(addr, unixPrefix) {
		return true
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	return strings.EqualFold(host, "localhost")
}
