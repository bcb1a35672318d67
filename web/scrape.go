package web

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"lastevent/stream"
)

// A scrape is the metrics that are read from the server when somebody asks for them.
type scrape struct{ server *Server }

var (
	clientsDesc   = desc("clients", "Clients: live, or replaying what has to be read from the store.", "state")
	lagDesc       = desc("max_lag_events", "How many events the client that is farthest behind still has to get.")
	deliveredDesc = desc("delivered_events_total", "Events given to clients, those of replays among them.")
	replayedDesc  = desc("replayed_events_total", "Events given to clients that had to be read from the store.")
	gapsDesc      = desc("gaps_total", "Gaps that clients were told of, by reason.", "reason")
	missedDesc    = desc("missed_events_total", "Events that these gaps span, as far as that is known.", "reason")
	readyDesc     = desc("ready", "1 if the store can append and the server does not drain, as at /readyz; else 0.")
	streamsDesc   = desc("streams", "Streams ever written.")
	fileDesc      = desc("file_bytes", "Size of the file that holds the events.")
	freeDesc      = desc("file_free_bytes", "Room in the file that is used before it grows.")
	diskDesc      = desc("disk_free_bytes", "Room on the disk that the file is on, as far as it is for this process.")
	firstDesc     = desc("stream_first", "Sequence of the oldest retained event of a stream.", "stream")
	lastDesc      = desc("stream_last", "Sequence of the newest event of a stream.", "stream")
	bytesDesc     = desc("stream_bytes", "Type and data of the retained events of a stream, in bytes.", "stream")
	followersDesc = desc("stream_clients", "Clients of a stream.", "stream")
)

// scrapeDescs are all of these.
var scrapeDescs []*prometheus.Desc

func desc(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc("lastevent_"+name, help, labels, nil)
	scrapeDescs = append(scrapeDescs, d)
	return d
}

// Describe implements [prometheus.Collector].
func (c scrape) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range scrapeDescs {
		descs <- d
	}
}

// Collect implements [prometheus.Collector].
func (c scrape) Collect(metrics chan<- prometheus.Metric) {
	s := c.server
	gauge := func(d *prometheus.Desc, v uint64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	now := s.figures()
	gauge(clientsDesc, now.live, "live")
	gauge(clientsDesc, now.replaying, "replaying")
	gauge(lagDesc, now.lag)
	counter(deliveredDesc, now.delivered)
	counter(replayedDesc, now.replayed)
	for reason, n := range s.config.Streams.Gaps() {
		counter(gapsDesc, n.Gaps, reason)
		counter(missedDesc, n.Missed, reason)
	}
	ready := uint64(0)
	if s.unready() == nil {
		ready = 1
	}
	gauge(readyDesc, ready)
	s.collectStore(gauge)
}

// collectStore leaves out what cannot be read, as of a store that is closed.
func (s *Server) collectStore(gauge func(*prometheus.Desc, uint64, ...string)) {
	if s.config.Inside.Stats != nil {
		if stats, err := s.config.Inside.Stats(); err == nil {
			gauge(streamsDesc, uint64(stats.Streams))
			if stats.FileBytes > 0 {
				gauge(fileDesc, stats.FileBytes)
				gauge(freeDesc, stats.FreeBytes)
				gauge(diskDesc, stats.DiskBytes)
			}
		}
	}
	for _, name := range s.config.Inside.Streams {
		b, err := s.config.Streams.Log(name).Bounds(context.Background())
		if err != nil {
			continue
		}
		gauge(firstDesc, b.First, name)
		gauge(lastDesc, b.Last, name)
		gauge(bytesDesc, b.Bytes, name)
		gauge(followersDesc, uint64(s.config.Streams.Clients(name)), name)
	}
}

// clientFigures are those of all clients, and what was given to all that ever were.
type clientFigures struct {
	live, replaying, lag uint64
	delivered, replayed  uint64
}

// figures adds up those of the clients, which are counted nowhere else while they are
// there.
func (s *Server) figures() clientFigures {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := clientFigures{delivered: s.given.delivered, replayed: s.given.replayed}
	for c := range s.clients {
		f := c.source.Figures()
		if f.Live {
			all.live++
		} else {
			all.replaying++
		}
		all.lag = max(all.lag, f.Lag)
		all.delivered += f.Delivered
		all.replayed += f.Replayed
	}
	return all
}

// A figured has figures.
type figured interface{ Figures() stream.Figures }

// countGivenLocked counts what a client was given that is not, or no longer, there.
func (s *Server) countGivenLocked(src figured) {
	f := src.Figures()
	s.given.delivered += f.Delivered
	s.given.replayed += f.Replayed
}
