//go:build linux

package bench

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// runClientsHTTP2 is runClients over HTTP/2 and TLS, with a connection and a goroutine
// a client. It measures latencies of all.
func runClientsHTTP2(config clientsConfig, out *json.Encoder) error {
	ctx, cancel := context.WithTimeout(context.Background(), config.Timeout)
	defer cancel()
	var (
		all     = clients{clientsConfig: config, latency: newHistogram()}
		mu      sync.Mutex // guards all
		wg      sync.WaitGroup
		errs    = make(chan error, config.Clients)
		opened  = make(chan struct{}, config.Clients)
		started = time.Now()
	)
	received := func(piece []byte) {
		mu.Lock()
		defer mu.Unlock()
		all.received(piece)
	}
	for i := range config.Clients {
		wg.Go(func() {
			if err := config.follow(ctx, i, opened, received); err != nil {
				errs <- err
				cancel()
			}
			mu.Lock()
			defer mu.Unlock()
			all.finished = time.Now()
		})
	}
	open := 0
	for ; open < config.Clients && ctx.Err() == nil; open++ {
		select {
		case <-opened:
		case <-ctx.Done():
		}
	}
	if err := out.Encode(connected{open, text(firstOf(errs, ctx))}); err != nil {
		return err
	}
	wg.Wait()
	return out.Encode(clientsResult{
		Started:  started.UnixNano(),
		Finished: all.finished.UnixNano(),
		P50:      float64(all.latency.ValueAtQuantile(50)),
		P99:      float64(all.latency.ValueAtQuantile(99)),
		Err:      text(firstOf(errs, ctx)),
	})
}

func firstOf(errs <-chan error, ctx context.Context) error {
	select {
	case err := <-errs:
		return err
	default:
		return ctx.Err()
	}
}

// follow subscribes, says so, and reads until the client has got all.
func (c *clientsConfig) follow(ctx context.Context, i int, opened chan<- struct{}, received func([]byte)) error {
	transport := &http.Transport{
		TLSClientConfig:    &tls.Config{InsecureSkipVerify: true},
		Protocols:          new(http.Protocols),
		DisableCompression: true,
	}
	transport.Protocols.SetHTTP2(true)
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://%s%s%d", c.Host, c.Prefix, i%c.Streams), nil)
	if err != nil {
		return err
	}
	if c.After != "" {
		req.Header.Set("Last-Event-ID", c.After)
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK || res.ProtoMajor != 2 {
		return fmt.Errorf("the server answered %s over %s", res.Status, res.Proto)
	}
	counted := conn{body: true, sample: true}
	for buf := make([]byte, 16<<10); counted.blocks <= c.Expect; {
		n, err := res.Body.Read(buf)
		if n > 0 {
			_ = counted.feed(buf[:n], received) // which fails on chunks only
		}
		if !counted.open && counted.blocks > 0 {
			counted.open = true
			opened <- struct{}{}
		}
		if errors.Is(err, io.EOF) {
			return errors.New("the server ended the response")
		} else if err != nil {
			return err
		}
	}
	return nil
}
