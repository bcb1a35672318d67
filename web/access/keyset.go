package access

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/rs/zerolog"
)

const (
	// fetchTimeout bounds a fetch of the key set, and so how long a token waits.
	fetchTimeout = 5 * time.Second
	// fetchEvery is how often the key set is fetched at most, whoever comes.
	fetchEvery = 5 * time.Second
	// staleAfter is how old it is when it is fetched again.
	staleAfter = 10 * time.Minute
	maxKeySet  = 1 << 20
	maxKeys    = 100
)

// A keySet is the keys at a URL, kept here. It is fetched again when it is old, and when
// somebody asks for newer keys. Where that fails, those before stay.
type keySet struct {
	url    string
	log    zerolog.Logger
	client *http.Client

	mu      sync.Mutex // guards what follows
	keys    []Key
	fetched time.Time // zero: never
	tried   time.Time
	fetch   chan struct{} // closed once the fetch that is under way is over
	failing bool
}

func newKeySet(url string, log zerolog.Logger, transport http.RoundTripper) *keySet {
	s := &keySet{url: url, log: log, client: &http.Client{
		Transport: transport,
		Timeout:   fetchTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("it leads elsewhere, and redirects are not followed")
		},
	}}
	s.refresh()
	return s
}

// current returns the keys, waiting for them only if there never were any.
func (s *keySet) current(ctx context.Context) ([]Key, error) {
	if s.age() > staleAfter {
		fetch := s.refresh()
		if keys, ok := s.get(); ok {
			return keys, nil
		}
		wait(ctx, fetch)
	}
	if keys, ok := s.get(); ok {
		return keys, nil
	}
	return nil, fmt.Errorf("%w: %s was never reached", ErrUnavailable, s.url)
}

// newer returns the keys after a fetch, if it is time for one.
func (s *keySet) newer(ctx context.Context) []Key {
	wait(ctx, s.refresh())
	keys, _ := s.get()
	return keys
}

func (s *keySet) get() (keys []Key, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys, !s.fetched.IsZero()
}

func (s *keySet) age() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.fetched)
}

func wait(ctx context.Context, fetch <-chan struct{}) {
	if fetch == nil {
		return
	}
	select {
	case <-fetch:
	case <-ctx.Done():
	}
}

// refresh returns the fetch that is under way, which it begins unless there was one just
// now; then there is none.
func (s *keySet) refresh() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fetch == nil && time.Since(s.tried) >= fetchEvery {
		s.tried, s.fetch = time.Now(), make(chan struct{})
		go s.fetchNow()
	}
	return s.fetch
}

func (s *keySet) fetchNow() {
	keys, err := fetchKeys(s.client, s.url)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.keys, s.fetched = keys, s.tried
	}
	if failed := err != nil; failed != s.failing {
		s.failing = failed
		s.log.Warn().Err(err).Str("url", s.url).Bool("kept", !s.fetched.IsZero()).Msg(map[bool]string{
			true:  "the key set cannot be fetched; it is tried again as tokens come",
			false: "the key set is there again",
		}[failed])
	}
	close(s.fetch)
	s.fetch = nil
}

// fetchKeys fetches the keys of a set that can check tokens.
func fetchKeys(client *http.Client, url string) ([]Key, error) {
	res, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %s", res.Status)
	}
	text, err := readAll(res.Body, maxKeySet)
	if err != nil {
		return nil, err
	}
	return parseKeySet(text)
}

// parseKeySet leaves out keys that are for something else, or of a kind that is not
// known here, and secrets, which are none at a URL.
func parseKeySet(text []byte) ([]Key, error) {
	var set struct{ Keys []json.RawMessage }
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("it is no key set: %w", err)
	}
	var keys []Key
	for _, text := range set.Keys[:min(len(set.Keys), maxKeys)] {
		var jwk jose.JSONWebKey
		if jwk.UnmarshalJSON(text) != nil {
			continue
		}
		key, err := publicKey(jwk.Key)
		if err != nil || jwk.Use != "" && jwk.Use != "sig" || jwk.Algorithm != "" && jwk.Algorithm != string(key.algorithm) {
			continue
		}
		key.id = jwk.KeyID
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("it has no key of RS256, ES256 or EdDSA")
	}
	return keys, nil
}

// readAll reads to the end, which must come before the limit.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(text)) > limit {
		return nil, fmt.Errorf("it is longer than %d bytes", limit)
	}
	return text, err
}
