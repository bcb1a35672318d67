package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/pflag"
)

// tlsFlags say where the server has its certificates from.
type tlsFlags struct {
	tlsCert, tlsKey string
	acmeFlags
}

func (f *tlsFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.tlsCert, "tls-cert", "", "`file` with the certificate, and those up to its root, in PEM; with --tls-key the server speaks TLS, and HTTP/2")
	flags.StringVar(&f.tlsKey, "tls-key", "", "`file` with the certificate's key in PEM; both are read again when they change")
	f.acmeFlags.add(flags)
}

func (f *tlsFlags) validate() error {
	if (f.tlsCert == "") != (f.tlsKey == "") {
		return errors.New("--tls-cert and --tls-key belong together; one of them is missing")
	}
	if f.tlsCert != "" && f.acmeHosts != nil {
		return errors.New("--acme-host and --tls-cert exclude each other: the certificate is from one of them")
	}
	return f.acmeFlags.validate()
}

// scheme is that of the server's URLs.
func (f *tlsFlags) scheme() string {
	if f.tlsCert != "" || f.acmeHosts != nil {
		return "https"
	}
	return "http"
}

// tlsConfig is nil where the server does not speak TLS.
func (f *tlsFlags) tlsConfig(db string, log zerolog.Logger) (*tls.Config, error) {
	switch {
	case f.tlsCert != "":
		cert, err := loadCertificate(f.tlsCert, f.tlsKey, log)
		if err != nil {
			return nil, err
		}
		return &tls.Config{GetCertificate: cert.get}, nil
	case f.acmeHosts != nil:
		return f.acmeFlags.config(db, log)
	}
	return nil, nil
}

// A certificate is read from two files, and again when they have changed: whoever
// renews it need not restart the server, which would cut all subscriptions.
type certificate struct {
	certFile, keyFile string
	log               zerolog.Logger

	mu        sync.Mutex // guards what follows
	current   *tls.Certificate
	cert, key []byte // the files that it is from
	checked   time.Time
}

// checkEvery is how often the files are looked at, at most.
const checkEvery = 10 * time.Second

// loadCertificate fails where the files are not there, or do not belong together.
func loadCertificate(certFile, keyFile string, log zerolog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	if err := c.loadLocked(); err != nil {
		return nil, fmt.Errorf("--tls-cert %s, --tls-key %s: %w", certFile, keyFile, err)
	}
	return c, nil
}

// loadLocked reads the files, and takes what they hold if that has changed.
func (c *certificate) loadLocked() error {
	cert, err := os.ReadFile(c.certFile)
	if err != nil {
		return err
	}
	key, err := os.ReadFile(c.keyFile)
	if err != nil {
		return err
	}
	if bytes.Equal(cert, c.cert) && bytes.Equal(key, c.key) {
		return nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return err
	}
	c.current, c.cert, c.key = &pair, cert, key
	return nil
}

// get returns the certificate for a connection. One that cannot be read, as when only
// one of the files is written yet, leaves the one before it in use.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.checked) >= checkEvery {
		c.checked = now
		if err := c.loadLocked(); err != nil {
			c.log.Warn().Err(err).Msg("the certificate cannot be read again; the one before it stays in use")
		}
	}
	return c.current, nil
}
