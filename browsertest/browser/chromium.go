//go:build linux

package browser

import (
	"context"
	"errors"
	"os/exec"
	"time"
)

type chromium struct {
	*process
	*remote
}

// startChromium starts Chromium, to be driven by the DevTools protocol.
func startChromium(ctx context.Context, dir string) (Browser, error) {
	cmd := exec.Command("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--disable-background-timer-throttling", "--disable-backgrounding-occluded-windows", "--disable-renderer-backgrounding",
		"--no-proxy-server", "--user-data-dir="+dir, "--remote-debugging-port=0", "about:blank")
	p, url, err := startProcess(ctx, dir, `DevTools listening on (ws://\S+)`, cmd)
	if err != nil {
		return nil, err
	}
	r, err := dialRemote(ctx, url)
	if err != nil {
		p.kill()
		return nil, err
	}
	return &chromium{p, r}, nil
}

func (c *chromium) Close() { c.kill() }

type chromiumTab struct {
	*chromium
	target, session string
}

func (c *chromium) NewTab(ctx context.Context) (Tab, error) {
	var target struct{ TargetID string }
	if err := c.call(ctx, "", "Target.createTarget", map[string]any{"url": "about:blank", "newWindow": true, "width": 1100, "height": 1000}, &target); err != nil {
		return nil, err
	}
	var session struct{ SessionID string }
	err := c.call(ctx, "", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &session)
	return &chromiumTab{c, target.TargetID, session.SessionID}, err
}

func (t *chromiumTab) Open(ctx context.Context, url string) error {
	var page struct{ LoaderID, ErrorText string }
	if err := t.call(ctx, t.session, "Page.navigate", map[string]any{"url": url}, &page); err != nil {
		return err
	}
	if page.ErrorText != "" {
		return errors.New(page.ErrorText)
	}
	return untilLoaded(ctx, t)
}

// untilLoaded waits until the tab's page is whole.
func untilLoaded(ctx context.Context, t Tab) error {
	for {
		state, err := t.Text(ctx, "location.href === 'about:blank' ? '' : document.readyState")
		if err != nil || state == "complete" {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (t *chromiumTab) Text(ctx context.Context, expression string) (string, error) {
	var got struct {
		Result           struct{ Value string }
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	params := map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true}
	if err := t.call(ctx, t.session, "Runtime.evaluate", params, &got); err != nil {
		return "", err
	}
	if e := got.ExceptionDetails; e != nil {
		return "", errors.New(e.Text + " " + e.Exception.Description)
	}
	return got.Result.Value, nil
}

func (t *chromiumTab) Screenshot(ctx context.Context) ([]byte, error) {
	var shot struct{ Data []byte }
	err := t.call(ctx, t.session, "Page.captureScreenshot", nil, &shot)
	return shot.Data, err
}

func (t *chromiumTab) Close(ctx context.Context) error {
	return t.call(ctx, "", "Target.closeTarget", map[string]any{"targetId": t.target}, nil)
}
