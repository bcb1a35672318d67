//go:build linux

package browser

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// webkit is WebKitGTK's small browser on a screen of its own, driven by WebDriver.
type webkit struct {
	screen, driver *process
	session        string // the URL of its commands

	mu      sync.Mutex // guards which window commands go to
	current string
}

func startWebKit(ctx context.Context, dir string) (Browser, error) {
	screen, display, err := startProcess(ctx, "", `^(\d+)$`,
		exec.Command("Xvfb", "-displayfd", "1", "-screen", "0", "1200x1100x24", "-nolisten", "tcp"))
	if err != nil {
		return nil, err
	}
	w := &webkit{screen: screen}
	if err := w.startDriver(ctx, dir, display); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

func (w *webkit) startDriver(ctx context.Context, dir, display string) error {
	binary, err := miniBrowser()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addr := l.Addr().(*net.TCPAddr)
	l.Close()
	// Its pages are drawn without a graphics card, which is slow: none shall move.
	settings := filepath.Join(dir, "gtk-3.0", "settings.ini")
	err = os.Mkdir(filepath.Dir(settings), 0o700)
	if err == nil {
		err = os.WriteFile(settings, []byte("[Settings]\ngtk-enable-animations=0\n"), 0o600)
	}
	if err != nil {
		return err
	}
	// It says nothing: the shell speaks for it.
	cmd := exec.Command("sh", "-c", `echo ready; exec WebKitWebDriver --port="$0"`, fmt.Sprint(addr.Port))
	cmd.Env = append(os.Environ(), "DISPLAY=:"+display, "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS=1", "HOME="+dir, "XDG_RUNTIME_DIR="+dir, "XDG_CONFIG_HOME="+dir,
		"GDK_BACKEND=x11", "LIBGL_ALWAYS_SOFTWARE=1", "no_proxy=*", "http_proxy=")
	if w.driver, _, err = startProcess(ctx, dir, "(ready)", cmd); err != nil {
		return err
	}
	base := "http://" + addr.String() + "/session"
	capabilities := map[string]any{"alwaysMatch": map[string]any{
		"pageLoadStrategy":         "none",
		"webkitgtk:browserOptions": map[string]any{"binary": binary, "args": []string{"--automation"}},
	}}
	var session struct{ SessionID string }
	for {
		err := call(ctx, "POST", base, map[string]any{"capabilities": capabilities}, &session)
		if err == nil {
			w.session = base + "/" + session.SessionID
			return nil
		}
		if opErr := (*net.OpError)(nil); !errors.As(err, &opErr) { // else it does not listen yet
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func miniBrowser() (string, error) {
	found, _ := filepath.Glob("/usr/lib/*/webkit2gtk-4.*/MiniBrowser") // the pattern is a good one
	if found == nil {
		return "", fmt.Errorf("MiniBrowser: %w", exec.ErrNotFound)
	}
	return found[len(found)-1], nil
}

func (w *webkit) Close() {
	if w.session != "" {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = call(ctx, "DELETE", w.session, nil, nil) // what is left is killed
	}
	if w.driver != nil {
		w.driver.kill()
	}
	w.screen.kill()
}

// call sends one command of WebDriver.
func call(ctx context.Context, method, url string, body map[string]any, result any) error {
	if body == nil {
		body = map[string]any{}
	}
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(text))
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var a struct{ Value json.RawMessage }
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", res.Status, a.Value)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(a.Value, result)
}

type webkitTab struct {
	*webkit
	handle string
}

func (w *webkit) NewTab(ctx context.Context) (Tab, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var tab struct{ Handle string }
	err := call(ctx, "POST", w.session+"/window/new", map[string]any{"type": "window"}, &tab)
	return &webkitTab{w, tab.Handle}, err
}

// call sends a command to the tab.
func (t *webkitTab) call(ctx context.Context, method, command string, body map[string]any, result any) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current != t.handle {
		if err := call(ctx, "POST", t.session+"/window", map[string]any{"handle": t.handle}, nil); err != nil {
			return err
		}
		t.current = t.handle
	}
	return call(ctx, method, t.session+command, body, result)
}

// Open looks for the new page itself: the driver at times waits for it for ever, and
// at times not at all. It gives no answer to a script whose page goes away.
func (t *webkitTab) Open(ctx context.Context, url string) error {
	if _, err := t.Text(ctx, "(window.leaving = 'yes')"); err != nil {
		return err
	}
	if err := t.call(ctx, "POST", "/url", map[string]any{"url": url}, nil); err != nil {
		return err
	}
	for ctx.Err() == nil {
		look, cancel := context.WithTimeout(ctx, 2*time.Second)
		state, err := t.Text(look, "window.leaving ? 'leaving' : document.readyState")
		cancel()
		if err == nil && state == "complete" {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return ctx.Err()
}

// Text asks again where the driver has lost an answer, as it does at times.
func (t *webkitTab) Text(ctx context.Context, expression string) (string, error) {
	for {
		var value *string
		try, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := t.call(try, "POST", "/execute/sync", map[string]any{"script": "return " + expression, "args": []any{}}, &value)
		cancel()
		switch {
		case err != nil && try.Err() != nil && ctx.Err() == nil:
		case value == nil:
			return "", err
		default:
			return *value, err
		}
	}
}

func (t *webkitTab) Screenshot(ctx context.Context) ([]byte, error) {
	var png []byte
	err := t.call(ctx, "GET", "/screenshot", nil, &png)
	return png, err
}

func (t *webkitTab) Close(ctx context.Context) error {
	return t.call(ctx, "DELETE", "/window", nil, nil)
}
