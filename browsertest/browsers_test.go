//go:build linux

package browsertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lastevent/browsertest/browser"
	"lastevent/cmd/lastevent/servetest"
)

var visits = map[string]func(*visit){
	// What a page needs to miss nothing is the browser's own EventSource.
	"cut by the network":            cutByNetwork,
	"kill -9 and stop":              killAndStop,
	"cut before the first event":    cutBeforeFirstEvent,
	"a stream that ends":            readToEnd,
	"only some types":               filtered,
	"two tabs and a reload":         tabsAndReload,
	"many drops of a lively stream": manyDrops,
	// The page at / shows that to who cuts it.
	"page cut by its buttons":   cutByButtons,
	"page at kill -9 and a cut": killed,
	"page reloaded":             reloaded,
	"lastevent.js in two tabs":  sharedConnection,
	// Who may do what.
	"page of another origin": crossOrigin,
	"page that has no token": pageWithoutToken,
}

func TestBrowsers(t *testing.T) {
	t.Parallel()
	for _, name := range browser.Names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, err := browser.Start(t.Context(), name)
			if errors.Is(err, exec.ErrNotFound) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(b.Close)
			for scenario, run := range visits {
				t.Run(scenario, func(t *testing.T) {
					t.Parallel()
					run(&visit{T: t, browser: b})
				})
			}
		})
	}
}

// A visit is a browser at a server, through a proxy.
type visit struct {
	*testing.T
	browser browser.Browser
	server  *servetest.Server
	proxy   *proxy
}

// start starts the server.
func (v *visit) start(flags ...string) {
	v.Helper()
	v.server = servetest.Start(v.T, append([]string{"--retry", "100ms"}, flags...)...)
	v.proxy = startProxy(v.T, v.server.Addr)
}

// open opens a page of the server in a new tab.
func (v *visit) open(path string) *tab {
	v.Helper()
	return v.openURL("http://" + v.proxy.Addr + path)
}

// openURL opens any page in a new tab.
func (v *visit) openURL(url string) *tab {
	v.Helper()
	b, err := v.browser.NewTab(v.server.Ctx)
	if err != nil {
		v.Fatal(err)
	}
	t := &tab{b, v}
	v.Cleanup(func() {
		if v.Failed() {
			t.photograph("failed")
		}
	})
	t.loadURL(url)
	return t
}

// wait waits until something is so.
func (v *visit) wait(what string, ok func() bool) {
	v.Helper()
	for !ok() {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-v.server.Ctx.Done():
			v.Fatal("waiting for " + what)
		}
	}
}

// A tab fails the test where something cannot be done.
type tab struct {
	browser.Tab
	*visit
}

func (t *tab) load(path string) {
	t.Helper()
	t.loadURL("http://" + t.proxy.Addr + path)
}

func (t *tab) loadURL(url string) {
	t.Helper()
	if err := t.Tab.Open(t.server.Ctx, url); err != nil {
		t.Fatal(err)
	}
}

func (t *tab) close() {
	t.Helper()
	if err := t.Tab.Close(t.server.Ctx); err != nil {
		t.Fatal(err)
	}
}

// run runs statements in the page.
func (t *tab) run(statements string, args ...any) {
	t.Helper()
	if _, err := t.Text(t.server.Ctx, "(() => {"+fmt.Sprintf(statements, args...)+"; return 'done'; })()"); err != nil {
		t.Fatal(err)
	}
}

// value evaluates an expression in the page.
func value[V any](t *tab, expression string) (v V) {
	t.Helper()
	if err := browser.Eval(t.server.Ctx, t.Tab, expression, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// photograph keeps what the tab looks like, for a person to look at: see the flag
// -artifacts of go test.
func (t *tab) photograph(state string) {
	png, err := t.Screenshot(context.WithoutCancel(t.Context()))
	if err != nil {
		return // as at the end of a failed test
	}
	name := strings.ReplaceAll(state, " ", "-") + ".png"
	if err := os.WriteFile(filepath.Join(t.ArtifactDir(), name), png, 0o644); err != nil {
		t.Error(err)
	}
}
