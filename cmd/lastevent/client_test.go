//go:build unix

package main_test

import (
	"testing"

	"lastevent/cmd/lastevent/servetest"
)

// The client library for pages, lastevent.js, against the program.
func TestClientLibrary(t *testing.T) {
	t.Parallel()
	servetest.Node(t, "../../web/page/lastevent.test.mjs", "../../web/page/tabs.test.mjs")
}
