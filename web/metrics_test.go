package web_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lastevent/store"
	"lastevent/stream"
	"lastevent/web"
)

// scrape reads all metrics of the server's own: "name{labels}" without lastevent_.
func (s *host) scrape(t testing.TB) map[string]float64 {
	t.Helper()
	w := httptest.NewRecorder()
	s.Admin().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("scraping: %d %s", w.Code, w.Body)
	}
	series := map[string]float64{}
	for line := range strings.Lines(w.Body.String()) {
		name, ours := strings.CutPrefix(strings.TrimSpace(line), "lastevent_")
		i := strings.LastIndex(name, " ")
		if !ours || i < 0 {
			continue
		}
		v, err := strconv.ParseFloat(name[i+1:], 64)
		if err != nil {
			t.Errorf("%q: %v", line, err)
		}
		series[name[:i]] = v
	}
	return series
}

// wantMetrics checks that what is in want is all of a scrape that has one of the names
// and is not 0.
func (s *host) wantMetrics(t testing.TB, names []string, want map[string]float64) {
	t.Helper()
	got := s.scrape(t)
	for series, v := range got {
		name, _, _ := strings.Cut(series, "{")
		if slices.Contains(names, name) && v != want[series] {
			t.Errorf("%s is %v, want %v", series, v, want[series])
		}
	}
	for series, v := range want {
		if _, ok := got[series]; !ok {
			t.Errorf("%s is missing, want %v", series, v)
		}
	}
}

func TestMetricsOfAppends(t *testing.T) {
	s := newHost(t, setup{retention: store.Retention{Events: 2, Bytes: 100}, config: func(c *web.Config) {
		c.Inside.Streams = []string{"x", "never", "x"}
	}})
	keyed := []string{"Content-Type: application/x-ndjson", "Idempotency-Key: k"}
	batch := `{"data":"a"}` + "\n" + `{"data":"b"}` + "\n" + `{"data":"c"}`
	for _, request := range []struct {
		target, body string
		headers      []string
		status       int
	}{
		{"x", batch, keyed, 201},
		{"x", batch, keyed, 201}, // replayed
		{"x", "other", keyed[1:], 422},
		{"x", strings.Repeat("x", 200), nil, 413},
		{"y?close=true", "d", nil, 201},
		{"y", "e", nil, 409},
		{"x", "\xff", nil, 400}, // not for the store
	} {
		if w := s.do(t, "POST", "/sse/"+request.target, request.body, request.headers...); w.Code != request.status {
			t.Errorf("POST %s %q: %d %s", request.target, request.body, w.Code, w.Body)
		}
	}
	if w := s.do(t, "DELETE", "/sse/y", ""); w.Code != 204 {
		t.Error(w.Code)
	}
	s.wantMetrics(t, []string{
		"appends_total", "appended_events_total", "appended_bytes_total", "commit_seconds_count", "sync_seconds_count",
		"commit_events_count", "commit_events_sum", "failed_commits_total", "evicted_events_total", "publish_seconds_count",
		"http_requests_total", "streams", "stream_first", "stream_last", "stream_bytes", "stream_clients", "ready", "build_info",
	}, map[string]float64{
		`appends_total{outcome="appended"}`:                 2,
		`appends_total{outcome="replayed"}`:                 1,
		`appends_total{outcome="key_reused"}`:               1,
		`appends_total{outcome="too_large"}`:                1,
		`appends_total{outcome="closed"}`:                   1,
		"appended_events_total":                             4,
		"appended_bytes_total":                              4 * float64(len("message")+1),
		"commit_seconds_count":                              3,
		"sync_seconds_count":                                3,
		"commit_events_count":                               3,
		"commit_events_sum":                                 4,
		"failed_commits_total":                              0,
		`evicted_events_total{reason="number"}`:             1,
		`evicted_events_total{reason="delete"}`:             1,
		"publish_seconds_count":                             6,
		`http_requests_total{method="POST",status="2xx"}`:   3,
		`http_requests_total{method="POST",status="4xx"}`:   4,
		`http_requests_total{method="DELETE",status="2xx"}`: 1,
		"streams":                        2,
		`stream_first{stream="x"}`:       2,
		`stream_last{stream="x"}`:        3,
		`stream_bytes{stream="x"}`:       2 * float64(len("message")+1),
		`stream_clients{stream="x"}`:     0,
		`stream_first{stream="never"}`:   1,
		`stream_last{stream="never"}`:    0,
		`stream_bytes{stream="never"}`:   0,
		`stream_clients{stream="never"}`: 0,
		"ready":                          1,
		`build_info{version="test"}`:     1,
	})
	if got := s.scrape(t); got["file_bytes"] < 4096 || got["file_free_bytes"] >= got["file_bytes"] {
		t.Errorf("the file has %v bytes, %v of them free", got["file_bytes"], got["file_free_bytes"])
	}
}

// A store that is not a file has no figures of one.
func TestMetricsWithoutAFile(t *testing.T) {
	s := newHost(t, setup{config: func(c *web.Config) {
		c.Inside.Stats = func() (store.Stats, error) { return store.Stats{Streams: 7}, nil }
	}})
	got := s.scrape(t)
	for name := range got {
		if strings.HasPrefix(name, "file_") || strings.HasPrefix(name, "disk_") {
			t.Errorf("there is %s", name)
		}
	}
	if got["streams"] != 7 {
		t.Errorf("%v streams", got["streams"])
	}
}

var clientMetrics = []string{
	"clients", "max_lag_events", "delivered_events_total", "replayed_events_total", "subscriptions_total", "ends_total", "cuts_total", "heartbeats_total",
}

func TestMetricsOfClients(t *testing.T) {
	s := overTCP(t, setup{})
	s.publish(t, "x", "1", "2", "3")
	live := s.subscribe(t, "/sse/x?lastEventId=1")
	for range 3 {
		live.next(t)
	}
	s.publish(t, "x", "4")
	live.next(t)
	s.untilLive(t, 1)
	s.wantMetrics(t, clientMetrics, map[string]float64{
		`clients{state="live"}`:              1,
		"delivered_events_total":             3,
		"replayed_events_total":              2,
		`subscriptions_total{resumed="yes"}`: 1,
	})
	limited := s.subscribe(t, "/sse/x?from=earliest&limit=3")
	for range 4 {
		limited.next(t)
	}
	if w := s.do(t, "GET", "/sse/x?follow=false", ""); w.Code != 200 || strings.Count(w.Body.String(), "\n") != 4 {
		t.Errorf("a read: %d %s", w.Code, w.Body)
	}
	s.untilClients(t, 1)
	live.Close()
	s.untilClients(t, 0)
	s.publish(t, "x", "5") // to nobody
	until(t, "the client's end is counted", func() bool { return s.scrape(t)[`cuts_total{reason="gone"}`] == 1 })
	s.wantMetrics(t, clientMetrics, map[string]float64{
		"delivered_events_total":             3 + 3 + 4,
		"replayed_events_total":              2 + 3 + 4, // the first got its third from memory
		`subscriptions_total{resumed="yes"}`: 1,
		`subscriptions_total{resumed="no"}`:  1,
		"ends_total":                         1,
		`cuts_total{reason="gone"}`:          1,
	})
}

func TestMetricsOfLag(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, s *host) {
		const events = 200 // several blocks
		for seq := uint64(1); seq < events; seq += 10 {
			s.publishNumbers(t, "x", seq, seq+9, strings.Repeat("x", 900))
		}
		live, replaying := s.subscribe(t, "/sse/x"), s.subscribe(t, "/sse/x?lastEventId=0")
		live.position(t)
		replaying.position(t)
		synctest.Wait()
		got := s.scrape(t)
		if lag := got["max_lag_events"]; lag == 0 || lag == events || lag+got["delivered_events_total"] != events {
			t.Errorf("%v events were delivered, and the lag is %v", got["delivered_events_total"], lag)
		}
		if got[`clients{state="live"}`] != 1 || got[`clients{state="replaying"}`] != 1 {
			t.Errorf("%v", got)
		}
		for range events {
			replaying.next(t)
		}
		replaying.settle(t)
		synctest.Wait()
		time.Sleep(20 * time.Second)
		live.settle(t)
		replaying.settle(t)
		synctest.Wait()
		s.wantMetrics(t, clientMetrics, map[string]float64{
			`clients{state="live"}`:              2,
			"max_lag_events":                     0,
			"delivered_events_total":             events,
			"replayed_events_total":              events,
			`subscriptions_total{resumed="no"}`:  1,
			`subscriptions_total{resumed="yes"}`: 1,
			"heartbeats_total":                   2,
		})
	})
}

// Those who are live together have their heartbeats counted, too.
func TestMetricsOfHeartbeats(t *testing.T) {
	s := overTCP(t, setup{config: func(c *web.Config) { c.Heartbeat = 10 * time.Millisecond }})
	s.subscribe(t, "/sse/x")
	s.untilLive(t, 1)
	until(t, "heartbeats are counted", func() bool { return s.scrape(t)["heartbeats_total"] >= 2 })
}

// cuts is how many were cut, by reason, where any was.
func (s *host) cuts(t testing.TB) map[string]float64 {
	t.Helper()
	got := s.scrape(t)
	maps.DeleteFunc(got, func(series string, n float64) bool { return !strings.HasPrefix(series, "cuts_total") || n == 0 })
	return got
}

func TestMetricsOfCuts(t *testing.T) {
	for reason, cut := range map[string]func(*testing.T, *host){
		"draining": func(t *testing.T, s *host) {
			s.subscribe(t, "/sse/time").position(t)
			synctest.Wait()
			if err := s.Drain(t.Context()); err != nil {
				t.Error(err)
			}
			if ready := s.scrape(t)["ready"]; ready != 0 {
				t.Errorf("ready is %v", ready)
			}
		},
		"demo": func(t *testing.T, s *host) {
			s.subscribe(t, mine).position(t)
			synctest.Wait()
			s.do(t, "POST", "/demo/cut?client=0123456789abcdef&for=3s", "")
		},
		"slow": func(t *testing.T, s *host) {
			s.subscribe(t, "/sse/time") // takes nothing
			s.publish(t, "time", "1")
			time.Sleep(40 * time.Second)
		},
		"gone": func(t *testing.T, s *host) {
			sub := s.subscribe(t, "/sse/time")
			sub.position(t)
			synctest.Wait()
			sub.Close()
			s.publish(t, "time", "1")
		},
		"error": func(t *testing.T, s *host) {
			s.publish(t, "time", "1")
			s.subscribe(t, "/sse/time?from=earliest")
		},
	} {
		t.Run(reason, func(t *testing.T) {
			failing := func(l stream.Log) stream.Log { return failingLog{l} }
			inBubble(t, setup{config: withDemo, log: failing}, func(t *testing.T, s *host) {
				cut(t, s)
				synctest.Wait()
				want := map[string]float64{fmt.Sprintf("cuts_total{reason=%q}", reason): 1}
				if got := s.cuts(t); !maps.Equal(got, want) {
					t.Errorf("%v, want %v", got, want)
				}
			})
		})
	}
}

// readUntilCut reads what cannot be read to its end.
func (s *host) readUntilCut(t testing.TB, target string, headers ...string) {
	defer func() {
		if err := recover(); err != http.ErrAbortHandler {
			t.Errorf("a read that fails is not cut: %v", err)
		}
	}()
	s.do(t, "GET", target, "", headers...)
}

// A failingLog cannot be read.
type failingLog struct{ stream.Log }

func (l failingLog) Read(context.Context, uint64, func(store.Event) bool) (store.Bounds, error) {
	return store.Bounds{}, errors.New("broken")
}

func TestMetricsOfGaps(t *testing.T) {
	s := newHost(t, setup{retention: store.Retention{Events: 3}, log: func(l stream.Log) stream.Log { return holedLog{l} }})
	s.publish(t, "x", "1", "2", "3", "4", "5", "6")
	for _, query := range []string{"lastEventId=1", "lastEventId=7", "lastEventId=4&log=another", "lastEventId=4"} {
		if w := s.do(t, "GET", "/sse/x?follow=false&"+query, ""); w.Code != 200 {
			t.Errorf("%s: %d", query, w.Code)
		}
	}
	s.do(t, "GET", "/sse/x?follow=false", "", "Last-Event-ID: nonsense")
	s.wantMetrics(t, []string{"gaps_total", "missed_events_total"}, map[string]float64{
		`gaps_total{reason="evicted"}`:          1,
		`gaps_total{reason="ahead"}`:            1,
		`gaps_total{reason="reset"}`:            1,
		`gaps_total{reason="unknown"}`:          1,
		`gaps_total{reason="corrupt"}`:          5,
		`missed_events_total{reason="evicted"}`: 2,
		`missed_events_total{reason="corrupt"}`: 5,
	})
}

// A holedLog has no event 5 any more.
type holedLog struct{ stream.Log }

func (l holedLog) Read(ctx context.Context, after uint64, yield func(store.Event) bool) (store.Bounds, error) {
	if after == 4 {
		b, _ := l.Bounds(ctx)
		return b, &store.CorruptError{Stream: "x", First: 5, Last: 5}
	}
	return l.Log.Read(ctx, after, func(e store.Event) bool { return e.Seq != 5 && yield(e) })
}

// Two servers count apart.
func TestMetricsAreOneServers(t *testing.T) {
	s := newHost(t, setup{})
	c := usual(stream.NewSet(s.db.Log, s.db.Streams))
	c.Inside.Metrics = web.NewMetrics("")
	first, err := web.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Drain(t.Context())
	if _, err := web.New(c); err == nil || !strings.Contains(err.Error(), "metrics") {
		t.Errorf("a second server with the metrics of the first: %v", err)
	}
}
