package jetstream_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"

	"lastevent/store/jetstream"
)

var ctx = context.Background()

// oneServer is a NATS server with JetStream that all tests share.
var oneServer = sync.OnceValues(func() (*server.Server, error) {
	dir, err := os.MkdirTemp("", "lastevent-jetstream")
	if err != nil {
		return nil, err
	}
	return startServer(dir)
})

func startServer(dir string) (*server.Server, error) {
	s, err := server.NewServer(&server.Options{
		Host:       "127.0.0.1",
		Port:       server.RANDOM_PORT,
		JetStream:  true,
		StoreDir:   dir,
		MaxPayload: 8 << 20,
		NoLog:      true,
		NoSigs:     true,
	})
	if err != nil {
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return nil, fmt.Errorf("the NATS server is not ready")
	}
	return s, nil
}

func TestMain(m *testing.M) {
	// Each check of the model asks the NATS server a hundred times.
	if err := flag.Set("rapid.checks", "20"); err != nil {
		panic(err)
	}
	flag.Parse()
	status := m.Run()
	if s, err := oneServer(); err == nil {
		s.Shutdown()
		s.WaitForShutdown()
		os.RemoveAll(s.StoreDir())
	}
	if status == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	os.Exit(status)
}

var urls atomic.Int64

// newURL returns the URL of a JetStream stream that is not there yet.
func newURL(t *testing.T) string {
	t.Helper()
	s, err := oneServer()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s/test-%d?replicas=1", s.ClientURL(), urls.Add(1))
}

func open(t *testing.T, url string, o jetstream.Options) *jetstream.DB {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	db, err := jetstream.Open(ctx, url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}
