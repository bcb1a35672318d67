package web_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"lastevent/store"
	"lastevent/stream"
	"lastevent/web"
)

// Over HTTP/2, a complete response ends and any other is reset.
func TestHTTP2(t *testing.T) {
	db, err := store.Open(filepath.Join(t.TempDir(), "test.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	server, err := web.New(web.Config{
		Streams:       stream.NewSet(db.Log, db.Streams),
		Log:           zerolog.Nop(),
		Heartbeat:     time.Minute,
		Retry:         time.Second,
		MaxEventBytes: 1 << 20,
		MaxBatchBytes: 1 << 20,
		Ready:         db.Err,
	})
	if err != nil {
		t.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &http.Server{Handler: server, Protocols: protocols}
	go h.Serve(listener)
	transport := &http.Transport{Protocols: protocols}
	defer func() {
		transport.CloseIdleConnections()
		h.Close()
		db.Close()
	}()
	get := func(path string) *bufio.Reader {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+listener.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		if res.ProtoMajor != 2 || res.StatusCode != 200 {
			t.Fatalf("%s %s", res.Proto, res.Status)
		}
		return bufio.NewReader(res.Body)
	}
	publish := func(data string) {
		t.Helper()
		if _, err := db.Log("s").Append(t.Context(), store.Batch{Events: []store.Event{{Type: "message", Data: []byte(data)}}}); err != nil {
			t.Fatal(err)
		}
	}
	readEvent := func(r *bufio.Reader) (event string) {
		t.Helper()
		for !strings.HasSuffix(event, "\n\n") {
			line, err := r.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			event += line
		}
		return event
	}
	live := make([]*bufio.Reader, 100) // on one connection
	for i := range live {
		live[i] = get("/sse/s")
		readEvent(live[i])
	}
	publish("a")
	for _, r := range live {
		if got := readEvent(r); got != "id: 1\ndata: a\n\n" {
			t.Fatalf("event %q", got)
		}
	}
	if all, err := io.ReadAll(get("/sse/s?from=earliest&limit=1")); err != nil || !strings.HasSuffix(string(all), "data: a\n\n") {
		t.Errorf("a complete response: %q, %v", all, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := server.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	for _, r := range live {
		if rest, err := io.ReadAll(r); err == nil {
			t.Fatalf("a response that was cut looks complete; its rest is %q", rest)
		}
	}
}
