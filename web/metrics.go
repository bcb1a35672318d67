package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"lastevent/store"
)

// Metrics counts what a [Server] and its store do, for Prometheus. It is the store's
// [store.Observer], and so has to be there before the store is opened.
type Metrics struct {
	registry *prometheus.Registry

	appends       *prometheus.CounterVec
	appended      prometheus.Counter // of appends, as the usual is looked up in no map
	events, bytes prometheus.Counter
	commitSeconds prometheus.Histogram
	syncSeconds   prometheus.Histogram
	commitEvents  prometheus.Histogram
	failedCommits prometheus.Counter
	evicted       *prometheus.CounterVec

	publishSeconds prometheus.Histogram
	subscriptions  *prometheus.CounterVec
	ends           prometheus.Counter
	cuts           *prometheus.CounterVec
	heartbeats     prometheus.Counter
	requests       *prometheus.CounterVec
}

// NewMetrics returns the metrics of a server and a store that are not there yet. The
// version is that of the program.
func NewMetrics(version string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.appends = m.counters("appends_total", "Appends, by what became of them.", "outcome")
	m.appended = m.appends.WithLabelValues("appended")
	m.appends.WithLabelValues("replayed")
	for _, o := range appendOutcomes {
		m.appends.WithLabelValues(o.name)
	}
	m.events = m.counter("appended_events_total", "Events made durable.")
	m.bytes = m.counter("appended_bytes_total", "Type and data of the events made durable, in bytes.")
	m.commitSeconds = m.histogram("commit_seconds", "How long a commit took.", secondsBuckets)
	m.syncSeconds = m.histogram("sync_seconds", "How long a commit took to write its pages and sync them, twice.", secondsBuckets)
	m.commitEvents = m.histogram("commit_events", "Events made durable by one commit.", prometheus.ExponentialBuckets(1, 4, 8))
	m.failedCommits = m.counter("failed_commits_total", "Commits that failed: nothing of them is stored, or it is unknown.")
	m.evicted = m.counters("evicted_events_total", "Events no longer retained, by the limit that they exceeded, or deleted.", "reason", "number", "bytes", "age", "delete")

	m.publishSeconds = m.histogram("publish_seconds", "How long a publish waited from the end of its body until its events were durable, or refused.", secondsBuckets)
	m.subscriptions = m.counters("subscriptions_total", "Subscriptions that began, by whether the client resumed after an ID.", "resumed", "yes", "no")
	m.ends = m.counter("ends_total", "Subscriptions whose response was complete.")
	m.cuts = m.counters("cuts_total", "Subscriptions that were cut, by why.", "reason", otherReason)
	for _, r := range cutReasons {
		m.cuts.WithLabelValues(r.name)
	}
	m.heartbeats = m.counter("heartbeats_total", "Heartbeats, and positions in their place, written to idle clients.")
	m.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "lastevent_http_requests_total",
		Help: "Requests answered, by method and class of status; none: cut before an answer.",
	}, []string{"method", "status"})

	m.registry.MustRegister(
		m.requests,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "lastevent_build_info",
			Help:        "1; the version is a label.",
			ConstLabels: prometheus.Labels{"version": version},
		}, func() float64 { return 1 }))
	return m
}

// secondsBuckets go from a fast disk's commit to what nobody waits for.
var secondsBuckets = []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10}

func (m *Metrics) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "lastevent_" + name, Help: help})
	m.registry.MustRegister(c)
	return c
}

// counters has a counter for each value of the label, from 0 on for those given.
func (m *Metrics) counters(name, help, label string, values ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lastevent_" + name, Help: help}, []string{label})
	for _, v := range values {
		c.WithLabelValues(v)
	}
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) histogram(name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "lastevent_" + name, Help: help, Buckets: buckets})
	m.registry.MustRegister(h)
	return h
}

// A reason names the errors that count as it.
type reason struct {
	name string
	errs []error
}

// otherReason is of errors that are none of those named.
const otherReason = "error"

// nameOf returns the name of the first reason that err is of.
func nameOf(err error, reasons []reason) string {
	for _, r := range reasons {
		for _, e := range r.errs {
			if errors.Is(err, e) {
				return r.name
			}
		}
	}
	return otherReason
}

// cutReasons are why a client is cut. Whoever cuts for another reason adds it.
var cutReasons = []reason{
	{"draining", []error{errDraining}},
	{"demo", []error{errCut}},
	{"token", []error{errTokenEnded}},
	{"age", []error{errAge}},
	{"overload", []error{errOverloaded, errCrowded}},
	{"unavailable", []error{store.ErrUnavailable}},
	{"slow", []error{os.ErrDeadlineExceeded}},
	// A connection that the client has closed or reset, as writing to it shows.
	{"gone", []error{syscall.EPIPE, syscall.ECONNRESET, syscall.ECONNABORTED, io.ErrClosedPipe, net.ErrClosed, context.Canceled}},
}

// appendOutcomes are why an append was refused or has failed.
var appendOutcomes = []reason{
	{"closed", []error{store.ErrClosed}},
	{"key_reused", []error{store.ErrKeyReused}},
	{"too_large", []error{store.ErrTooLarge}},
	{"too_many_streams", []error{store.ErrTooManyStreams}},
	{"no_space", []error{store.ErrNoSpace}},
	{"unknown", []error{store.ErrUnknown}},
	{"unavailable", []error{store.ErrUnavailable}},
	{"stopped", []error{store.ErrStopped}},
	{"damaged", []error{store.ErrDamaged}},
	{otherReason, nil},
}

// Answered counts an append.
func (m *Metrics) Answered(r store.Receipt, err error) {
	switch {
	case err != nil:
		m.appends.WithLabelValues(nameOf(err, appendOutcomes)).Inc()
	case r.Replayed:
		m.appends.WithLabelValues("replayed").Inc()
	default:
		m.appended.Inc()
	}
}

// Committed counts a commit.
func (m *Metrics) Committed(c store.Commit) {
	if c.Err != nil {
		m.failedCommits.Inc()
		return
	}
	m.commitSeconds.Observe(c.Took.Seconds())
	m.syncSeconds.Observe(c.Sync.Seconds())
	m.commitEvents.Observe(float64(c.Events))
	m.events.Add(float64(c.Events))
	m.bytes.Add(float64(c.Bytes))
	for reason, n := range map[string]uint64{
		"number": c.Evicted.Number, "bytes": c.Evicted.Bytes, "age": c.Evicted.Age, "delete": c.Evicted.Deleted,
	} {
		if n > 0 {
			m.evicted.WithLabelValues(reason).Add(float64(n))
		}
	}
}

// published counts how long a publish waited for the store.
func (m *Metrics) published(since time.Time) { m.publishSeconds.Observe(time.Since(since).Seconds()) }

// left counts how a subscription is over; io.EOF: it is complete.
func (m *Metrics) left(err error) {
	if err == io.EOF {
		m.ends.Inc()
	} else {
		m.cuts.WithLabelValues(nameOf(err, cutReasons)).Inc()
	}
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

func statusClass(status int) string {
	if status == 0 {
		return "none"
	}
	return fmt.Sprintf("%dxx", status/100)
}
