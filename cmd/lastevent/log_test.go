package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// What clients send cannot look like a line of its own, nor move the cursor of a terminal.
func TestLogLinesCannotBeForged(t *testing.T) {
	const hostile = "x\n12:00:00 ERR forged\r\x1b[2J\u2028\u0085"
	for name, terminal := range map[string]bool{"JSON": false, "a terminal": true} {
		var plain, out bytes.Buffer
		for text, buf := range map[string]*bytes.Buffer{"x": &plain, hostile: &out} {
			log := newLoggerTo(buf, terminal, "debug")
			log.Error().Err(errors.New(text)).Str("stream", text).Str("path", text).Msg("request failed")
			if _, err := (logWriter{log}).Write([]byte(text)); err != nil {
				t.Error(err)
			}
		}
		if n := strings.Count(out.String(), "\n"); n != 2 {
			t.Errorf("%s: %d lines, want 2: %q", name, n, out.String())
		}
		if terminal && strings.ContainsAny(out.String(), "\r\u2028\u0085") || strings.Count(out.String(), "\x1b[") != strings.Count(plain.String(), "\x1b[") {
			t.Errorf("%s: %q", name, out.String())
		}
	}
}
