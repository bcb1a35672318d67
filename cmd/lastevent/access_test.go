//go:build unix

package main_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"lastevent/cmd/lastevent/servetest"
)

// writeKeys writes a secret, a key and its public key, and returns the folder.
func writeKeys(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(typ string, der []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der})
	}
	privateDER, err := x509.MarshalPKCS8PrivateKey(private)
	privatePEM := encode("PRIVATE KEY", privateDER, err)
	publicDER, err := x509.MarshalPKIXPublicKey(public)
	for name, text := range map[string][]byte{
		"secret":     []byte(rand.Text() + rand.Text() + "\n"),
		"old-secret": []byte(rand.Text() + rand.Text()),
		"short":      []byte("too short to be a secret\n"),
		"key":        privatePEM,
		"key.pub":    encode("PUBLIC KEY", publicDER, err),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// mint has the program make a token.
func mint(t *testing.T, args ...string) (header string) {
	t.Helper()
	return "Bearer " + strings.TrimSpace(servetest.Output(t, append([]string{"token"}, args...)...))
}

// Who can reach the server from elsewhere needs a token, unless it is said that nobody
// does.
func TestNotOpenByAccident(t *testing.T) {
	t.Parallel()
	keys := writeKeys(t)
	for _, listen := range []string{":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[2001:db8::1]:0", "server.example:0", "[::ffff:192.0.2.1]:0"} {
		for _, env := range []string{"", "LASTEVENT_ANONYMOUS="} {
			dir := t.TempDir()
			status, stderr := servetest.Run(t, dir, []string{env}, "serve", "--listen", listen)
			if status != 2 || !strings.Contains(stderr, "--anonymous publish,subscribe") || !strings.Contains(stderr, listen) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("--listen %s: status %d, %q", listen, status, stderr)
			}
			if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
				t.Errorf("--listen %s: created %v, %v", listen, files, err)
			}
		}
	}
	for _, flags := range [][]string{
		{"--anonymous", "publish,subscribe"},
		{"--anonymous", "subscribe"},
		{"--jwt-secret-file", keys + "/secret"},
	} {
		// It is the address that is wrong, and not that it is nobody's own.
		status, stderr := servetest.Run(t, t.TempDir(), nil, append([]string{"serve", "--listen", "192.0.2.1:0"}, flags...)...)
		if status != 1 || !strings.Contains(stderr, "192.0.2.1") {
			t.Errorf("%q: status %d, %q", flags, status, stderr)
		}
	}
}

func TestWrongAccessFlags(t *testing.T) {
	t.Parallel()
	keys := writeKeys(t)
	secret := []string{"--jwt-secret-file", keys + "/secret"}
	jwks := []string{"--jwks-url", "https://id.example/keys", "--jwt-issuer", "x"}
	for _, test := range []struct {
		says  string
		flags []string
	}{
		{"--anonymous", []string{"--anonymous", "read"}},
		{"--anonymous", []string{"--anonymous", "publish,all"}},
		{"32", []string{"--jwt-secret-file", keys + "/short"}},
		{"--jwt-secret-file", []string{"--jwt-secret-file", keys + "/none"}},
		{"--jwt-secret-file", []string{"--jwt-secret-file", keys + "/key.pub"}},
		{"-pubout", []string{"--jwt-key-file", keys + "/key"}},
		{"--jwt-key-file", []string{"--jwt-key-file", keys + "/secret"}},
		{"--jwt-secret-file", []string{"--jwt-secret-file", ""}},
		{"--jwt-key-file", append(secret, "--jwt-key-file", "")},
		{"--jwks-url", append(secret, "--jwks-url", "")},
		{"--jwt-issuer", append(secret, "--jwt-issuer", "")},
		{"--jwks-url", []string{"--jwks-url", "id.example/keys"}},
		{"--jwks-url", []string{"--jwks-url", "file:///etc/keys", "--jwt-issuer", "x"}},
		{"--jwks-url", []string{"--jwks-url", "https://me:secret@id.example/keys", "--jwt-issuer", "x"}},
		{"--jwt-audience", jwks[:2]},
		{"--jwt-issuer", []string{"--jwt-issuer", "x"}},
		{"--jwt-audience", []string{"--jwt-audience", "x"}},
		{"--cookie", []string{"--cookie", "session"}},
		{"--cookie", append(secret, "--cookie", "a b")},
		{"--cookie", append(jwks, "--cookie", "a;b")},
		{"--cors-origin", append(secret, "--cors-origin", "*", "--cookie", "session")},
		{"--cors-origin", append(secret, "--cors-origin", "*", "--cors-origin", "https://app.example")},
		{"--anonymous", []string{"--cors-origin", "*"}},
		{"--cors-origin", []string{"--cors-origin", "app.example"}},
		{"--cors-origin", []string{"--cors-origin", "https://app.example/"}},
		{"--cors-origin", []string{"--cors-origin", "https://App.example"}},
		{"--cors-origin", []string{"--cors-origin", "https://app.example:443"}},
		{"--cors-origin", []string{"--cors-origin", "http://app.example:80"}},
		{"--cors-origin", []string{"--cors-origin", "https://*.example"}},
		{"--cors-origin", []string{"--cors-origin", "null"}},
		{"--cors-origin", []string{"--cors-origin", "ws://app.example"}},
		{"--cors-origin", []string{"--cors-origin", "https://me@app.example"}},
	} {
		dir := t.TempDir()
		status, stderr := servetest.Run(t, dir, nil, append([]string{"serve", "--listen", "127.0.0.1:0"}, test.flags...)...)
		if status != 2 || !strings.Contains(stderr, test.says) || strings.Count(stderr, "\n") != 1 || strings.Contains(stderr, "too short to be") {
			t.Errorf("%q: status %d, %q; want 2 and a line with %s", test.flags, status, stderr, test.says)
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
			t.Errorf("%q: created %v, %v", test.flags, files, err)
		}
	}
}

func TestWrongTokenFlags(t *testing.T) {
	t.Parallel()
	keys := writeKeys(t)
	for _, test := range []struct {
		says string
		args []string
	}{
		{"--publish", []string{"--secret-file", keys + "/secret"}},
		{"--secret-file", []string{"--publish", "x"}},
		{"--key-file", []string{"--publish", "x", "--secret-file", keys + "/secret", "--key-file", keys + "/key"}},
		{"openssl", []string{"--publish", "x", "--secret-file", keys + "/short"}},
		{"--key-file", []string{"--publish", "x", "--key-file", keys + "/key.pub"}},
		{"--subscribe", []string{"--subscribe", "rooms*", "--secret-file", keys + "/secret"}},
		{"--publish", []string{"--publish", "**/x", "--secret-file", keys + "/secret"}},
		{"--expires", []string{"--publish", "x", "--expires", "0", "--secret-file", keys + "/secret"}},
		{"--expires", []string{"--publish", "x", "--expires", "-1h", "--secret-file", keys + "/secret"}},
	} {
		status, stderr := servetest.Run(t, t.TempDir(), nil, append([]string{"token"}, test.args...)...)
		if status != 2 || !strings.Contains(stderr, test.says) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: status %d, %q; want 2 and a line with %s", test.args, status, stderr, test.says)
		}
	}
}

// The program takes the tokens that it makes, from secrets and keys that are both in use.
func TestTokens(t *testing.T) {
	t.Parallel()
	keys := writeKeys(t)
	s := servetest.Start(t, "--jwt-secret-file", keys+"/secret", "--jwt-secret-file", keys+"/old-secret",
		"--jwt-key-file", keys+"/key.pub", "--jwt-audience", "events", "--cookie", "session")
	foreign := writeKeys(t)
	grants := []string{"--publish", "rooms/*", "--subscribe", "**", "--audience", "events"}
	for _, signer := range [][]string{
		{"--secret-file", keys + "/secret"},
		{"--secret-file", keys + "/old-secret"},
		{"--key-file", keys + "/key"},
	} {
		token := mint(t, append(signer, grants...)...)
		for request, status := range map[string]int{
			"POST /sse/rooms/1": 201, "POST /sse/rooms/1/chat": 403, "POST /sse/news": 403, "GET /sse/news?follow=false": 200, "GET /sse": 200,
		} {
			method, path, _ := strings.Cut(request, " ")
			if a := s.Do(method, path, "x", "Authorization", token); a.Status != status {
				t.Errorf("%q: %s: %d %s", signer, request, a.Status, a.Body)
			}
		}
		session := "session=" + strings.TrimPrefix(token, "Bearer ")
		if a := s.Do("GET", "/sse/news?follow=false", "", "Cookie", session); a.Status != 200 {
			t.Errorf("%q in a cookie: %d", signer, a.Status)
		}
		s.CheckProblem(s.Do("POST", "/sse/rooms/1", "x", "Cookie", session), 403)
	}
	for _, args := range [][]string{
		append([]string{"--secret-file", foreign + "/secret"}, grants...),
		append([]string{"--key-file", foreign + "/key"}, grants...),
		{"--secret-file", keys + "/secret", "--publish", "**", "--subscribe", "**"}, // no audience
	} {
		token := mint(t, args...)
		s.CheckProblem(s.Do("POST", "/sse/rooms/1", "x", "Authorization", token), 401)
		s.CheckProblem(s.Do("GET", "/sse/rooms/1", "", "Authorization", token), 401)
	}
	s.CheckProblem(s.Do("GET", "/sse/rooms/1", ""), 401)
}

// The environment says as much as the flags.
func TestAccessFromEnvironment(t *testing.T) {
	t.Parallel()
	keys := writeKeys(t)
	for env, says := range map[string]string{
		"LASTEVENT_JWT_SECRET_FILE=" + keys + "/secret," + keys + "/short": "32",
		"LASTEVENT_JWT_KEY_FILE=" + keys + "/secret":                       "--jwt-key-file",
		"LASTEVENT_JWKS_URL=https://id.example/keys":                       "--jwt-issuer",
		"LASTEVENT_JWT_SECRET_FILE=":                                       "--jwt-secret-file",
		"LASTEVENT_JWKS_URL=":                                              "--jwks-url",
		"LASTEVENT_ANONYMOUS=publish,read":                                 `"read"`,
		"LASTEVENT_COOKIE=session":                                         "--cookie",
		"LASTEVENT_CORS_ORIGIN=https://a.example,null":                     `"null"`,
	} {
		status, stderr := servetest.Run(t, t.TempDir(), []string{env}, "serve", "--listen", "127.0.0.1:0")
		if status != 2 || !strings.Contains(stderr, says) {
			t.Errorf("%s: status %d, %q", env, status, stderr)
		}
	}
}

// Without keys, what is said is what all may do.
func TestAnonymous(t *testing.T) {
	t.Parallel()
	keys := writeKeys(t)
	for _, test := range []struct {
		flags              []string
		publish, subscribe int
	}{
		{nil, 201, 200},
		{[]string{"--anonymous", "publish,subscribe"}, 201, 200},
		{[]string{"--anonymous", "publish", "--anonymous", "subscribe"}, 201, 200},
		{[]string{"--anonymous", "subscribe"}, 401, 200},
		{[]string{"--anonymous", "publish"}, 201, 401},
		{[]string{"--jwt-key-file", keys + "/key.pub"}, 401, 401},
		{[]string{"--jwt-key-file", keys + "/key.pub", "--anonymous", "subscribe"}, 401, 200},
	} {
		s := servetest.Start(t, test.flags...)
		if got := s.Do("POST", "/sse/x", "x").Status; got != test.publish {
			t.Errorf("%q: publishing: %d", test.flags, got)
		}
		for _, path := range []string{"/sse/x?follow=false", "/sse"} {
			if got := s.Do("GET", path, "").Status; got != test.subscribe {
				t.Errorf("%q: GET %s: %d", test.flags, path, got)
			}
		}
		s.Stop()
	}
}

// An identity provider's keys are fetched, and fetched again when a token has a new one.
// When it is gone, the keys stay.
func TestIdentityProvider(t *testing.T) {
	t.Parallel()
	var set atomic.Pointer[jose.JSONWebKeySet]
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(set.Load())
	}))
	defer provider.Close()
	keys := map[string]ed25519.PrivateKey{}
	use := func(ids ...string) {
		now := new(jose.JSONWebKeySet)
		for _, id := range ids {
			if keys[id] == nil {
				_, keys[id], _ = ed25519.GenerateKey(rand.Reader)
			}
			now.Keys = append(now.Keys, jose.JSONWebKey{Key: keys[id].Public(), KeyID: id, Use: "sig", Algorithm: "EdDSA"})
		}
		set.Store(now)
	}
	token := func(id, issuer string) string {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: keys[id], KeyID: id}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := signer.Sign(fmt.Appendf(nil, `{"iss":%q,"exp":9000000000,"publish":["**"]}`, issuer))
		if err != nil {
			t.Fatal(err)
		}
		text, _ := signed.CompactSerialize() // it is one
		return "Bearer " + text
	}
	use("1")
	s := servetest.Start(t, "--jwks-url", provider.URL, "--jwt-issuer", "https://id.example")
	publish := func(token string) int { return s.Do("POST", "/sse/x", "x", "Authorization", token).Status }
	if got := publish(token("1", "https://id.example")); got != 201 {
		t.Errorf("the first key: %d", got)
	}
	if got := publish(token("1", "https://other.example")); got != 401 {
		t.Errorf("another issuer: %d", got)
	}
	use("1", "2")
	await(t, s, "the second key", func() bool { return publish(token("2", "https://id.example")) == 201 })
	provider.Close()
	for _, id := range []string{"1", "2"} {
		if got := publish(token(id, "https://id.example")); got != 201 {
			t.Errorf("key %s, when the provider is gone: %d", id, got)
		}
	}
	use("3")
	if got := publish(token("3", "https://id.example")); got != 401 {
		t.Errorf("a key that was never seen: %d", got)
	}
}
