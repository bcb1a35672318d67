package store

import (
	"bufio"
	"cmp"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A call is what a recorded process did to the files of a folder, or wrote to its
// ledger, which is outside: in the order in which it did so.
type call struct {
	kind callKind
	file int            // of write, truncate and sync: the file's number
	at   int64          // of write
	data []byte         // of write
	size int64          // of truncate
	name map[string]int // of rename: the file of each name, or noFile
	line string         // of ledger
}

type callKind int

const (
	callLedger   callKind = iota
	callWrite             // when it begins
	callTruncate          // when it begins
	callSync              // when it ends
	callRename            // of a name that is made, linked, moved or removed
	callSyncDir           // when it ends
)

const noFile = -1

// recordedCalls are the calls that a recording knows. Any other way to change a file
// of the folder would go unseen: add it here when the store begins to use it.
const recordedCalls = "openat,close,pwrite64,write,ftruncate,fdatasync,fsync,linkat,renameat,renameat2,unlinkat"

// record runs a test of this package in a process of its own under strace, and
// returns what it did in the folder, and the lines that it wrote to the file ledger.
// What the folder has before is returned as if it had been written and synced.
func record(t *testing.T, test, dir, ledger string, env []string, injections ...string) []call {
	t.Helper()
	p := tracer{
		dir: dir, ledger: ledger,
		open:  map[string]opened{},
		names: map[string]int{},
		begun: map[string]string{},
	}
	must(t, p.readFolder())
	trace := filepath.Join(t.TempDir(), "trace")
	args := []string{"-f", "-qq", "-xx", "-s", "100000000", "-o", trace, "-e", "trace=" + recordedCalls, "-e", "signal=none"}
	for _, i := range injections {
		args = append(args, "-e", "inject="+i)
	}
	executable, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), "strace", append(args, executable, "-test.run=^"+test+"$")...)
	cmd.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=0"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f, err := os.Open(trace)
	must(t, err)
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<30)
	for lines.Scan() {
		if err := p.line(lines.Text()); err != nil {
			t.Fatalf("%v in %.300s", err, lines.Text())
		}
	}
	must(t, lines.Err())
	return p.calls
}

// A tracer reads a trace of strace's.
type tracer struct {
	dir, ledger string

	calls []call
	files int               // numbers given
	open  map[string]opened // by descriptor
	names map[string]int
	begun map[string]string // calls that have not ended, by thread
}

// opened is what a descriptor is open for.
type opened struct {
	file        int
	dir, ledger bool
}

// readFolder enters what there is before the process starts.
func (p *tracer) readFolder() error {
	entries, err := os.ReadDir(p.dir)
	for _, e := range entries {
		data, readErr := os.ReadFile(filepath.Join(p.dir, e.Name()))
		err = cmp.Or(err, readErr)
		p.setNames(map[string]int{e.Name(): p.files})
		p.calls = append(p.calls, call{kind: callWrite, file: p.files, data: data}, call{kind: callSync, file: p.files})
		p.files++
	}
	p.calls = append(p.calls, call{kind: callSyncDir})
	return err
}

func (p *tracer) line(line string) error {
	thread, text, _ := strings.Cut(line, " ")
	text = strings.TrimLeft(text, " ")
	if rest, ok := strings.CutPrefix(text, "<... "); ok { // write resumed>) = 5
		_, rest, _ = strings.Cut(rest, "resumed>")
		text = p.begun[thread] + rest
		delete(p.begun, thread)
		return p.end(text)
	}
	if begun, ok := strings.CutSuffix(text, " <unfinished ...>"); ok {
		p.begun[thread] = begun
		return p.begin(begun)
	}
	if err := p.begin(text); err != nil {
		return err
	}
	return p.end(text)
}

// begin enters a call that may have an effect before it ends.
func (p *tracer) begin(text string) error {
	name, args := splitCall(text)
	if len(args) == 0 {
		return nil
	}
	f, ok := p.open[args[0]]
	if !ok || f.dir {
		return nil
	}
	switch name {
	case "write", "pwrite64":
		data, err := unquote(args[1])
		if size := args[2]; err != nil || strconv.Itoa(len(data)) != size {
			return fmt.Errorf("%d bytes of %s, %w", len(data), size, err)
		}
		if f.ledger {
			p.calls = append(p.calls, call{kind: callLedger, line: strings.TrimSuffix(string(data), "\n")})
			return nil
		}
		if name == "write" {
			return fmt.Errorf("a write without a position")
		}
		at, err := strconv.ParseInt(args[3], 10, 64)
		p.calls = append(p.calls, call{kind: callWrite, file: f.file, at: at, data: data})
		return err
	case "ftruncate":
		size, err := strconv.ParseInt(args[1], 10, 64)
		p.calls = append(p.calls, call{kind: callTruncate, file: f.file, size: size})
		return err
	}
	return nil
}

// end enters the effect of a call that has ended.
func (p *tracer) end(text string) error {
	name, args := splitCall(text)
	i := strings.LastIndex(text, " = ")
	if i < 0 || len(args) == 0 {
		return nil
	}
	result, _, _ := strings.Cut(text[i+3:], " ")
	f, ok := p.open[args[0]]
	if result == "-1" || result == "?" {
		if ok {
			return fmt.Errorf("a call failed")
		}
		return nil
	}
	switch name {
	case "openat":
		return p.openFile(args, result)
	case "close":
		delete(p.open, args[0])
	case "write", "pwrite64":
		if ok && result != args[2] {
			return fmt.Errorf("a write of %s bytes wrote %s", args[2], result)
		}
	case "fdatasync", "fsync":
		switch {
		case ok && f.dir:
			p.calls = append(p.calls, call{kind: callSyncDir})
		case ok:
			p.calls = append(p.calls, call{kind: callSync, file: f.file})
		}
	case "linkat", "renameat", "renameat2", "unlinkat":
		return p.rename(name, args)
	}
	return nil
}

func (p *tracer) openFile(args []string, descriptor string) error {
	path, err := unquote(args[1])
	switch {
	case err != nil:
		return err
	case string(path) == p.ledger:
		p.open[descriptor] = opened{ledger: true}
		return nil
	case string(path) == p.dir:
		p.open[descriptor] = opened{dir: true}
		return nil
	case filepath.Dir(string(path)) != p.dir:
		return nil
	case strings.Contains(args[2], "O_TRUNC") || strings.Contains(args[2], "O_APPEND"):
		return fmt.Errorf("opened in a way that is not followed")
	}
	base := filepath.Base(string(path))
	file, ok := p.names[base]
	if !ok {
		file = p.files
		p.files++
		p.setNames(map[string]int{base: file})
	}
	p.open[descriptor] = opened{file: file}
	return nil
}

func (p *tracer) rename(name string, args []string) error {
	var bases []string // in the folder
	for _, i := range []int{1, 3} {
		if i >= len(args) || !strings.HasPrefix(args[i], `"`) {
			continue
		}
		path, err := unquote(args[i])
		if err != nil {
			return err
		}
		if filepath.Dir(string(path)) == p.dir {
			bases = append(bases, filepath.Base(string(path)))
		}
	}
	switch {
	case len(bases) == 0:
	case name == "unlinkat":
		p.setNames(map[string]int{bases[0]: noFile})
	case len(bases) == 1:
		return fmt.Errorf("a file leaves the folder, or comes into it")
	case name == "linkat":
		p.setNames(map[string]int{bases[1]: p.names[bases[0]]})
	default:
		p.setNames(map[string]int{bases[1]: p.names[bases[0]], bases[0]: noFile})
	}
	return nil
}

func (p *tracer) setNames(names map[string]int) {
	p.calls = append(p.calls, call{kind: callRename, name: names})
	applyNames(p.names, names)
}

func applyNames(names, change map[string]int) {
	for name, file := range change {
		if names[name] = file; file == noFile {
			delete(names, name)
		}
	}
}

// splitCall splits what strace writes of a call, with -xx, or of the begin of one.
func splitCall(text string) (name string, args []string) {
	name, text, _ = strings.Cut(text, "(")
	if i := strings.LastIndex(text, ")"); i >= 0 && !strings.HasSuffix(text, `"`) {
		if j := strings.LastIndex(text, " = "); j >= 0 { // the words of an error have parentheses, too
			i = strings.LastIndex(text[:j], ")")
		}
		text = text[:i]
	}
	return name, strings.Split(text, ", ")
}

// unquote decodes a string as strace writes it with -xx.
func unquote(s string) ([]byte, error) {
	s = strings.TrimSuffix(strings.TrimPrefix(s, `"`), `"`)
	return hex.DecodeString(strings.ReplaceAll(s, `\x`, ""))
}
