//go:build linux

package browsertest

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lastevent/cmd/lastevent/servetest"
)

// host is what the configurations in ../deploy call the server.
const host = "events.example.com"

// A front is a proxy that people put before the server, with its configuration in
// ../deploy.
type front struct {
	name, config, program string
	// listen and compress are parts of the configuration, and what they become for a
	// test: where it listens, and how events are compressed, if the proxy is so
	// inclined.
	listen, compress [2]string
	// main is the configuration that has ours in it; %s is its file.
	main string
	args []string // %s is the file of main
	// hidesCuts says that clients cannot tell a cut from an end.
	hidesCuts bool
}

var fronts = []front{
	{
		"nginx", "nginx.conf", "nginx",
		[2]string{"listen 80;", "listen 127.0.0.1:PORT;"},
		[2]string{"location / {", "gzip on; gzip_proxied any; gzip_types text/plain text/event-stream; location / {"},
		"pid nginx.pid; error_log error.log; events {} http { access_log off; include %s; }",
		[]string{"-p", ".", "-c", "%s", "-e", "error.log", "-g", "daemon off;"},
		false,
	},
	{
		"HAProxy", "haproxy.cfg", "haproxy",
		[2]string{"bind :80", "bind 127.0.0.1:PORT"},
		[2]string{"mode http", "mode http\n\tcompression algo gzip\n\tcompression type text/plain text/event-stream"},
		"",
		[]string{"-db", "-f", "%s"},
		false,
	},
	{
		"Caddy", "Caddyfile", "caddy",
		[2]string{host + " {", "http://" + host + ":PORT {"},
		[2]string{"reverse_proxy", "encode gzip\n\treverse_proxy"},
		"{\n\tadmin off\n}\nimport %s\n",
		[]string{"run", "--adapter", "caddyfile", "--config", "%s"},
		true, // up to 2.7
	},
	{
		"Apache", "apache.conf", "apache2",
		[2]string{"<VirtualHost *:80>", "Listen 127.0.0.1:PORT\n<VirtualHost *:PORT>"},
		[2]string{"ProxyPreserveHost", "SetOutputFilter DEFLATE\n\tProxyPreserveHost"},
		apacheMain,
		[]string{"-f", "%s", "-D", "FOREGROUND"},
		false,
	},
}

const apacheMain = `
ServerRoot .
PidFile apache.pid
ErrorLog error.log
ServerName localhost
DefaultRuntimeDir .
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule filter_module /usr/lib/apache2/modules/mod_filter.so
LoadModule deflate_module /usr/lib/apache2/modules/mod_deflate.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
LoadModule slotmem_shm_module /usr/lib/apache2/modules/mod_slotmem_shm.so
LoadModule proxy_balancer_module /usr/lib/apache2/modules/mod_proxy_balancer.so
LoadModule lbmethod_byrequests_module /usr/lib/apache2/modules/mod_lbmethod_byrequests.so
User www-data
Group www-data
Include %s
`

// start runs the proxy before the server at addr, and returns its own address.
func (f front) start(t *testing.T, addr string, compressed bool) string {
	t.Helper()
	program, err := exec.LookPath(f.program)
	if err != nil {
		t.Skip("needs " + f.program)
	}
	config, err := os.ReadFile(filepath.Join("../deploy", f.config))
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(servetest.FreeAddr(t))
	text := replace(t, string(config), "localhost:8080", addr)
	text = replace(t, text, f.listen[0], strings.ReplaceAll(f.listen[1], "PORT", port))
	if compressed {
		text = replace(t, text, f.compress[0], f.compress[1])
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, f.config)
	write(t, file, text)
	if f.main != "" {
		write(t, filepath.Join(dir, "main"), fmt.Sprintf(f.main, file))
		file = filepath.Join(dir, "main")
	}
	cmd := exec.Command(program)
	for _, arg := range f.args {
		cmd.Args = append(cmd.Args, strings.ReplaceAll(arg, "%s", file))
	}
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // an error says that it is gone
		_ = cmd.Wait()
		if t.Failed() {
			errors, _ := os.ReadFile(filepath.Join(dir, "error.log"))
			t.Logf("%s says:\n%s%s", f.name, &out, errors[max(0, len(errors)-4000):])
		}
	})
	addr = "127.0.0.1:" + port
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return addr
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func replace(t *testing.T, text, old, with string) string {
	t.Helper()
	if strings.Count(text, old) < 1 {
		t.Fatalf("the configuration has no %q", old)
	}
	return strings.ReplaceAll(text, old, with)
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// named is a client that calls the server by the name that the proxies know.
func named() *http.Client { return &http.Client{Transport: naming{new(http.Transport)}} }

type naming struct{ http.RoundTripper }

func (n naming) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Host = host
	return n.RoundTripper.RoundTrip(req)
}
