//go:build linux

// Package browser drives real browsers, for tests: Chromium, Firefox and WebKit, as
// Debian has them, without a window. It does what the tests need and no more.
package browser

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// startsWithin is how long a browser may take to start.
const startsWithin = time.Minute

// A Browser is a running browser with a profile of its own.
type Browser interface {
	// NewTab opens an empty tab. Where the browser has windows, it is visible, as
	// pages that are not are slowed down.
	NewTab(ctx context.Context) (Tab, error)
	// Close ends the browser and removes its profile.
	Close()
}

// A Tab shows one page at a time.
type Tab interface {
	// Open loads a page, and returns once it is there.
	Open(ctx context.Context, url string) error
	// Text evaluates an expression of JavaScript in the page, and returns the string
	// that it gives.
	Text(ctx context.Context, expression string) (string, error)
	// Screenshot returns what the page looks like, as a PNG.
	Screenshot(ctx context.Context) ([]byte, error)
	// Close closes the tab, as a user does.
	Close(ctx context.Context) error
}

// Names are the browsers that Start knows.
var Names = []string{"chromium", "firefox", "webkit"}

// Start starts the browser of that name. An error that is exec.ErrNotFound says that
// it is not installed.
func Start(ctx context.Context, name string) (Browser, error) {
	starters := map[string]func(context.Context, string) (Browser, error){
		"chromium": startChromium, "firefox": startFirefox, "webkit": startWebKit,
	}
	start := starters[name]
	if start == nil {
		return nil, fmt.Errorf("browser %q is not one of %q", name, Names)
	}
	dir, err := os.MkdirTemp("", "browser-")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startsWithin)
	defer cancel()
	b, err := start(ctx, dir)
	if err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	return b, nil
}

// Eval evaluates an expression in the tab's page, and decodes its value.
func Eval(ctx context.Context, t Tab, expression string, value any) error {
	text, err := t.Text(ctx, "JSON.stringify("+expression+")")
	if err != nil {
		return fmt.Errorf("evaluating %.200s: %w", expression, err)
	}
	return json.Unmarshal([]byte(text), value)
}

// A process is a browser's, with its children.
type process struct {
	cmd  *exec.Cmd
	dir  string // its own, removed at the end
	done chan struct{}
}

// startProcess starts a program that says on standard error what to connect to: the
// first group of the pattern.
func startProcess(ctx context.Context, dir, pattern string, cmd *exec.Cmd) (*process, string, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	p := &process{cmd: cmd, dir: dir, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		defer close(p.done)
		runtime.LockOSThread() // the signal comes when the thread ends
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it is killed
		}
		w.Close()
	}()
	if err := <-started; err != nil {
		return nil, "", err
	}
	said := make(chan string, 1)
	go func() {
		looking := regexp.MustCompile(pattern)
		var all strings.Builder
		for lines := bufio.NewScanner(r); lines.Scan(); {
			if m := looking.FindStringSubmatch(lines.Text()); m != nil {
				said <- m[1]
				break
			}
			all.WriteString(lines.Text() + "\n")
		}
		_, _ = io.Copy(io.Discard, r)
		close(said)
	}()
	select {
	case address, ok := <-said:
		if ok {
			return p, address, nil
		}
	case <-ctx.Done():
	}
	p.kill()
	return nil, "", errors.New("it does not say where it listens")
}

func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // an error says that it is gone
	<-p.done
	os.RemoveAll(p.dir)
}
