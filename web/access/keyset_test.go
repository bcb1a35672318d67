package access_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/rs/zerolog"

	"lastevent/web/access"
)

// fetchTimeout is how long a fetch lasts at most.
const fetchTimeout = 5 * time.Second

// A provider has a key set at its URL, as a network of the test's own.
type provider struct {
	takes time.Duration // an answer

	mu      sync.Mutex // guards what follows
	answer  func() (status int, body string)
	fetches int
}

func (p *provider) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	p.fetches++
	status, body := p.answer()
	p.mu.Unlock()
	if status == 302 && r.URL.Host == "elsewhere.example" {
		status = 200
	}
	select {
	case <-time.After(p.takes):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if status == 0 {
		return nil, errors.New("the network is down")
	}
	header := http.Header{"Location": {"https://elsewhere.example/keys"}}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func (p *provider) has(status int, body string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = func() (int, string) { return status, body }
}

func (p *provider) fetched() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fetches
}

// keySet is a set of public keys, by their IDs in turn.
func keySet(keysAndIDs ...any) string {
	var set jose.JSONWebKeySet
	for pair := range slices.Chunk(keysAndIDs, 2) {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: pair[0], KeyID: pair[1].(string), Use: "sig"})
	}
	return string(must(json.Marshal(set)))
}

// withProvider runs a test in a bubble, with a verifier of the provider's keys.
func withProvider(t *testing.T, p *provider, test func(t *testing.T, verify func(token string) error)) {
	synctest.Test(t, func(t *testing.T) {
		v := access.NewOver(p, access.Config{KeySetURL: "https://id.example/keys", Log: zerolog.Nop()})
		test(t, func(token string) error {
			_, err := v.Verify(t.Context(), token)
			return err
		})
		time.Sleep(fetchTimeout) // of the last fetch
	})
}

func TestKeySet(t *testing.T) {
	p := &provider{takes: time.Second}
	p.has(200, keySet(rsaKey().Public(), "r", ecKey().Public(), "e", ed25519Key().Public(), ""))
	withProvider(t, p, func(t *testing.T, verify func(string) error) {
		for name, test := range map[string]struct {
			token string
			want  error
		}{
			"RSA":                  {signed(jose.RS256, rsaKey(), "r", claims("")), nil},
			"P-256":                {signed(jose.ES256, ecKey(), "e", claims("")), nil},
			"a key without kid":    {signed(jose.EdDSA, ed25519Key(), "any", claims("")), nil},
			"without kid":          {signed(jose.RS256, rsaKey(), "", claims("")), nil},
			"another's kid":        {signed(jose.RS256, rsaKey(), "e", claims("")), access.ErrInvalid},
			"another algorithm":    {signed(jose.RS512, rsaKey(), "r", claims("")), access.ErrInvalid},
			"another's key":        {signed(jose.EdDSA, newEd25519(), "r", claims("")), access.ErrInvalid},
			"HS256 of the modulus": {signed(jose.HS256, rsaKey().N.Bytes(), "r", claims("")), access.ErrInvalid},
		} {
			if err := verify(test.token); !errors.Is(err, test.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n := p.fetched(); n > 2 {
			t.Errorf("fetched %d times", n)
		}
	})
}

// What is in a set beside keys to check with is left out.
func TestForeignKeys(t *testing.T) {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: rsaKey().Public(), KeyID: "r", Use: "enc"},
		{Key: ecKey().Public(), KeyID: "e", Algorithm: "ES384"},
		{Key: []byte(secret), KeyID: "s"},
		{Key: newEd25519(), KeyID: "private"},
		{Key: ed25519Key().Public(), KeyID: "d", Algorithm: "EdDSA", Use: "sig"},
	}}
	text := strings.Replace(string(must(json.Marshal(set))), `{"keys":[`, `{"keys":[{"kty":"new"},7,{"kty":"RSA","n":"","e":""},`, 1)
	p := &provider{}
	p.has(200, text)
	withProvider(t, p, func(t *testing.T, verify func(string) error) {
		for id, token := range map[string]string{
			"r": signed(jose.RS256, rsaKey(), "r", claims("")),
			"e": signed(jose.ES256, ecKey(), "e", claims("")),
			"s": signed(jose.HS256, []byte(secret), "s", claims("")),
		} {
			if err := verify(token); !errors.Is(err, access.ErrInvalid) {
				t.Errorf("%s: %v", id, err)
			}
		}
		if err := verify(signed(jose.EdDSA, ed25519Key(), "d", claims(""))); err != nil {
			t.Error(err)
		}
	})
}

// A new key is fetched when a token has it, and an old one is forgotten; but however many
// tokens come of unknown keys, the set is fetched rarely, and by one at a time.
func TestRotation(t *testing.T) {
	before, after := newEd25519(), newEd25519()
	p := &provider{takes: time.Second}
	p.has(200, keySet(before.Public(), "1"))
	withProvider(t, p, func(t *testing.T, verify func(string) error) {
		old, young := signed(jose.EdDSA, before, "1", claims("")), signed(jose.EdDSA, after, "2", claims(""))
		if err := verify(old); err != nil || p.fetched() != 1 {
			t.Fatalf("%v, fetched %d times", err, p.fetched())
		}
		time.Sleep(time.Minute)
		p.has(200, keySet(before.Public(), "1", after.Public(), "2"))
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if err := verify(young); err != nil {
					t.Errorf("the new key: %v", err)
				}
			})
		}
		all.Wait()
		if n := p.fetched(); n != 2 {
			t.Errorf("fetched %d times for a new key", n)
		}
		for range 1000 {
			if err := verify(signed(jose.EdDSA, newEd25519(), "x", claims(""))); !errors.Is(err, access.ErrInvalid) {
				t.Errorf("an unknown key: %v", err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n := p.fetched(); n != 4 { // in 10 s
			t.Errorf("fetched %d times for unknown keys", n)
		}
		p.has(200, keySet(after.Public(), "2"))
		time.Sleep(15 * time.Minute)
		if err := verify(old); err != nil {
			t.Errorf("it is an old set that says so, but there must be no waiting: %v", err)
		}
		time.Sleep(2 * time.Second)
		if err := verify(old); !errors.Is(err, access.ErrInvalid) {
			t.Errorf("a key that was taken back: %v", err)
		}
		if err := verify(young); err != nil {
			t.Error(err)
		}
	})
}

// While the set cannot be had the keys before it stay.
func TestKeySetDown(t *testing.T) {
	key := newEd25519()
	good := keySet(key.Public(), "1")
	for what, down := range map[string]struct {
		status int
		body   string
	}{
		"unreachable": {0, ""},
		"an error":    {500, good},
		"a redirect":  {302, good},
		"no JSON":     {200, "<html>"},
		"no keys":     {200, `{"keys":[]}`},
		"too large":   {200, good + strings.Repeat(" ", 2<<20)},
	} {
		t.Run(what, func(t *testing.T) {
			p := &provider{}
			p.has(down.status, down.body)
			withProvider(t, p, func(t *testing.T, verify func(string) error) {
				token := signed(jose.EdDSA, key, "1", claims(""))
				if err := verify(token); !errors.Is(err, access.ErrUnavailable) || errors.Is(err, access.ErrInvalid) {
					t.Fatalf("before there are any: %v", err)
				}
				p.has(200, good)
				time.Sleep(5 * time.Second)
				if err := verify(token); err != nil {
					t.Fatalf("there are some: %v", err)
				}
				p.has(down.status, down.body)
				for range 10 {
					time.Sleep(5 * time.Minute)
					if err := verify(token); err != nil {
						t.Errorf("they are kept: %v", err)
					}
				}
				if n := p.fetched(); n < 6 {
					t.Errorf("fetched %d times", n)
				}
			})
		})
	}
}

// A provider that does not answer is given up.
func TestKeySetSilent(t *testing.T) {
	p := &provider{takes: time.Hour}
	p.has(200, "")
	withProvider(t, p, func(t *testing.T, verify func(string) error) {
		begun := time.Now()
		token := signed(jose.EdDSA, ed25519Key(), "1", claims(""))
		if err := verify(token); !errors.Is(err, access.ErrUnavailable) || time.Since(begun) != fetchTimeout {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		time.Sleep(fetchTimeout)
	})
}

// Who does not wait for the keys is let go.
func TestKeySetNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{takes: time.Hour}
		p.has(200, "")
		v := access.NewOver(p, access.Config{KeySetURL: "https://id.example/keys", Log: zerolog.Nop()})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		if _, err := v.Verify(ctx, signed(jose.EdDSA, ed25519Key(), "1", claims(""))); !errors.Is(err, access.ErrUnavailable) || time.Since(begun) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		time.Sleep(fetchTimeout)
	})
}
