//go:build unix

package servetest

import (
	"context"
	"os/exec"
	"testing"
)

// Node runs tests that are written for node's own runner. They find the path of the
// program in the variable PROGRAM.
func Node(t *testing.T, files ...string) {
	t.Helper()
	path, err := exec.LookPath("node")
	if err != nil {
		t.Skip("needs node, of version 20 or later")
	}
	if err := lookAtSources(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, append([]string{"--test", "--test-reporter=spec"}, files...)...)
	cmd.Env = environment("PROGRAM=" + binary)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
