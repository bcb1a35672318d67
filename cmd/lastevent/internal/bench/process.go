//go:build linux

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// startTimeout is how long a process may take to begin.
const startTimeout = time.Minute

// command prepares a process of this program. It ends with the context, and with
// this process, but not by a signal to the whole terminal.
func (b *bench) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, b.exe, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "LASTEVENT_") })
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// A server is a process that serves streams, or a remote one, of which only the
// address is known.
type server struct {
	addr string // IP and port
	host string
	tls  bool // by HTTP/2 to subscribers
	pid  int  // 0: remote
	cmd  *exec.Cmd
	file string
}

// start starts the target. The flags are for lastevent alone.
func (b *bench) start(ctx context.Context, t target, flags ...string) (*server, error) {
	if t == lastevent && b.remote != nil {
		return b.remote, nil
	}
	if t == lastevent {
		return b.serve(ctx, b.newFile(), flags...)
	}
	return b.listen(ctx, b.command(ctx, "bench", "play", string(t)))
}

// serve starts lastevent on the file.
func (b *bench) serve(ctx context.Context, file string, flags ...string) (*server, error) {
	args := append([]string{"serve", "--listen", "127.0.0.1:0", "--db", file, "--time-every", "0"}, flags...)
	s, err := b.listen(ctx, b.command(ctx, args...))
	if err == nil {
		s.file = file
	}
	return s, err
}

// newFile names a file that does not exist.
func (b *bench) newFile() string {
	b.names++
	return filepath.Join(b.dir, strconv.Itoa(b.names)+".db")
}

// listen starts a server and waits until it says on standard error where it serves.
func (b *bench) listen(ctx context.Context, cmd *exec.Cmd) (*server, error) {
	log := &logReader{addr: make(chan string, 1)}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{pid: cmd.Process.Pid, cmd: cmd}
	select {
	case s.addr = <-log.addr:
		s.host = s.addr
		return s, nil
	case <-ctx.Done():
	case <-time.After(startTimeout):
	case <-log.ended(cmd):
	}
	s.stop()
	return nil, fmt.Errorf("%s did not start: %s", strings.Join(cmd.Args[1:], " "), log)
}

// stop ends the process and removes its file.
func (s *server) stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may have ended
	_ = s.cmd.Wait()
	if s.file != "" {
		_ = os.Remove(s.file)
	}
}

// A logReader finds in a log where its server listens.
type logReader struct {
	addr chan string

	mu   sync.Mutex // guards text
	text bytes.Buffer
}

var urlField = regexp.MustCompile(`"url":"https?://([^"]+)"`)

func (l *logReader) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.text.Len() < 64<<10 {
		l.text.Write(p)
	}
	if m := urlField.FindSubmatch(l.text.Bytes()); m != nil {
		select {
		case l.addr <- string(m[1]):
		default:
		}
	}
	return len(p), nil
}

func (l *logReader) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.TrimSpace(l.text.String())
}

// ended is closed once the process is gone.
func (l *logReader) ended(cmd *exec.Cmd) <-chan struct{} {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
	}()
	return gone
}

// cpu is the CPU time that the process has taken, its kernel's included, in µs. It
// is NaN for a remote server, as are the others.
func (s *server) cpu() float64 {
	if s.pid == 0 {
		return math.NaN()
	}
	var t unix.Timespec
	const sched = 2 // CPUCLOCK_SCHED: exact, where /proc/PID/stat counts ticks of 10 ms
	if err := unix.ClockGettime(int32(^s.pid<<3|sched), &t); err != nil {
		return math.NaN()
	}
	return float64(t.Nano()) / 1e3
}

// memory is a field of /proc/PID/status, in KiB.
func (s *server) memory(field string) float64 {
	if s.pid == 0 {
		return math.NaN()
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	if err != nil {
		return math.NaN()
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kib, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib
		}
	}
	return math.NaN()
}

// resetPeak makes VmHWM the peak from now on.
func (s *server) resetPeak() error {
	if s.pid == 0 {
		return nil
	}
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.pid), []byte("5"), 0)
}

// settled waits until what f measures has not changed by more than a hundredth for
// a second, for ten seconds at most.
func settled(ctx context.Context, f func() (float64, error)) (float64, error) {
	last, err := f()
	for calm, tries := 0, 0; calm < 4 && tries < 40 && err == nil; tries++ {
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		var now float64
		now, err = f()
		calm++
		if math.Abs(now-last) > last/100 {
			calm = 0
		}
		last = now
	}
	return last, err
}

// A role is what a process of this program does, and says in JSON on its standard
// output.
type role func(config []byte, out *json.Encoder) error

var roles = map[string]role{
	string(classic): serveClassic,
	string(limit):   serveLimit,
	"clients":       with(runClients),
	"clients-http2": with(runClientsHTTP2),
	"append":        with(runAppends),
}

// Play makes this process play a role in a run: that of the clients, of one of the
// servers to compare with, of a program that uses the library. The config is JSON.
func Play(name, config string) error {
	play, ok := roles[name]
	if !ok {
		return fmt.Errorf("there is no role %q", name)
	}
	return play([]byte(config), json.NewEncoder(os.Stdout))
}

// with makes a role of a function that takes its config decoded.
func with[T any](f func(T, *json.Encoder) error) role {
	return func(config []byte, out *json.Encoder) error {
		var c T
		if err := json.Unmarshal(config, &c); err != nil {
			return err
		}
		return f(c, out)
	}
}

// A player is a process in a role.
type player struct {
	cmd    *exec.Cmd
	out    *json.Decoder
	stderr bytes.Buffer
}

func (b *bench) play(ctx context.Context, name string, config any) (*player, error) {
	text, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	p := &player{cmd: b.command(ctx, "bench", "play", name, string(text))}
	p.cmd.Stderr = &p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = json.NewDecoder(out)
	return p, p.cmd.Start()
}

// next waits for what the player says next.
func (p *player) next(v any) error {
	err := p.out.Decode(v)
	if errors.Is(err, io.EOF) {
		_ = p.cmd.Wait()
		return fmt.Errorf("%s broke off: %s", p.cmd.Args[3], strings.TrimSpace(p.stderr.String()))
	}
	return err
}

func (p *player) stop() {
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()
}
