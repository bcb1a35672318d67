package access

import "net/http"

// NewOver is New with a network of the test's own.
func NewOver(transport http.RoundTripper, c Config) *Verifier {
	return &Verifier{config: c, set: newKeySet(c.KeySetURL, c.Log, transport)}
}
