// Package access tells what the bearer of a JSON Web Token (RFC 7519) may do: to which
// streams it may publish, and to which it may subscribe.
//
// A [Verifier] takes tokens that one of its keys has signed. The keys are secrets and
// public keys from files, and those of a key set that an identity provider has at a URL.
// Which algorithm a token is checked with is a matter of the key, never of the token.
package access

import (
	"errors"
	"slices"
	"time"
)

// Grants are what a token allows.
type Grants struct {
	// Publish are the streams that can be published to, closed and deleted.
	Publish Patterns
	// Subscribe are the streams that can be subscribed to, read and listed.
	Subscribe Patterns
	// Until is when this ends; zero: never.
	Until time.Time
}

// All allows everything, for ever.
var All = Grants{Publish: Patterns{"**"}, Subscribe: Patterns{"**"}}

// What is wrong with a token. Each error of [Verifier.Verify] is one of these; ErrInvalid
// tells nothing of the keys, the others are of tokens that one of them has signed.
var (
	ErrInvalid     = errors.New("the token is not valid here")
	ErrExpired     = errors.New("the token has expired")
	ErrNotYet      = errors.New("the token is not valid yet")
	ErrNoEnd       = errors.New("the token has no end (exp) that can be read")
	ErrIssuer      = errors.New("the token is not of the issuer (iss) that this server trusts")
	ErrAudience    = errors.New("the token is for another audience (aud)")
	ErrUnavailable = errors.New("the keys to check the token with cannot be had now")
)

// Patterns name streams.
type Patterns []string

// Match reports whether one of the patterns names the stream. Those that are not valid
// name none.
func (p Patterns) Match(stream string) bool {
	return slices.ContainsFunc(p, func(pattern string) bool { return CheckPattern(pattern) == nil && match(pattern, stream) })
}
