package access

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/rs/zerolog"
)

const (
	// maxToken bounds what is looked at for anybody who comes.
	maxToken = 16 << 10
	// leeway is by how much clocks may differ.
	leeway = 30 * time.Second
	// maxTime is a NumericDate beyond which a time is a mistake.
	maxTime = 1 << 40
)

// Config is what a [Verifier] goes by. Without any keys no token is valid.
type Config struct {
	Keys []Key
	// KeySetURL is where a key set is (RFC 7517). Empty: there is none.
	KeySetURL string
	// Issuer is what tokens must have been issued by. Empty: anybody.
	Issuer string
	// Audience is what tokens must be for. Empty: they must not be for anybody that
	// they name (RFC 7519, section 4.1.3).
	Audience string
	// Log takes why the key set cannot be fetched.
	Log zerolog.Logger
}

// A Verifier checks tokens. It can be used by many goroutines.
type Verifier struct {
	config Config
	set    *keySet // nil: there is none
}

// New returns a verifier, which begins to fetch its key set.
func New(c Config) *Verifier {
	v := &Verifier{config: c}
	if c.KeySetURL != "" {
		v.set = newKeySet(c.KeySetURL, c.Log, http.DefaultTransport)
	}
	return v
}

// Verify returns what the bearer of a token may do, and until when: 30 seconds after the
// token's exp, which it must have. It may wait for the key set, some seconds at most.
func (v *Verifier) Verify(ctx context.Context, token string) (Grants, error) {
	payload, err := v.payload(ctx, token)
	if err != nil {
		return Grants{}, err
	}
	var c claims
	if err := json.Unmarshal(payload, &c); err != nil {
		return Grants{}, fmt.Errorf("%w: its claims are no JSON object", ErrInvalid)
	}
	return v.grants(c, time.Now())
}

// payload returns what one of the keys has signed.
func (v *Verifier) payload(ctx context.Context, token string) ([]byte, error) {
	if len(token) > maxToken {
		return nil, fmt.Errorf("%w: it is longer than %d bytes", ErrInvalid, maxToken)
	}
	t, err := jose.ParseSignedCompact(token, algorithms)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrInvalid, err)
	}
	if payload, ok := verify(t, v.config.Keys); ok {
		return payload, nil
	}
	if v.set == nil {
		return nil, fmt.Errorf("%w: none of the keys has signed it", ErrInvalid)
	}
	keys, err := v.set.current(ctx)
	if err != nil {
		return nil, err
	}
	if payload, ok := verify(t, keys); ok {
		return payload, nil
	}
	id := t.Signatures[0].Protected.KeyID
	if id == "" || !slices.ContainsFunc(keys, func(k Key) bool { return k.id == id }) {
		if payload, ok := verify(t, v.set.newer(ctx)); ok {
			return payload, nil
		}
	}
	return nil, fmt.Errorf("%w: none of the keys, nor of those at %s, has signed it (kid %q)", ErrInvalid, v.config.KeySetURL, id)
}

// verify tries the keys that the token may be signed with.
func verify(t *jose.JSONWebSignature, keys []Key) (payload []byte, ok bool) {
	header := t.Signatures[0].Protected
	for _, k := range keys {
		foreign := k.id != "" && header.KeyID != "" && k.id != header.KeyID
		if foreign || string(k.algorithm) != header.Algorithm {
			continue
		}
		if payload, err := t.Verify(k.key); err == nil {
			return payload, true
		}
	}
	return nil, false
}

// Claims are by their exact names, which those of a struct would not be.
type claims map[string]json.RawMessage

// grants judges claims that a key has signed.
func (v *Verifier) grants(c claims, now time.Time) (Grants, error) {
	until, ok := c.time("exp")
	if !ok {
		return Grants{}, ErrNoEnd
	}
	g := Grants{Publish: c.patterns("publish"), Subscribe: c.patterns("subscribe"), Until: until.Add(leeway)}
	if !now.Before(g.Until) {
		return Grants{}, ErrExpired
	}
	if c["nbf"] != nil {
		if from, ok := c.time("nbf"); !ok || now.Before(from.Add(-leeway)) {
			return Grants{}, ErrNotYet
		}
	}
	if v.config.Issuer != "" && c.text("iss") != v.config.Issuer {
		return Grants{}, ErrIssuer
	}
	if c["aud"] != nil || v.config.Audience != "" {
		if v.config.Audience == "" || !slices.Contains(c.audience(), v.config.Audience) {
			return Grants{}, ErrAudience
		}
	}
	return g, nil
}

// time returns a NumericDate, if it is one.
func (c claims) time(name string) (at time.Time, ok bool) {
	var seconds *float64
	if json.Unmarshal(c[name], &seconds) != nil || seconds == nil || *seconds < 0 || *seconds > maxTime {
		return at, false
	}
	return time.UnixMilli(int64(*seconds * 1000)), true
}

func (c claims) text(name string) (text string) {
	_ = json.Unmarshal(c[name], &text) // what is no text is no issuer's name
	return text
}

// audience is one text, or several.
func (c claims) audience() (names []string) {
	if json.Unmarshal(c["aud"], &names) == nil {
		return names
	}
	return []string{c.text("aud")}
}

// patterns leaves out what is no text. What is no list grants nothing.
func (c claims) patterns(name string) (patterns Patterns) {
	var list []any
	_ = json.Unmarshal(c[name], &list)
	for _, p := range list {
		if p, ok := p.(string); ok {
			patterns = append(patterns, p)
		}
	}
	return patterns
}
