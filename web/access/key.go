package access

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/go-jose/go-jose/v4"
)

const (
	minSecret  = 32   // bytes, as of the hash (RFC 7518, section 3.2)
	minRSA     = 2048 // bits (section 3.3)
	maxKeyFile = 1 << 20
)

// A Key checks tokens, or signs them, with the one algorithm that is its own.
type Key struct {
	algorithm jose.SignatureAlgorithm
	id        string // in a key set; may be empty
	key       any
}

// algorithms are those of all keys that there can be.
var algorithms = []jose.SignatureAlgorithm{jose.HS256, jose.RS256, jose.ES256, jose.EdDSA}

// ReadSecret reads the secret of HS256: all of the file, of at least 32 bytes, but for a
// line end at its end.
func ReadSecret(file string) (Key, error) {
	secret, err := readFile(file)
	if err != nil {
		return Key{}, err
	}
	secret = bytes.TrimSuffix(bytes.TrimSuffix(secret, []byte("\n")), []byte("\r"))
	if bytes.Contains(secret, []byte("-----BEGIN ")) {
		return Key{}, fmt.Errorf("%s holds a key in PEM and not a secret", file)
	}
	if len(secret) < minSecret {
		return Key{}, fmt.Errorf("the secret in %s has %d bytes; it must have at least %d, as from: openssl rand -hex 32", file, len(secret), minSecret)
	}
	return Key{algorithm: jose.HS256, key: secret}, nil
}

// ReadPublicKey reads a public key in PEM, of RSA (RS256), P-256 (ES256) or Ed25519
// (EdDSA).
func ReadPublicKey(file string) (Key, error) {
	block, err := readPEM(file)
	if err != nil {
		return Key{}, err
	}
	if block.Type != "PUBLIC KEY" {
		return Key{}, fmt.Errorf("%s holds a %s and not a PUBLIC KEY; openssl pkey -in KEY -pubout makes one of a private key", file, block.Type)
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return Key{}, fmt.Errorf("%s: %w", file, err)
	}
	key, err := publicKey(public)
	if err != nil {
		return Key{}, fmt.Errorf("%s: %w", file, err)
	}
	return key, nil
}

// ReadPrivateKey reads a private key in PEM (PKCS #8), of the same kinds, to sign with.
func ReadPrivateKey(file string) (Key, error) {
	block, err := readPEM(file)
	if err != nil {
		return Key{}, err
	}
	if block.Type != "PRIVATE KEY" {
		return Key{}, fmt.Errorf("%s holds a %s and not a PRIVATE KEY, as from: openssl genpkey -algorithm ed25519", file, block.Type)
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return Key{}, fmt.Errorf("%s: %w", file, err)
	}
	var public any
	switch private := private.(type) {
	case *rsa.PrivateKey:
		public = &private.PublicKey
	case *ecdsa.PrivateKey:
		public = &private.PublicKey
	case ed25519.PrivateKey:
		public = private.Public()
	}
	key, err := publicKey(public)
	if err != nil {
		return Key{}, fmt.Errorf("%s: %w", file, err)
	}
	key.key = private
	return key, nil
}

// publicKey binds a public key to the algorithm of its kind.
func publicKey(public any) (Key, error) {
	switch public := public.(type) {
	case *rsa.PublicKey:
		if public.N.BitLen() < minRSA {
			return Key{}, fmt.Errorf("the RSA key has %d bits; it must have at least %d", public.N.BitLen(), minRSA)
		}
		return Key{algorithm: jose.RS256, key: public}, nil
	case *ecdsa.PublicKey:
		if public.Curve == elliptic.P256() {
			return Key{algorithm: jose.ES256, key: public}, nil
		}
	case ed25519.PublicKey:
		return Key{algorithm: jose.EdDSA, key: public}, nil
	}
	return Key{}, errors.New("the key is none of RSA, P-256 and Ed25519")
}

func readPEM(file string) (*pem.Block, error) {
	text, err := readFile(file)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(text)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%s does not hold one key in PEM", file)
	}
	return block, nil
}

// readFile reads a file that may be a pipe, but not one without end.
func readFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := readAll(f, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return text, nil
}
