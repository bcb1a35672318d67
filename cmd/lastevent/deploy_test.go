package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// systemd takes the units as they are, and finds little that they leave open.
func TestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("needs systemd-analyze, of systemd")
	}
	program, err := os.Executable() // any that is there
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"lastevent.service", "lastevent.socket"} {
		unit := strings.ReplaceAll(read(t, "../../deploy/"+name), "/usr/local/bin/lastevent", program)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(unit), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"verify", "--man=no", "lastevent.service", "lastevent.socket"},
		{"security", "--offline=true", "--no-pager", "--threshold=20", "lastevent.service"},
	} {
		cmd := exec.Command(analyze, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil || args[0] == "verify" && len(out) > 0 {
			t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, out)
		}
	}
}

// Each variable that what is deployed sets or speaks of is one of serve.
func TestDeployedVariables(t *testing.T) {
	files, err := filepath.Glob("../../deploy/*")
	if err != nil {
		t.Fatal(err)
	}
	flags, found := serveCommand().Flags(), 0
	for _, file := range append(files, "../../Dockerfile") {
		for _, name := range regexp.MustCompile(`LASTEVENT_[A-Z_]+`).FindAllString(read(t, file), -1) {
			found++
			flag := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, "LASTEVENT_"), "_", "-"))
			if flags.Lookup(flag) == nil {
				t.Errorf("%s: there is no flag --%s for %s", file, flag, name)
			}
		}
	}
	if found == 0 {
		t.Error("no variable was found")
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
