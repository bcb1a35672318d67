// Package page is the demo page, which shows what a resume is, and lastevent.js, the
// client library that it uses and others can.
package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"maps"
	"net/http"
	"slices"
	"time"
)

//go:embed index.html page.css page.js lane.js own.js strip.js lastevent.js lastevent.d.ts
var files embed.FS

// policy lets the page load its own files and connect to its own server, no more.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
	"img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
	"require-trusted-types-for 'script'; trusted-types 'none'"

const script = "text/javascript; charset=utf-8"

// types are the content types, by the patterns of the paths.
var types = map[string]string{
	"/{$}":            "text/html; charset=utf-8",
	"/page.css":       "text/css; charset=utf-8",
	"/page.js":        script,
	"/lane.js":        script,
	"/own.js":         script,
	"/strip.js":       script,
	"/lastevent.js":   script,
	"/lastevent.d.ts": "text/plain; charset=utf-8", // so that browsers show it
}

// Patterns returns the patterns of all paths that the handler serves.
func Patterns() []string { return slices.Sorted(maps.Keys(types)) }

// Handler serves the page at / and its files to GET and HEAD. Any other path is 404,
// any other method 405 with Allow. A cache may keep the files but must ask each time;
// the ETag changes with the content alone.
func Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, contentType := range types {
		mux.Handle("GET "+pattern, file(pattern, contentType))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		mux.ServeHTTP(w, r)
	})
}

func file(pattern, contentType string) http.Handler {
	name := pattern[1:]
	if pattern == "/{$}" {
		name = "index.html"
	}
	content, err := files.ReadFile(name)
	if err != nil {
		panic(err) // the embed directive above does not name it
	}
	sum := sha256.Sum256(content)
	etag := `"` + hex.EncodeToString(sum[:16]) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("ETag", etag)
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(content))
	})
}
