//go:build linux

package browser_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"lastevent/browsertest/browser"
)

// What the drivers promise, of each browser.
func TestDrivers(t *testing.T) {
	t.Parallel()
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'")
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<title>" + r.URL.Path + "</title>"))
	}))
	t.Cleanup(site.Close)
	for _, name := range browser.Names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			b, err := browser.Start(ctx, name)
			if errors.Is(err, exec.ErrNotFound) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			tabs := map[string]browser.Tab{}
			for _, path := range []string{"/a", "/b"} {
				tab, err := b.NewTab(ctx)
				if err == nil {
					err = tab.Open(ctx, site.URL+path)
				}
				if err != nil {
					t.Fatal(err)
				}
				tabs[path] = tab
			}
			for path, tab := range tabs {
				var got struct {
					Path   string
					Answer int
				}
				if err := browser.Eval(ctx, tab, "{path: document.title, answer: 6 * 7}", &got); err != nil || got.Path != path || got.Answer != 42 {
					t.Errorf("evaluated to %+v, %v", got, err)
				}
				if _, err := tab.Text(ctx, "nothing.here"); err == nil || !strings.Contains(err.Error(), "nothing") {
					t.Errorf("a reference to nothing gives the error %v", err)
				}
				if png, err := tab.Screenshot(ctx); err != nil || !strings.HasPrefix(string(png), "\x89PNG") {
					t.Errorf("a screenshot of %d bytes, %v", len(png), err)
				}
				if err := tab.Close(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
