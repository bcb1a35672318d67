//go:build linux

package browser

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
)

type firefox struct {
	*process
	*remote
}

// preferences keep Firefox from asking its maker, and from slowing tabs down. Nothing
// moves, as there is no graphics card to draw it.
const preferences = `
user_pref("app.normandy.enabled", false);
user_pref("app.update.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.startup.page", 0);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("dom.min_background_timeout_value", 4);
user_pref("extensions.update.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("network.proxy.type", 0);
user_pref("services.settings.server", "data:,");
user_pref("toolkit.telemetry.enabled", false);
user_pref("ui.prefersReducedMotion", 1);
`

// startFirefox starts Firefox, to be driven by WebDriver BiDi.
func startFirefox(ctx context.Context, dir string) (Browser, error) {
	if err := os.WriteFile(filepath.Join(dir, "user.js"), []byte(preferences), 0o600); err != nil {
		return nil, err
	}
	name := "firefox-esr"
	if _, err := exec.LookPath(name); err != nil {
		name = "firefox"
	}
	cmd := exec.Command(name, "--headless", "--no-remote", "--profile", dir, "--remote-debugging-port", "0")
	cmd.Env = append(os.Environ(), "HOME="+dir, "MOZ_HEADLESS_WIDTH=1100", "MOZ_HEADLESS_HEIGHT=1000")
	p, url, err := startProcess(ctx, dir, `WebDriver BiDi listening on (ws://\S+)`, cmd)
	if err != nil {
		return nil, err
	}
	r, err := dialRemote(ctx, url+"/session")
	if err == nil {
		err = r.call(ctx, "", "session.new", map[string]any{"capabilities": map[string]any{}}, nil)
	}
	if err != nil {
		p.kill()
		return nil, err
	}
	return &firefox{p, r}, nil
}

func (f *firefox) Close() { f.kill() }

type firefoxTab struct {
	*firefox
	context string
}

func (f *firefox) NewTab(ctx context.Context) (Tab, error) {
	var tab struct{ Context string }
	err := f.call(ctx, "", "browsingContext.create", map[string]any{"type": "window"}, &tab)
	return &firefoxTab{f, tab.Context}, err
}

func (t *firefoxTab) Open(ctx context.Context, url string) error {
	return t.call(ctx, "", "browsingContext.navigate", map[string]any{"context": t.context, "url": url, "wait": "complete"}, nil)
}

func (t *firefoxTab) Text(ctx context.Context, expression string) (string, error) {
	var got struct {
		Result           struct{ Value string }
		ExceptionDetails *struct{ Text string }
	}
	err := t.call(ctx, "", "script.evaluate", map[string]any{
		"expression": expression, "target": map[string]any{"context": t.context}, "awaitPromise": true,
	}, &got)
	if err == nil && got.ExceptionDetails != nil {
		err = errors.New(got.ExceptionDetails.Text)
	}
	return got.Result.Value, err
}

func (t *firefoxTab) Screenshot(ctx context.Context) ([]byte, error) {
	var shot struct{ Data []byte }
	err := t.call(ctx, "", "browsingContext.captureScreenshot", map[string]any{"context": t.context}, &shot)
	return shot.Data, err
}

func (t *firefoxTab) Close(ctx context.Context) error {
	return t.call(ctx, "", "browsingContext.close", map[string]any{"context": t.context}, nil)
}
