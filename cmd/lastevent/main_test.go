//go:build unix

package main_test

import (
	"testing"

	"lastevent/cmd/lastevent/servetest"
)

func TestMain(m *testing.M) { servetest.Main(m) }
