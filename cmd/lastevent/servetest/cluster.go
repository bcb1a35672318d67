//go:build unix

package servetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// natsServer builds the nats-server that go.mod names.
var natsServer = sync.OnceValues(func() (path string, err error) {
	path = filepath.Join(filepath.Dir(binary), "nats-server")
	out, err := exec.Command("go", "build", "-o", path, "github.com/nats-io/nats-server/v2").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build nats-server: %w\n%s", err, out)
	}
	return path, nil
})

// A Cluster is nats-servers with JetStream that reach each other through proxies alone,
// so that they can be cut off from each other.
type Cluster struct {
	Servers []*NATSServer

	t      *testing.T
	routes map[route]*Proxy
}

// A route is from the server with one index to that with another.
type route struct{ from, to int }

// StartCluster starts so many nats-servers, which last as long as the test, and waits
// until they are a cluster.
func StartCluster(t *testing.T, servers int) *Cluster {
	t.Helper()
	c := &Cluster{t: t, routes: map[route]*Proxy{}}
	for i := range servers {
		c.Servers = append(c.Servers, prepareNATS(t, fmt.Sprint("n", i+1)))
	}
	for from := range c.Servers {
		for to, server := range c.Servers {
			if from != to {
				c.routes[route{from, to}] = StartProxy(t, server.routes, Faults{})
			}
		}
	}
	for i, s := range c.Servers {
		s.configure(c.routesFrom(i))
		s.Start()
	}
	c.Await(time.Minute)
	return c
}

func (c *Cluster) routesFrom(i int) (urls []string) {
	for r, proxy := range c.routes {
		if r.from == i {
			urls = append(urls, "nats-route://"+proxy.Addr)
		}
	}
	return urls
}

// checkRoutes says whether a connection between two servers is missing, or is one that no
// cut would reach.
func (c *Cluster) checkRoutes() error {
	ends, through := 0, 0
	for _, s := range c.Servers {
		var routes struct {
			Number int `json:"num_routes"`
		}
		if err := s.monitor("/routez", &routes); err != nil {
			return err
		}
		ends += routes.Number
	}
	for _, proxy := range c.routes {
		through += proxy.Connections()
	}
	// Each two have one for clients and one for the cluster itself.
	if n := len(c.Servers); through != n*(n-1) || ends != 2*through {
		return fmt.Errorf("the nats-servers have %d ends of connections between them, and the proxies %d connections", ends, through)
	}
	return nil
}

// Await waits until all servers are connected, and say that they and all that they keep
// is well.
func (c *Cluster) Await(patience time.Duration) {
	c.t.Helper()
	for over := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		err := c.unwell()
		if err == nil {
			return
		}
		if time.Now().After(over) {
			c.t.Fatalf("after %v the cluster is not whole: %v", patience, err)
		}
	}
}

func (c *Cluster) unwell() error {
	var errs []error
	for _, s := range c.Servers {
		var health struct{ Status, Error string }
		if err := s.monitor("/healthz", &health); err != nil {
			errs = append(errs, err)
		} else if health.Status != "ok" {
			errs = append(errs, fmt.Errorf("%s: %s", s.Name, health.Error))
		}
	}
	return errors.Join(append(errs, c.checkRoutes())...)
}

// Leader is the index of the server that leads a JetStream stream.
func (c *Cluster) Leader(stream string) (int, error) {
	var errs []error
	for _, s := range c.Servers {
		var state jetStreamState
		if err := s.monitor("/jsz?streams=true", &state); err != nil {
			errs = append(errs, err)
			continue
		}
		leader := state.leader(stream)
		for i, s := range c.Servers {
			if s.Name == leader {
				return i, nil
			}
		}
	}
	return 0, errors.Join(append(errs, fmt.Errorf("no nats-server leads %s", stream))...)
}

type jetStreamState struct {
	Accounts []struct {
		Streams []struct {
			Name    string
			Cluster struct{ Leader string }
		} `json:"stream_detail"`
	} `json:"account_details"`
}

func (s jetStreamState) leader(stream string) string {
	for _, account := range s.Accounts {
		for _, st := range account.Streams {
			if st.Name == stream {
				return st.Cluster.Leader
			}
		}
	}
	return ""
}

// Cut cuts a server off from the others: nothing arrives any more, until Heal.
func (c *Cluster) Cut(server int) {
	for r, proxy := range c.routes {
		if r.from == server || r.to == server {
			proxy.Partition()
		}
	}
}

// Heal ends all cuts. What was sent meanwhile arrives, unless the connections break.
func (c *Cluster) Heal(breaks bool) {
	for _, proxy := range c.routes {
		proxy.heal(breaks)
	}
}

func (p *Proxy) heal(breaks bool) {
	if breaks {
		p.Reset()
	}
	p.Heal()
}

// Links are the network between somebody and each nats-server, in their order.
type Links []*Proxy

// Links makes the network for one who can be cut off from the servers.
func (c *Cluster) Links() (l Links) {
	c.t.Helper()
	for _, s := range c.Servers {
		l = append(l, StartProxy(c.t, s.Addr, Faults{}))
	}
	return l
}

// URL is that of all servers.
func (l Links) URL() string {
	var urls []string
	for _, proxy := range l {
		urls = append(urls, "nats://"+proxy.Addr)
	}
	return strings.Join(urls, ",")
}

// Cut cuts all links: nothing arrives any more, until Heal.
func (l Links) Cut() {
	for _, proxy := range l {
		proxy.Partition()
	}
}

// Heal ends all cuts, as Cluster.Heal does.
func (l Links) Heal(breaks bool) {
	for _, proxy := range l {
		proxy.heal(breaks)
	}
}

// A NATSServer is a process of nats-server, and those that follow it in the same folder
// and at the same ports. Its methods are for the test's goroutine.
type NATSServer struct {
	Name string
	Addr string // for clients

	t      *testing.T
	dir    string
	routes string // the address for other servers
	http   string // the address for monitoring
	cmd    *exec.Cmd
}

func prepareNATS(t *testing.T, name string) *NATSServer {
	t.Helper()
	s := &NATSServer{Name: name, Addr: FreeAddr(t), t: t, dir: t.TempDir(), routes: FreeAddr(t), http: FreeAddr(t)}
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("the log of nats-server %s ends:\n%s", name, s.logged(1<<20))
		}
	})
	return s
}

// configure writes the configuration. Other servers are told an address at which nobody
// is, so that they do not connect past the proxies.
func (s *NATSServer) configure(routes []string) {
	s.t.Helper()
	text := fmt.Sprintf(`
server_name: %s
listen: %q
http: %q
log_file: %q
jetstream { store_dir: %q }
cluster {
	name: lastevent
	listen: %q
	advertise: "127.0.0.1:1"
	no_advertise: true
	pool_size: 1
	routes: ["%s"]
}
`, s.Name, s.Addr, s.http, s.path("log"), s.path("jetstream"), s.routes, strings.Join(routes, `", "`))
	if err := os.WriteFile(s.path("conf"), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *NATSServer) path(name string) string { return filepath.Join(s.dir, name) }

// Start starts the process, also again after Kill.
func (s *NATSServer) Start() {
	s.t.Helper()
	path, err := natsServer()
	if err != nil {
		s.t.Fatal(err)
	}
	s.cmd = exec.Command(path, "-c", s.path("conf"))
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
}

// Kill ends the process as kill -9 does, also one that is paused.
func (s *NATSServer) Kill() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	_ = s.cmd.Process.Kill() // an error says that it is gone already
	_ = s.cmd.Wait()
}

// Pause stops the process, which does not know of it, until Continue.
func (s *NATSServer) Pause() { signal(s.t, s.cmd, syscall.SIGSTOP) }

// Continue ends a pause.
func (s *NATSServer) Continue() { signal(s.t, s.cmd, syscall.SIGCONT) }

// Pause stops the server's process, which does not know of it, until Continue.
func (s *Server) Pause() { signal(s.t, s.cmd, syscall.SIGSTOP) }

// Continue ends a pause.
func (s *Server) Continue() { signal(s.t, s.cmd, syscall.SIGCONT) }

func signal(t *testing.T, cmd *exec.Cmd, sig os.Signal) {
	t.Helper()
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatalf("%v: %v", sig, err)
	}
}

// monitor asks the server, which may be down or paused, about itself.
func (s *NATSServer) monitor(path string, answer any) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+s.http+path, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return json.NewDecoder(res.Body).Decode(answer)
}

// logged is the end of the log, at most so many bytes.
func (s *NATSServer) logged(most int64) string {
	f, err := os.Open(s.path("log"))
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > most {
		_, _ = f.Seek(-most, io.SeekEnd)
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
