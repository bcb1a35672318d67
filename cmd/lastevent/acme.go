package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/pflag"
	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// acmeFlags are for certificates by ACME (RFC 8555). That the server has a name it
// proves on its own TLS connections (TLS-ALPN-01, RFC 8737), so nothing else listens.
type acmeFlags struct {
	acmeHosts                           []string
	acmeCache, acmeEmail, acmeDirectory string
}

func (f *acmeFlags) add(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.acmeHosts, "acme-host", nil, "`name` for which the server gets its certificate from Let's Encrypt, whose terms you accept, and renews it; repeatable. Port 443 of that name must lead to --listen")
	flags.StringVar(&f.acmeCache, "acme-cache", "", "`folder` for keys and certificates by ACME (default: acme, beside --db, also where --store takes its place)")
	flags.StringVar(&f.acmeEmail, "acme-email", "", "`address` for word from the certificate authority")
	flags.StringVar(&f.acmeDirectory, "acme-directory", acme.LetsEncryptURL, "`URL` of another certificate authority's ACME directory")
}

func (f *acmeFlags) validate() error {
	if f.acmeHosts == nil {
		for _, unused := range []struct{ name, value string }{{"cache", f.acmeCache}, {"email", f.acmeEmail}, {"directory", f.acmeDirectory}} {
			if unused.value != "" && unused.value != acme.LetsEncryptURL {
				return fmt.Errorf("--acme-%s is of no use without --acme-host", unused.name)
			}
		}
		return nil
	}
	if len(f.acmeHosts) == 0 {
		return errors.New("--acme-host names no host")
	}
	for _, host := range f.acmeHosts {
		if _, err := netip.ParseAddr(host); err == nil || strings.ContainsAny(host, ":/*@ ") || !strings.Contains(strings.Trim(host, "."), ".") {
			return fmt.Errorf("--acme-host %q is not the whole name of a host, such as events.example.com", host)
		}
	}
	if u, err := url.Parse(f.acmeDirectory); err != nil || u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("--acme-directory %q is not a URL that begins with https://", f.acmeDirectory)
	}
	return nil
}

// config has each name's certificate got by the first connection that asks for it.
func (f *acmeFlags) config(db string, log zerolog.Logger) (*tls.Config, error) {
	cache := cmp.Or(f.acmeCache, filepath.Join(filepath.Dir(db), "acme"))
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return nil, fmt.Errorf("--acme-cache: %w", err)
	}
	manager := &autocert.Manager{
		Prompt:     autocert.AcceptTOS,
		Cache:      autocert.DirCache(cache),
		HostPolicy: autocert.HostWhitelist(f.acmeHosts...),
		Email:      f.acmeEmail,
		Client:     &acme.Client{DirectoryURL: f.acmeDirectory},
	}
	config := manager.TLSConfig()
	config.GetCertificate = f.logFailures(config.GetCertificate, log)
	return config, nil
}

// A getCertificate is that of a [tls.Config].
type getCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

// logFailures logs why there is no certificate for one of the names, once a minute at
// most: who connects is only told that there is none.
func (f *acmeFlags) logFailures(get getCertificate, log zerolog.Logger) getCertificate {
	var mu sync.Mutex
	var logged time.Time
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := get(hello)
		ours := slices.ContainsFunc(f.acmeHosts, func(host string) bool { return strings.EqualFold(host, hello.ServerName) })
		if err == nil || !ours {
			return cert, err
		}
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.Sub(logged) >= time.Minute {
			logged = now
			log.Warn().Err(err).Str("host", hello.ServerName).Msg("there is no certificate; port 443 of this name must lead here")
		}
		return nil, err
	}
}
