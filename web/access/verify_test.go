package access_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"lastevent/web/access"
)

// Each kind of key takes what is signed with it, and what is minted.
func TestKeys(t *testing.T) {
	for _, test := range []struct {
		alg     jose.SignatureAlgorithm
		private any
		public  any
	}{
		{jose.RS256, rsaKey(), rsaKey().Public()},
		{jose.ES256, ecKey(), ecKey().Public()},
		{jose.EdDSA, ed25519Key(), ed25519Key().Public()},
		{jose.HS256, []byte(secret), nil},
	} {
		verifying, signing := secretKey(t), secretKey(t)
		if test.public != nil {
			verifying = must(access.ReadPublicKey(write(t, publicPEM(test.public))))
			signing = must(access.ReadPrivateKey(write(t, privatePEM(test.private))))
		}
		v := access.New(access.Config{Keys: []access.Key{secretKey(t), verifying}})
		end := time.Unix(time.Now().Add(time.Hour).Unix(), 0)
		want := access.Grants{Publish: access.Patterns{"a", "b/*"}, Subscribe: access.Patterns{"**"}, Until: end}
		minted := must(access.Mint(signing, want, "", ""))
		want.Until = end.Add(30 * time.Second)
		by := signed(test.alg, test.private, "any", fmt.Sprintf(`{"exp":%d,"publish":["a","b/*"],"subscribe":["**"]}`, end.Unix()))
		for how, token := range map[string]string{"minted": minted, "signed": by} {
			if got, err := v.Verify(t.Context(), token); err != nil || !cmp.Equal(got, want) {
				t.Errorf("%s, %s: %v, %v", test.alg, how, got, err)
			}
		}
	}
}

// refusals are tokens that must not be taken by a verifier of the secret and of the
// public keys.
func refusals() map[string]string {
	good := claims(`,"publish":["**"]`)
	hmacOf := func(input string, key []byte) string {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(input))
		return input + "." + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
	}
	valid := signed(jose.HS256, []byte(secret), "", good)
	parts := strings.Split(valid, ".")
	hs := unsigned(`{"alg":"HS256"}`, good)
	r := map[string]string{
		"empty":                 "",
		"garbage":               "garbage",
		"dots":                  "..",
		"not base64":            "a.b.c",
		"alg none":              unsigned(`{"alg":"none"}`, good) + ".",
		"alg None, signed":      hmacOf(unsigned(`{"alg":"None"}`, good), []byte(secret)),
		"no alg":                hmacOf(unsigned(`{}`, good), []byte(secret)),
		"no signature":          parts[0] + "." + parts[1] + ".",
		"two parts":             parts[0] + "." + parts[1],
		"half a signature":      valid[:len(valid)-10],
		"other claims":          parts[0] + "." + strings.Split(hs, ".")[1] + "x." + parts[2],
		"another secret":        signed(jose.HS256, []byte("another"+secret), "", good),
		"HS512 of the secret":   signed(jose.HS512, []byte(secret), "", good),
		"RS512 of the key":      signed(jose.RS512, rsaKey(), "", good),
		"PS256 of the key":      signed(jose.PS256, rsaKey(), "", good),
		"another EdDSA key":     signed(jose.EdDSA, newEd25519(), "", good),
		"its own key within":    signed(jose.EdDSA, jose.JSONWebKey{Key: newEd25519(), KeyID: "x"}, "", good),
		"a critical extension":  hmacOf(unsigned(`{"alg":"HS256","crit":["x"],"x":1}`, good), []byte(secret)),
		"JSON serialization":    must(must(jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: []byte(secret)}, nil)).Sign([]byte(good))).FullSerialize(),
		"encrypted, as it says": "a.b.c.d.e",
		"claims of no object":   signed(jose.HS256, []byte(secret), "", `["exp"]`),
		"claims of no JSON":     signed(jose.HS256, []byte(secret), "", `exp`),
		"over-long":             signed(jose.HS256, []byte(secret), "", claims(`,"x":"`+strings.Repeat("x", 16<<10)+`"`)),
		"over-long garbage":     strings.Repeat("x", 1<<20),
	}
	// The public key is no secret, however it is written.
	for name, key := range map[string]any{"RSA": rsaKey().Public(), "P-256": ecKey().Public(), "Ed25519": ed25519Key().Public()} {
		r["HS256 of the public "+name] = hmacOf(hs, publicPEM(key))
		r["HS256 of the public "+name+", trimmed"] = hmacOf(hs, []byte(strings.TrimSpace(string(publicPEM(key)))))
	}
	r["HS256 of the public Ed25519, raw"] = hmacOf(hs, ed25519Key().Public().(ed25519.PublicKey))
	return r
}

func publicKeys(t testing.TB) (keys []access.Key) {
	for _, key := range []any{rsaKey().Public(), ecKey().Public(), ed25519Key().Public()} {
		keys = append(keys, must(access.ReadPublicKey(write(t, publicPEM(key)))))
	}
	return keys
}

// A token that no key has signed gets one answer, which does not tell which keys there
// are.
func TestRefusals(t *testing.T) {
	for i, keys := range [][]access.Key{append(publicKeys(t), secretKey(t)), publicKeys(t), {secretKey(t)}, nil} {
		v := access.New(access.Config{Keys: keys})
		for name, token := range refusals() {
			if g, err := v.Verify(t.Context(), token); !errors.Is(err, access.ErrInvalid) || !cmp.Equal(g, access.Grants{}) {
				t.Errorf("%s, keys %d: %v, %v", name, i, g, err)
			}
		}
		_, err := v.Verify(t.Context(), signed(jose.HS256, []byte(secret), "", claims("")))
		if ok := err == nil; ok != (i%2 == 0) {
			t.Errorf("the control, keys %d: %v", i, err)
		}
	}
}

func TestClaims(t *testing.T) {
	now := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for claims, want := range map[string]error{
		`{}`:             access.ErrNoEnd,
		`{"exp":null}`:   access.ErrNoEnd,
		`{"exp":"soon"}`: access.ErrNoEnd,
		`{"exp":1e300}`:  access.ErrNoEnd,
		`{"exp":-1}`:     access.ErrNoEnd,
		`{"exp":[9e9]}`:  access.ErrNoEnd,
		`{"EXP":9e9}`:    access.ErrNoEnd,
		`{"exp":0}`:      access.ErrExpired,
		`{"exp":9e9}`:    nil,
		fmt.Sprintf(`{"exp":%d}`, now(-time.Minute)):                             access.ErrExpired,
		fmt.Sprintf(`{"exp":%d.5}`, now(-10*time.Second)):                        nil, // the leeway
		fmt.Sprintf(`{"exp":9e9,"nbf":%d}`, now(time.Minute)):                    access.ErrNotYet,
		fmt.Sprintf(`{"exp":9e9,"nbf":%d}`, now(10*time.Second)):                 nil,
		`{"exp":9e9,"nbf":"x"}`:                                                  access.ErrNotYet,
		`{"exp":9e9,"aud":"b"}`:                                                  access.ErrAudience,
		`{"exp":9e9,"aud":[]}`:                                                   access.ErrAudience,
		`{"exp":9e9,"iss":"anybody"}`:                                            nil,
		fmt.Sprintf(`{"exp":%d,"aud":"b","nbf":9e9}`, now(-2*time.Minute)):       access.ErrExpired,
		`{"exp":9e9,"publish":"**","subscribe":{"a":1}}`:                         nil,
		`{"exp":9e9,"publish":[1,null,["**"]],"subscribe":null,"sub":"someone"}`: nil,
	} {
		v := access.New(access.Config{Keys: []access.Key{secretKey(t)}})
		g, err := v.Verify(t.Context(), signed(jose.HS256, []byte(secret), "", claims))
		if !errors.Is(err, want) || g.Publish.Match("a") || g.Subscribe.Match("a") {
			t.Errorf("%s: %v, %v; want %v", claims, g, err, want)
		}
	}
}

func TestIssuerAndAudience(t *testing.T) {
	v := access.New(access.Config{Keys: []access.Key{secretKey(t)}, Issuer: "https://id.example/", Audience: "events"})
	const issuer = `,"iss":"https://id.example/"`
	for more, want := range map[string]error{
		"":                                   access.ErrIssuer,
		`,"aud":"events"`:                    access.ErrIssuer,
		`,"aud":"events","iss":"other"`:      access.ErrIssuer,
		`,"aud":"events","iss":["https://"]`: access.ErrIssuer,
		issuer:                               access.ErrAudience,
		issuer + `,"aud":"other"`:            access.ErrAudience,
		issuer + `,"aud":["a",1,"events"]`:   access.ErrAudience,
		issuer + `,"aud":"events"`:           nil,
		issuer + `,"aud":["a","events"]`:     nil,
	} {
		if _, err := v.Verify(t.Context(), signed(jose.HS256, []byte(secret), "", claims(more))); !errors.Is(err, want) {
			t.Errorf("%s: %v; want %v", more, err, want)
		}
	}
	minted := must(access.Mint(secretKey(t), access.Grants{Until: time.Now().Add(time.Hour)}, "https://id.example/", "events"))
	if _, err := v.Verify(t.Context(), minted); err != nil {
		t.Error(err)
	}
}

// A token is taken until the very moment at which it is said to end.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := access.New(access.Config{Keys: []access.Key{secretKey(t)}})
		token := signed(jose.HS256, []byte(secret), "", claims(""))
		g, err := v.Verify(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(g.Until) - 1)
		if _, err := v.Verify(t.Context(), token); err != nil {
			t.Errorf("just before: %v", err)
		}
		time.Sleep(time.Nanosecond)
		if _, err := v.Verify(t.Context(), token); !errors.Is(err, access.ErrExpired) {
			t.Errorf("at the end: %v", err)
		}
	})
}

// What is wrong with a file is said, with its name and without what it holds.
func TestFiles(t *testing.T) {
	small := must(rsa.GenerateKey(rand.Reader, 1024))
	wide := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	type read = func(string) (access.Key, error)
	for _, test := range []struct {
		read read
		text []byte
		says string
	}{
		{access.ReadSecret, []byte(secret[:31]), "31 bytes"},
		{access.ReadSecret, []byte(secret[:31] + "\r\n"), "31 bytes"},
		{access.ReadSecret, nil, "0 bytes"},
		{access.ReadSecret, publicPEM(ecKey().Public()), "PEM"},
		{access.ReadSecret, make([]byte, 2<<20), "longer"},
		{access.ReadPublicKey, []byte(secret), "PEM"},
		{access.ReadPublicKey, privatePEM(ecKey()), "-pubout"},
		{access.ReadPublicKey, append(publicPEM(ecKey().Public()), publicPEM(ecKey().Public())...), "one key"},
		{access.ReadPublicKey, publicPEM(small.Public()), "2048"},
		{access.ReadPublicKey, publicPEM(wide.Public()), "P-256"},
		{access.ReadPublicKey, []byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"), "asn1"},
		{access.ReadPrivateKey, publicPEM(ecKey().Public()), "genpkey"},
		{access.ReadPrivateKey, privatePEM(small), "2048"},
		{access.ReadPrivateKey, []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "asn1"},
	} {
		file := write(t, test.text)
		_, err := test.read(file)
		if err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), file) ||
			strings.Contains(err.Error(), secret[:31]) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.40q: %v; want %q", test.text, err, test.says)
		}
		if _, err := test.read(file + "x"); !os.IsNotExist(err) {
			t.Errorf("no file: %v", err)
		}
	}
	for _, end := range []string{"", "\n", "\r\n"} {
		v := access.New(access.Config{Keys: []access.Key{must(access.ReadSecret(write(t, []byte(secret+end))))}})
		if _, err := v.Verify(t.Context(), signed(jose.HS256, []byte(secret), "", claims(""))); err != nil {
			t.Errorf("with the end %q: %v", end, err)
		}
	}
}

// No input is taken for a token that no key has signed, and none does harm.
func FuzzVerify(f *testing.F) {
	v := access.New(access.Config{Keys: append(publicKeys(f), secretKey(f))})
	for _, token := range refusals() {
		if len(token) < 1<<10 {
			f.Add(token, []byte(`{"exp":9e9}`))
		}
	}
	f.Add("x", []byte(`{"exp":9e9,"nbf":0,"aud":["a"],"iss":"x","publish":["a/*"],"subscribe":[]}`))
	f.Fuzz(func(t *testing.T, token string, claims []byte) {
		if g, err := v.Verify(t.Context(), token); err == nil {
			t.Fatalf("taken: %v", g)
		}
		g, err := v.Verify(t.Context(), signed(jose.HS256, []byte(secret), "", string(claims)))
		if err != nil && !cmp.Equal(g, access.Grants{}) || err == nil && !time.Now().Before(g.Until) {
			t.Fatalf("%v, %v", g, err)
		}
	})
}
