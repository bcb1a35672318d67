//go:build unix

package main_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lastevent/cmd/lastevent/servetest"
)

// The server is killed again and again under lastevent publish and lastevent tail, and
// tail is killed, too; and publish loses answers. Who goes on by --state has every line, in order, and lines twice
// only where tail was killed.
func TestPublishAndTailOverKills(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]killedTail{
		"written":                 {lines: 20_000, kills: 10},
		"written, and tail lives": {lines: 20_000, kills: 10, lives: true},
		"run by --exec":           {lines: 200, kills: 10, args: []string{"--exec", `echo "$(cat)" >> got`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.t, test.server, test.dir = t, servetest.Start(t, "--retry", "50ms"), t.TempDir()
			test.run()
		})
	}
}

// A killedTail is a publish and a tail on a server that is killed.
type killedTail struct {
	t      *testing.T
	lines  int
	kills  int
	lives  bool     // tail is not killed
	args   []string // of tail
	server *servetest.Server
	dir    string
	tail   *exec.Cmd
}

func (k *killedTail) run() {
	t := k.t
	badNetwork := servetest.StartProxy(t, k.server.Addr, servetest.Faults{CutAfter: func() int64 { return rand.Int64N(1000) }})
	publish := k.command("publish", "--url", "http://"+badNetwork.Addr, "--close", "lines")
	lines, feed := io.Pipe()
	publish.Stdin = lines
	if err := publish.Start(); err != nil {
		t.Fatal(err)
	}
	k.startTail()
	for kill := range k.kills {
		each := k.lines / k.kills
		for n := range each {
			fmt.Fprintln(feed, kill*each+n+1)
		}
		k.await(kill*each + rand.IntN(each))
		if k.server.Kill(); !k.lives {
			k.killTail()
		}
		k.server.Restart()
		if !k.lives {
			k.startTail()
		}
	}
	feed.Close()
	if err := publish.Wait(); err != nil {
		t.Fatalf("publish: %v\n%s", err, publish.Stderr)
	}
	if err := k.tail.Wait(); err != nil {
		t.Fatalf("tail: %v\n%s", err, k.tail.Stderr)
	}
	got, err := os.ReadFile(filepath.Join(k.dir, "got"))
	if err != nil {
		t.Fatal(err)
	}
	k.check(string(got))
}

// await waits until there are so many lines.
func (k *killedTail) await(lines int) {
	for {
		got, err := os.ReadFile(filepath.Join(k.dir, "got"))
		if err != nil || k.server.Ctx.Err() != nil {
			k.t.Fatalf("%d of %d lines came, %v", bytes.Count(got, []byte("\n")), lines, err)
		}
		if bytes.Count(got, []byte("\n")) >= lines {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func (k *killedTail) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(k.server.Ctx, servetest.Program(k.t), args...)
	cmd.Dir, cmd.Stderr = k.dir, new(bytes.Buffer)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// startTail starts a tail that goes on with the state and the file of the one before. If
// that was killed in the middle of a line, it is for the next to write it.
func (k *killedTail) startTail() {
	got, err := os.OpenFile(filepath.Join(k.dir, "got"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		k.t.Fatal(err)
	}
	defer got.Close()
	text, err := io.ReadAll(got)
	if err == nil {
		err = got.Truncate(int64(bytes.LastIndexByte(text, '\n') + 1))
	}
	k.tail = k.command(append([]string{"tail", "--url", k.server.URL, "--state", "state", "--from", "earliest", "lines"}, k.args...)...)
	k.tail.Stdout = got
	if err == nil {
		err = k.tail.Start()
	}
	if err != nil {
		k.t.Fatal(err)
	}
}

// killTail kills it together with a command that it runs.
func (k *killedTail) killTail() {
	_ = syscall.Kill(-k.tail.Process.Pid, syscall.SIGKILL) // it cannot be gone before the stream ends
	_ = k.tail.Wait()
}

func (k *killedTail) check(got string) {
	last, backs := 0, 0
	for line := range strings.Lines(got) {
		var n int
		if _, err := fmt.Sscanln(line, &n); err != nil || n < 1 || n > last+1 {
			k.t.Fatalf("after line %d comes %q", last, line)
		}
		if n <= last {
			backs++
		}
		last = n
	}
	if last != k.lines {
		k.t.Errorf("the last of %d lines is %d", k.lines, last)
	}
	if backs > k.kills || k.lives && backs > 0 {
		k.t.Errorf("went back %d times at %d kills", backs, k.kills)
	}
	k.t.Logf("%d lines, repeated from %d of %d kills on", strings.Count(got, "\n"), backs, k.kills)
}
