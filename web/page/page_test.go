package page

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func serve(method, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, r)
	return w
}

func TestFiles(t *testing.T) {
	etags := map[string]string{}
	for path, contentType := range map[string]string{
		"/":               "text/html; charset=utf-8",
		"/page.css":       "text/css; charset=utf-8",
		"/page.js":        "text/javascript; charset=utf-8",
		"/lane.js":        "text/javascript; charset=utf-8",
		"/own.js":         "text/javascript; charset=utf-8",
		"/strip.js":       "text/javascript; charset=utf-8",
		"/lastevent.js":   "text/javascript; charset=utf-8",
		"/lastevent.d.ts": "text/plain; charset=utf-8",
	} {
		get := serve("GET", path)
		if get.Code != 200 || get.Body.Len() == 0 {
			t.Fatalf("GET %s: %d with %d bytes", path, get.Code, get.Body.Len())
		}
		for name, want := range map[string]string{
			"Content-Type":            contentType,
			"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
			"X-Content-Type-Options":  "nosniff",
			"Referrer-Policy":         "no-referrer",
			"Cache-Control":           "no-cache",
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

func TestRefusals(t *testing.T) {
	for _, path := range []string{"/index.html", "/page.go", "/favicon.ico", "/page.js/"} {
		if w := serve("GET", path); w.Code != 404 {
			t.Errorf("GET %s: %d, want 404", path, w.Code)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		for _, path := range []string{"/", "/page.css", "/page.js"} {
			w := serve(method, path)
			if allow := w.Header().Get("Allow"); w.Code != http.StatusMethodNotAllowed || allow != "GET, HEAD" {
				t.Errorf("%s %s: %d, Allow %q", method, path, w.Code, allow)
			}
		}
	}
}

// The policy would block them, and a visitor would see a broken page.
func TestNothingInlineOrForeign(t *testing.T) {
	html := serve("GET", "/").Body.String()
	for _, blocked := range []string{`<style`, `style="`, `<script>`, `onclick=`, `src="http`, `href="http`, `src="//`, `href="//`} {
		if strings.Contains(html, blocked) {
			t.Errorf("index.html has %s", blocked)
		}
	}
	if css := serve("GET", "/page.css").Body.String(); strings.Contains(css, "url(") || strings.Contains(css, "@import") {
		t.Error("page.css loads something")
	}
}

// page.js finds elements by ID; one that is missing would stop it.
func TestScriptFindsItsElements(t *testing.T) {
	html, js := serve("GET", "/").Body.String(), serve("GET", "/page.js").Body.String()
	ids := regexp.MustCompile(`\$\("([^"]+)"\)`).FindAllStringSubmatch(js, -1)
	if len(ids) == 0 {
		t.Fatal("page.js looks for no element")
	}
	for _, id := range ids {
		if strings.Count(html, `id="`+id[1]+`"`) != 1 {
			t.Errorf("index.html does not have one id=%q", id[1])
		}
	}
}
