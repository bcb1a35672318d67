//go:build long

package store

// long tells that the tests run at their full size: go test -tags long.
const long = true
