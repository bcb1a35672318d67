//go:build !long

package servetest

// Long tells that the tests run at their full size, which takes hours:
// go test -tags long.
const Long = false
