package servetest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// NeedStrace skips the test where strace cannot trace; CI has to have it.
func NeedStrace(t *testing.T) {
	t.Helper()
	out, err := exec.Command("strace", "-f", "-qq", "-o", os.DevNull, "-e", "trace=none", "true").CombinedOutput()
	if err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("strace does not work: %v %s", err, out)
	}
	t.Skipf("needs strace, and the right to trace: %v %s", err, out)
}

// straceArgs have strace write to log what it tampers with, and how: as its option
// -e inject says.
func straceArgs(log string, injections ...string) []string {
	args := []string{"-f", "-qq", "-o", log}
	var calls []string
	for _, i := range injections {
		call, _, _ := strings.Cut(i, ":")
		calls = append(calls, call)
		args = append(args, "-e", "inject="+i)
	}
	return append(args, "-e", "trace="+strings.Join(calls, ","))
}

// RunInjected is Run under strace's injections, of which each counts the calls of one
// thread. It returns their log as well.
func RunInjected(t *testing.T, dir string, injections []string, args ...string) (status int, stderr, trace string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	log := filepath.Join(t.TempDir(), "trace")
	cmd := exec.CommandContext(ctx, "strace", append(append(straceArgs(log, injections...), binary), args...)...)
	cmd.Dir, cmd.Env = dir, environment()
	var out strings.Builder
	cmd.Stderr = &out
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), string(readFile(t, log))
}

// Inject has strace tamper with the server's system calls from now on; it counts
// those of each thread from here. The log is complete once the server has ended.
func (s *Server) Inject(injection string) (log func() string) {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "trace")
	pid := s.cmd.Process.Pid
	cmd := exec.Command("strace", append(straceArgs(path, injection), "-p", fmt.Sprint(pid))...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it ends with the server, and with its status
		close(ended)
	}()
	for !isTraced(pid) {
		select {
		case <-ended:
			s.t.Fatalf("strace: %s", &stderr)
		case <-time.After(time.Millisecond):
		}
	}
	return func() string {
		<-ended
		return string(readFile(s.t, path))
	}
}

// isTraced reports whether all threads of the process are.
func isTraced(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, path := range threads {
		status, readErr := os.ReadFile(path)
		if readErr != nil || strings.Contains(string(status), "TracerPid:\t0\n") {
			return false
		}
	}
	return err == nil && len(threads) > 0
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
