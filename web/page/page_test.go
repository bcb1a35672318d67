package page

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// contentTypes are those of all files, by path.
var contentTypes = map[string]string{
	"/":               "text/html; charset=utf-8",
	"/page.css":       "text/css; charset=utf-8",
	"/page.js":        "text/javascript; charset=utf-8",
	"/lane.js":        "text/javascript; charset=utf-8",
	"/own.js":         "text/javascript; charset=utf-8",
	"/strip.js":       "text/javascript; charset=utf-8",
	"/lastevent.js":   "text/javascript; charset=utf-8",
	"/lastevent.d.ts": "text/plain; charset=utf-8",
}

func serve(method, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, r)
	return w
}

func body(path string) string { return serve("GET", path).Body.String() }

func TestFiles(t *testing.T) {
	if got := len(Patterns()); got != len(contentTypes) {
		t.Errorf("%d paths are served, %d are tested", got, len(contentTypes))
	}
	etags := map[string]string{}
	for path, contentType := range contentTypes {
		get := serve("GET", path)
		if get.Code != 200 || get.Body.Len() == 0 {
			t.Fatalf("GET %s: %d with %d bytes", path, get.Code, get.Body.Len())
		}
		for name, want := range map[string]string{
			"Content-Type":           contentType,
			"X-Content-Type-Options": "nosniff",
			"Referrer-Policy":        "no-referrer",
			"Cache-Control":          "no-cache",
		} {
			if got := get.Header().Get(name); got != want {
				t.Errorf("GET %s: %s is %q, want %q", path, name, got, want)
			}
		}

		etag := get.Header().Get("ETag")
		if other, taken := etags[etag]; taken || etag == "" {
			t.Errorf("GET %s: ETag %q is that of %q", path, etag, other)
		}
		etags[etag] = path
		if again := serve("GET", path, "If-None-Match", etag); again.Code != 304 || again.Body.Len() != 0 {
			t.Errorf("GET %s with its ETag: %d with %d bytes, want 304 with none", path, again.Code, again.Body.Len())
		}

		head := serve("HEAD", path)
		if head.Code != 200 || head.Body.Len() != 0 || head.Header().Get("ETag") != etag {
			t.Errorf("HEAD %s: %d with %d bytes and ETag %q", path, head.Code, head.Body.Len(), head.Header().Get("ETag"))
		}
	}
}

// The page can load and reach its own server, and nothing else.
func TestPolicy(t *testing.T) {
	for path := range contentTypes {
		policy := map[string]string{}
		for directive := range strings.SplitSeq(serve("GET", path).Header().Get("Content-Security-Policy"), ";") {
			name, value, _ := strings.Cut(strings.TrimSpace(directive), " ")
			policy[name] = value
		}
		for name, want := range map[string]string{
			"default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "connect-src": "'self'",
			"base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
		} {
			if policy[name] != want {
				t.Errorf("GET %s: %s is %q, want %q", path, name, policy[name], want)
			}
		}
		if all := fmt.Sprint(policy); strings.Contains(all, "unsafe") || strings.Contains(all, "*") || strings.Contains(all, "http") {
			t.Errorf("GET %s: the policy is %s", path, all)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, path := range []string{"/index.html", "/page.go", "/favicon.ico", "/page.js/", "/testing.mjs"} {
		if w := serve("GET", path); w.Code != 404 {
			t.Errorf("GET %s: %d, want 404", path, w.Code)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		for path := range contentTypes {
			w := serve(method, path)
			if allow := w.Header().Get("Allow"); w.Code != http.StatusMethodNotAllowed || allow != "GET, HEAD" {
				t.Errorf("%s %s: %d, Allow %q", method, path, w.Code, allow)
			}
		}
	}
}

// The policy would block what is inline, and a visitor would see a broken page. No file
// names another host, but for the name of SVG.
func TestNothingInlineOrForeign(t *testing.T) {
	for path := range contentTypes {
		content := strings.ReplaceAll(body(path), "http://www.w3.org/2000/svg", "")
		if found := regexp.MustCompile(`(https?|wss?):|["'(]//`).FindString(content); found != "" {
			t.Errorf("%s has %s", path, found)
		}
	}
	if found := regexp.MustCompile(`<style|style=|<script>|\son\w+=`).FindString(body("/")); found != "" {
		t.Errorf("index.html has %s", found)
	}
	if found := regexp.MustCompile(`url\(|@import`).FindString(body("/page.css")); found != "" {
		t.Errorf("page.css has %s", found)
	}
}

// The scripts find elements by ID; one that is missing would stop them. Tests in browsers
// rely on those that the comment in index.html names.
func TestElements(t *testing.T) {
	html := body("/")
	comment := html[strings.Index(html, "<!--"):strings.Index(html, "-->")]
	ids := regexp.MustCompile(`\$\("([^"]+)"\)`).FindAllStringSubmatch(body("/page.js"), -1)
	named := regexp.MustCompile(`#([a-z-]+)`).FindAllStringSubmatch(comment, -1)
	if len(ids) < 10 || len(named) < 10 {
		t.Fatalf("page.js looks for %d elements, the comment names %d", len(ids), len(named))
	}
	for _, id := range append(ids, named...) {
		if strings.Count(html, `id="`+id[1]+`"`) != 1 {
			t.Errorf("index.html does not have one id=%q", id[1])
		}
	}
}

func TestLibrarySize(t *testing.T) {
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(body("/lastevent.js"))); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if packed.Len() > 3<<10 {
		t.Errorf("lastevent.js has %d bytes compressed, more than 3 KiB", packed.Len())
	}
}

// The types are of what is there: the one function, each option that it reads, and what
// it returns.
func TestLibraryTypes(t *testing.T) {
	js, types := body("/lastevent.js"), body("/lastevent.d.ts")
	exports := regexp.MustCompile(`(?m)^export (?:default |async )?\w+ (\w+)`).FindAllStringSubmatch(js, -1)
	if len(exports) != 1 || !strings.Contains(types, "export function "+exports[0][1]+"(") {
		t.Errorf("lastevent.js exports %v", exports)
	}
	options := types[strings.Index(types, "interface Options {"):]
	options = options[:strings.Index(options, "\n}")]
	var typed []string
	for _, m := range regexp.MustCompile(`(?m)^  (\w+)\?[:(]`).FindAllStringSubmatch(options, -1) {
		typed = append(typed, m[1])
	}
	read := []string{"share"}
	for _, m := range regexp.MustCompile(`call\("(\w+)"`).FindAllStringSubmatch(js, -1) {
		read = append(read, m[1])
	}
	destructured := regexp.MustCompile(`const \{ (.*) \} = options;`).FindStringSubmatch(js)
	if destructured == nil || !strings.Contains(js, "options.share") {
		t.Fatal("lastevent.js reads no options")
	}
	for option := range strings.SplitSeq(destructured[1], ", ") {
		read = append(read, strings.Fields(option)[0])
	}
	slices.Sort(typed)
	slices.Sort(read)
	if read = slices.Compact(read); !slices.Equal(typed, read) {
		t.Errorf("typed are %v, read are %v", typed, read)
	}
	for _, state := range regexp.MustCompile(`(?:become|stop)\("(\w+)"`).FindAllStringSubmatch(js, -1) {
		if !strings.Contains(types, `"`+state[1]+`"`) {
			t.Errorf("the state %s has no type", state[1])
		}
	}
}
