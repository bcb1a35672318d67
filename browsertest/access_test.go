//go:build linux

package browsertest

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lastevent/cmd/lastevent/servetest"
)

// secret is the file of a secret.
func (v *visit) secret() string {
	v.Helper()
	file := filepath.Join(v.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(rand.Text()+rand.Text()), 0o600); err != nil {
		v.Fatal(err)
	}
	return file
}

// site starts a site of another origin than the server's, whose page is empty and leaves
// a cookie. Cookies do not know ports, so the server gets it too.
func (v *visit) site(cookie string) (url string) {
	v.Helper()
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "session", Value: cookie, HttpOnly: true})
		fmt.Fprint(w, "<!doctype html><title>another origin</title>")
	}))
	v.Cleanup(site.Close)
	return site.URL
}

// tryAll makes a page do all that it can with a stream of another origin, with its cookie:
// what comes of each is in done, or "not allowed".
const tryAll = `
	window.done = {}; window.ids = [];
	const url = %q, credentials = "include";
	const note = (name, result) => result.then((r) => (done[name] = r), () => (done[name] = "not allowed"));
	note("publish", fetch(url, { method: "POST", body: "event 1", credentials, headers: { "Idempotency-Key": "k" } })
		.then(async (r) => r.status + " " + (await r.json()).id));
	note("head", fetch(url, { method: "HEAD", credentials }).then((r) => r.status + " " + (r.headers.get("Stream-Log") !== null)));
	note("refused", fetch(url, { credentials: "omit" }).then(async (r) => r.status + " " + (await r.json()).status));
	const load = (script) => document.head.append(Object.assign(document.createElement("script"), { type: "module" }, script));
	const src = new URL("/lastevent.js", url).href;
	load({ src, onerror: () => (done.module = "not allowed") });
	load({ textContent: "import { subscribe } from '" + src + "'; use(subscribe);" });
	window.use = (subscribe) => {
		done.module = "imported";
		subscribe(url + "?from=earliest", { credentials, event: (e) => ids.push(e.id) });
	};`

// A page of an origin that is allowed subscribes, publishes and reads, with a cookie. One
// of another does none of these.
func crossOrigin(v *visit) {
	secret := v.secret()
	token := strings.TrimSpace(servetest.Output(v.T, "token", "--secret-file", secret, "--publish", "s", "--subscribe", "s"))
	allowed, other := v.site(token), v.site(token)
	v.start("--jwt-secret-file", secret, "--cookie", "session", "--cors-origin", allowed)
	url := "http://" + v.proxy.Addr + "/sse/s"
	for _, test := range []struct {
		site string
		want []string
	}{
		{other, []string{"not allowed", "not allowed", "not allowed", "not allowed"}},
		{allowed, []string{"201 1", "200 true", "401 401", "imported"}},
	} {
		t := v.openURL(test.site)
		t.run(strings.Replace(collect, "(%q)", "(%q, { withCredentials: true })", 1), url)
		if test.site == allowed {
			t.waitPositions(1)
		} else {
			t.wait("the EventSource to be refused", func() bool { return value[int](t, "source.readyState") == 2 })
		}
		t.run(tryAll, url)
		t.wait("all to be done", func() bool { return value[int](t, "Object.keys(done).length") == 4 })
		if got := value[[]string](t, "[done.publish, done.head, done.refused, done.module]"); !slices.Equal(got, test.want) {
			t.Errorf("at %s: %q; want %q", test.site, got, test.want)
		}
		if test.site == allowed {
			t.has(1, 1)
			t.wait("the library to have the event", func() bool { return value[string](t, "ids.join()") == "1" })
		}
	}
}

// The page says in words that it needs a token.
func pageWithoutToken(v *visit) {
	v.start("--time-every", "15ms", "--jwt-secret-file", v.secret())
	t := v.open("/")
	t.waitState("stopped")
	notes := func() string { return value[string](t, "document.getElementById('notes').textContent") }
	t.wait("words", func() bool { return notes() != "" })
	if !strings.Contains(notes(), "The server refused: this needs a token") {
		t.Errorf("the page says %q", notes())
	}
	t.run("document.getElementById('own-name').value = 'mine'; document.getElementById('publish').click()")
	t.wait("words of the own stream", func() bool {
		return strings.Count(value[string](t, "document.getElementById('own-events').textContent"), "this needs a token") == 2
	})
	t.photograph("without a token")
}
