package web_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"lastevent/store"
	"lastevent/web"
)

// backupHost serves a backup, and counts how many were closed.
func backupHost(t *testing.T, backup func(context.Context) (io.ReadCloser, int64, error)) *host {
	return newHost(t, setup{config: func(c *web.Config) { c.Backup = backup }})
}

// askBackup asks as from an address, on a connection to another.
func askBackup(t *testing.T, s *host, from, to string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), "GET", "http://localhost/backup", nil)
	r.RemoteAddr = from
	addr, err := net.ResolveTCPAddr("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, addr))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

type closing struct {
	io.Reader
	closed *int
}

func (c closing) Close() error { *c.closed++; return nil }

func TestBackup(t *testing.T) {
	what, closed := strings.Repeat("all there is ", 200_000), 0
	s := backupHost(t, func(context.Context) (io.ReadCloser, int64, error) {
		return closing{strings.NewReader(what), &closed}, int64(len(what)), nil
	})
	const local = "127.0.0.1:50000"
	for name, header := range map[string][]string{
		"plain":            nil,
		"of the same page": {"Sec-Fetch-Site", "same-origin"},
		"typed in":         {"Sec-Fetch-Site", "none"},
	} {
		w := askBackup(t, s, local, local, header...)
		if w.Code != 200 || w.Body.String() != what || w.Header().Get("Content-Length") != fmt.Sprint(len(what)) || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d, %d bytes, %v", name, w.Code, w.Body.Len(), w.Header())
		}
	}
	if closed != 3 {
		t.Errorf("%d of 3 backups are closed", closed)
	}
	for name, w := range map[string]*httptest.ResponseRecorder{
		"from elsewhere":            askBackup(t, s, "192.0.2.1:50000", "192.0.2.2:8080"),
		"from elsewhere, forwarded": askBackup(t, s, local, local, "X-Forwarded-For", "192.0.2.1"),
		"by a proxy":                askBackup(t, s, local, local, "Via", "1.1 proxy"),
		"by another site's page":    askBackup(t, s, local, local, "Sec-Fetch-Site", "cross-site"),
		"by a page of another port": askBackup(t, s, local, local, "Sec-Fetch-Site", "same-site"),
		"by an old browser":         askBackup(t, s, local, local, "Origin", "http://evil.example"),
	} {
		if w.Code != 403 || !strings.Contains(w.Body.String(), "detail") {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	if w := newHost(t, setup{}).do(t, "GET", "/backup", ""); w.Code != 404 {
		t.Errorf("without backups: %d", w.Code)
	}
	elsewhere := newHost(t, setup{config: func(c *web.Config) { c.NoBackup = "ask the other server" }})
	if w := askBackup(t, elsewhere, local, local); w.Code != 404 || !strings.Contains(w.Body.String(), `"detail":"ask the other server"`) {
		t.Errorf("where they are taken elsewhere: %d %s", w.Code, w.Body)
	}
	if closed != 3 {
		t.Error("a backup was made for who is refused")
	}
}

func TestBackupFails(t *testing.T) {
	const local = "127.0.0.1:50000"
	for _, test := range []struct {
		err    error
		status int
	}{{fmt.Errorf("no: %w", store.ErrNoSpace), 507}, {store.ErrStopped, 503}, {errors.New("disk"), 500}} {
		s := backupHost(t, func(context.Context) (io.ReadCloser, int64, error) { return nil, 0, test.err })
		for range 2 { // it is not under way for ever
			if w := askBackup(t, s, local, local); w.Code != test.status {
				t.Errorf("%v: %d %s; want %d", test.err, w.Code, w.Body, test.status)
			}
		}
	}
}

// TestBackupOneAtATime has a second caller come while the first one's is made.
func TestBackupOneAtATime(t *testing.T) {
	const local = "127.0.0.1:50000"
	var s *host
	s = backupHost(t, func(context.Context) (io.ReadCloser, int64, error) {
		if w := askBackup(t, s, local, local); w.Code != 429 || w.Header().Get("Retry-After") == "" {
			t.Errorf("the second: %d %s", w.Code, w.Body)
		}
		return io.NopCloser(strings.NewReader("x")), 1, nil
	})
	for range 2 {
		if w := askBackup(t, s, local, local); w.Code != 200 {
			t.Errorf("the first: %d %s", w.Code, w.Body)
		}
	}
}
