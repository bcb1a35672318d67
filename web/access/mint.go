package access

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Mint makes a token of the grants, which must have an end, signed with a secret or a
// private key. Issuer and audience may be empty.
func Mint(k Key, g Grants, issuer, audience string) (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: k.algorithm, Key: k.key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("the key cannot sign: %w", err)
	}
	payload, err := json.Marshal(struct {
		Issuer    string   `json:"iss,omitempty"`
		Audience  string   `json:"aud,omitempty"`
		Issued    int64    `json:"iat"`
		Expires   int64    `json:"exp"`
		Publish   Patterns `json:"publish,omitempty"`
		Subscribe Patterns `json:"subscribe,omitempty"`
	}{issuer, audience, time.Now().Unix(), g.Until.Unix(), g.Publish, g.Subscribe})
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}
