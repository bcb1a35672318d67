//go:build unix

package main_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"lastevent/cmd/lastevent/servetest"
)

// TestScripts runs the scripts in testdata, each beside a server of its own, at
// $LASTEVENT_URL. Beside the usual commands of testscript there are
//
//	status N PROGRAM ARG…   PROGRAM must exit with status N
//	await FILE REGEXP       waits until the file has such text
//	server kill|start|stop  kills, starts or stops the server
//
// A first line "# serve FLAG…" gives the server flags.
func TestScripts(t *testing.T) {
	t.Parallel()
	scripts, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txt"), func(t *testing.T) {
			t.Parallel()
			runScript(t, script)
		})
	}
}

func runScript(t *testing.T, script string) {
	text, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	var flags []string
	first, _, _ := strings.Cut(string(text), "\n")
	if args, ok := strings.CutPrefix(first, "# serve "); ok {
		flags = strings.Fields(args)
	}
	server := servetest.Start(t, flags...)
	bin := filepath.Dir(servetest.Program(t))
	testscript.Run(t, testscript.Params{
		Files:              []string{script},
		RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+string(filepath.ListSeparator)+env.Getenv("PATH"))
			env.Setenv("LASTEVENT_URL", server.URL)
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": exitsWith,
			"await":  awaitText,
			"server": func(ts *testscript.TestScript, _ bool, args []string) {
				switch strings.Join(args, " ") {
				case "kill":
					server.Kill()
				case "start":
					server.Restart()
				case "stop":
					server.Stop()
				default:
					ts.Fatalf("usage: server kill|start|stop")
				}
			},
		},
	})
}

func exitsWith(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N PROGRAM ARG…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		got = e.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

func awaitText(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE REGEXP")
	}
	wanted, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && wanted.Match(text) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s has no %s within a minute: %q, %v", args[0], wanted, text, err)
		}
	}
}
