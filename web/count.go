package web

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

// count counts the requests by method and class of status.
func (s *Server) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &countedWriter{ResponseWriter: w, requests: s.metrics.requests, method: knownMethod(r.Method)}
		returned := false
		defer func() {
			switch {
			case c.counted:
			case returned: // with the connection taken over, or nothing to say
				c.count(http.StatusOK)
			default:
				c.count(0)
			}
		}()
		next.ServeHTTP(c, r)
		returned = true
	})
}

// A countedWriter counts its response as soon as it has a status: it may last.
type countedWriter struct {
	http.ResponseWriter
	requests *prometheus.CounterVec
	method   string
	counted  bool
}

// Unwrap is for [http.ResponseController].
func (c *countedWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (c *countedWriter) WriteHeader(status int) {
	c.count(status)
	c.ResponseWriter.WriteHeader(status)
}

func (c *countedWriter) Write(p []byte) (int, error) {
	c.count(http.StatusOK)
	return c.ResponseWriter.Write(p)
}

func (c *countedWriter) count(status int) {
	if !c.counted {
		c.counted = true
		c.requests.WithLabelValues(c.method, statusClass(status)).Inc()
	}
}

// netWriter returns the writer of net/http: it keeps the connection from being used
// again when a body is too large, which is not for others to do.
func netWriter(w http.ResponseWriter) http.ResponseWriter {
	if c, ok := w.(*countedWriter); ok {
		return c.ResponseWriter
	}
	return w
}

// knownMethod has any word that a client sends for a method be one of few.
func knownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete, http.MethodPut, http.MethodOptions:
		return method
	}
	return "other"
}
