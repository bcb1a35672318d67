package servetest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// RunAs is Run as another user, which root alone can do.
func RunAs(t *testing.T, user uint32, dir string, args ...string) (status int, stderr string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be another user")
	}
	if err := os.Chmod(filepath.Dir(binary), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	return runIn(t, dir, cmd)
}

// Descriptors is how many descriptors the server's process has open.
func (s *Server) Descriptors() int {
	s.t.Helper()
	dir, err := os.Open(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		s.t.Fatal(err)
	}
	return len(names)
}

// LimitDescriptors limits how many descriptors the server's process can open.
func (s *Server) LimitDescriptors(n int) {
	s.t.Helper()
	limit := unix.Rlimit{Cur: uint64(n), Max: uint64(n)}
	if err := unix.Prlimit(s.cmd.Process.Pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		s.t.Fatal(err)
	}
}

// CPU is the time that the server's process has taken, its kernel's included.
func (s *Server) CPU() time.Duration {
	s.t.Helper()
	var t unix.Timespec
	const sched = 2 // CPUCLOCK_SCHED
	if err := unix.ClockGettime(int32(^s.cmd.Process.Pid<<3|sched), &t); err != nil {
		s.t.Fatal(err)
	}
	return time.Duration(t.Nano())
}

var rss = regexp.MustCompile(`(?m)^VmRSS:\s+(\d+) kB$`)

// RSS is the memory of the server's process, in bytes.
func (s *Server) RSS() int {
	s.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	m := rss.FindSubmatch(status)
	if m == nil {
		s.t.Fatalf("no VmRSS: %v", err)
	}
	kib, _ := strconv.Atoi(string(m[1])) // digits
	return kib << 10
}

var goroutine = regexp.MustCompile(`(?m)^created by (\S+)`)

// Goroutines ends the server's process, which then tells what it did, and counts the
// goroutines that it had, without those of the runtime.
func (s *Server) Goroutines() int {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-s.exited:
	case <-time.After(stopsWithin):
		s.t.Fatal("the server does not tell its goroutines")
	}
	n := 0
	for _, m := range goroutine.FindAllStringSubmatch(s.logged(), -1) {
		if !strings.HasPrefix(m[1], "runtime.") {
			n++
		}
	}
	return n
}

// AwaitLog waits until the server's processes have written the text to standard error.
func (s *Server) AwaitLog(text string) {
	s.t.Helper()
	for !strings.Contains(s.logged(), text) {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-s.Ctx.Done():
			s.t.Fatalf("the log does not say %s", text)
		}
	}
}
