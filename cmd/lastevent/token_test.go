//go:build unix

package main_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"lastevent/cmd/lastevent/servetest"
)

// A token comes from a file, which may be renewed meanwhile, or from the environment.
func TestToken(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Error(err)
		}
	}
	var got []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("Authorization"))
		if len(got) == 1 {
			write("second")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"id":1,"count":1}`)
	}))
	t.Cleanup(server.Close)
	write("first\n")
	for _, env := range [][]string{
		{"LASTEVENT_TOKEN_FILE=" + file, "LASTEVENT_TOKEN=no"},
		{"LASTEVENT_TOKEN=third"},
		nil,
	} {
		env = append(env, "LASTEVENT_URL="+server.URL)
		if status, stderr := servetest.Run(t, t.TempDir(), env, "publish", "s", "x"); status != 0 {
			t.Errorf("exit status %d: %s", status, stderr)
		}
	}
	if want := []string{"Bearer first", "Bearer second", "Bearer third", ""}; !slices.Equal(got, want) {
		t.Errorf("the tokens are %q, want %q", got, want)
	}
}
