//go:build linux

package browsertest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	launchdarkly "github.com/launchdarkly/eventsource"
	r3labs "github.com/r3labs/sse/v2"
	tmaxmax "github.com/tmaxmax/go-sse"

	"lastevent/browsertest/browser"
)

// A message is an event as a client gave it to its user.
type message struct{ ID, Type, Data string }

// An inbox takes what a subscription gets.
type inbox struct {
	mu  sync.Mutex
	all []message
}

func (in *inbox) take(m message) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.all = append(in.all, m)
}

func (in *inbox) messages() []message {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.all)
}

// A subscriber subscribes to a URL with one client, for as long as the context.
type subscriber func(ctx context.Context, url string) *inbox

// startClients returns all clients that are tested.
func startClients(t *testing.T) map[string]subscriber {
	t.Helper()
	clients := map[string]subscriber{
		"launchdarkly/eventsource": subscribeLaunchDarkly,
		"tmaxmax/go-sse":           subscribeTmaxmax,
		"r3labs/sse":               subscribeR3labs,
	}
	installNPM(t)
	for _, name := range []string{
		"eventsource 5", "eventsource 3", "eventsource 2", "eventsource-client", "launchdarkly-eventsource", "undici",
	} {
		clients[name] = startNode(t, name)
	}
	library := startLibrary(t)
	for _, name := range []string{"EventSource", "event-source-polyfill", "fetch-event-source", "sse.js", "htmx"} {
		clients[name] = func(ctx context.Context, url string) *inbox { return library.subscribe(ctx, t, name, url) }
	}
	return clients
}

func subscribeLaunchDarkly(ctx context.Context, url string) *inbox {
	in := new(inbox)
	go func() {
		ignore := launchdarkly.StreamOptionErrorHandler(func(error) (r launchdarkly.StreamErrorHandlerResult) { return r })
		stream, err := launchdarkly.SubscribeWithURL(url, ignore)
		if err != nil {
			return // nothing comes
		}
		defer stream.Close()
		for {
			select {
			case e := <-stream.Events:
				in.take(message{e.Id(), e.Event(), e.Data()})
			case <-ctx.Done():
				return
			}
		}
	}()
	return in
}

func subscribeTmaxmax(ctx context.Context, url string) *inbox {
	in := new(inbox)
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return in
	}
	conn := tmaxmax.NewConnection(req)
	conn.Buffer(nil, 2<<20)
	conn.SubscribeToAll(func(e tmaxmax.Event) { in.take(message{e.LastEventID, e.Type, e.Data}) })
	go func() { _ = conn.Connect() }() // nothing more comes
	return in
}

func subscribeR3labs(ctx context.Context, url string) *inbox {
	in := new(inbox)
	client := r3labs.NewClient(url, r3labs.ClientMaxBufferSize(2<<20))
	go func() {
		_ = client.SubscribeRawWithContext(ctx, func(e *r3labs.Event) {
			in.take(message{string(e.ID), string(e.Event), string(e.Data)})
		})
	}()
	return in
}

// installNPM installs the packages that npm/package-lock.json names, if they are not
// there.
func installNPM(t *testing.T) {
	t.Helper()
	lock, err := os.Stat("npm/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	installed, err := os.Stat("npm/node_modules/.package-lock.json")
	if err == nil && installed.ModTime().After(lock.ModTime()) {
		return
	}
	cmd := exec.Command("npm", "ci", "--no-audit", "--no-fund")
	cmd.Dir = "npm"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
}

// startNode starts a process of Node with one client, for all its subscriptions.
func startNode(t *testing.T, name string) subscriber {
	t.Helper()
	cmd := exec.Command("node", "npm/node.mjs", name)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var (
		mu      sync.Mutex // guards inboxes, and writing to stdin
		inboxes []*inbox
		read    = make(chan struct{})
	)
	go func() {
		defer close(read)
		lines := bufio.NewReader(stdout)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				return
			}
			var m struct {
				N int
				message
			}
			if err := json.Unmarshal(line, &m); err != nil {
				t.Errorf("%s: %q", name, line)
				return
			}
			mu.Lock()
			in := inboxes[m.N]
			mu.Unlock()
			in.take(m.message)
		}
	}()
	t.Cleanup(func() {
		stdin.Close()
		<-read
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, stderr.String())
		}
	})
	return func(_ context.Context, url string) *inbox {
		mu.Lock()
		defer mu.Unlock()
		in := new(inbox)
		fmt.Fprintf(stdin, "{\"n\":%d,\"url\":%q}\n", len(inboxes), url) // one that is gone says so at the end
		inboxes = append(inboxes, in)
		return in
	}
}

// A library is Chromium, for clients that are made for browsers.
type library struct {
	browser browser.Browser
	script  string
}

func startLibrary(t *testing.T) *library {
	t.Helper()
	b, err := browser.Start(t.Context(), "chromium")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	sources := map[string]string{}
	for _, name := range []string{
		"@microsoft/fetch-event-source/lib/cjs/fetch.js", "@microsoft/fetch-event-source/lib/cjs/parse.js",
		"event-source-polyfill/src/eventsource.js", "sse.js/lib/sse.js", "htmx.org/dist/htmx.js", "htmx-ext-sse/sse.js",
	} {
		source, err := os.ReadFile(filepath.Join("npm/node_modules", name))
		if err != nil {
			t.Fatal(err)
		}
		sources[name] = string(source)
	}
	text, err := json.Marshal(sources)
	if err != nil {
		t.Fatal(err)
	}
	clients, err := os.ReadFile("npm/chromium.js")
	if err != nil {
		t.Fatal(err)
	}
	return &library{b, fmt.Sprintf("(() => { const sources = %s;\n%s\n return 'ready'; })()", text, clients)}
}

// subscribe subscribes in a tab of its own, in a page of the URL's origin.
func (l *library) subscribe(ctx context.Context, t *testing.T, client, url string) *inbox {
	in := new(inbox)
	origin, _, _ := strings.Cut(url, "/sse/")
	tab, err := l.browser.NewTab(ctx)
	if err == nil {
		err = tab.Open(ctx, origin+"/healthz")
	}
	if err == nil {
		_, err = tab.Text(ctx, l.script)
	}
	if err == nil {
		_, err = tab.Text(ctx, fmt.Sprintf("subscribe(0, %q, %q) ?? 'ok'", client, strings.TrimPrefix(url, origin)))
	}
	if err != nil {
		t.Errorf("%s: %v", client, err)
		return in
	}
	go func() {
		for {
			var more []message
			if err := browser.Eval(ctx, tab, "received[0].splice(0)", &more); err != nil {
				if ctx.Err() == nil {
					t.Errorf("%s: %v", client, err)
				}
				break
			}
			for _, m := range more {
				in.take(m)
			}
			select {
			case <-time.After(250 * time.Millisecond):
				continue
			case <-ctx.Done():
			}
			break
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = tab.Close(ctx) // the browser may be gone
	}()
	return in
}
