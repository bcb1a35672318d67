//go:build unix

package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Each command has a man page, made of its own help.
func TestManPages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "go", "run", "-tags", "man", ".", "man", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for page, want := range map[string]string{
		"lastevent":         `\fBlastevent-tail(1)\fP`,
		"lastevent-serve":   `\fB--retain-events\fP=100000`,
		"lastevent-publish": `lastevent publish greetings hello`,
		"lastevent-tail":    `.TH "LASTEVENT-TAIL" "1"`,
		"lastevent-copy":    `.TH "LASTEVENT-COPY" "1"`,
		"lastevent-doctor":  `lastevent-doctor - Find out what stands between`,
	} {
		text, err := os.ReadFile(filepath.Join(dir, page+".1"))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s.1 has no %q, %v:\n%s", page, want, err, text)
		}
	}
}
