package web

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"lastevent/store"
	"lastevent/stream"
	"lastevent/stream/sse"
)

const (
	eventStream = "text/event-stream"
	ndjson      = "application/x-ndjson"
)

// read answers with events up to the last as it is now, and ends.
func (s *Server) read(w http.ResponseWriter, r *http.Request, q query, sub stream.Subscription, cursor *stream.Cursor) {
	if err := s.gate.enter(r.RemoteAddr); err != nil {
		s.tooMany(w, r, err, s.gate.away(err, s.config.Retry))
		return
	}
	defer s.gate.leave(r.RemoteAddr)
	contentType := eventStream
	var begin []byte
	if sub.Format == ndjsonFormat {
		contentType = ndjson
	} else {
		begin = sse.AppendRetry(begin, s.config.Retry)
	}
	begin = append(begin, cursor.Begin()...)
	h := w.Header()
	setEventsHeader(h, contentType)
	setNextLink(h, r, q, sub, cursor)
	tag := entityTag(begin, contentType, sub, cursor)
	h.Set("ETag", tag)
	if matches(r.Header.Values("If-None-Match"), tag) {
		h.Del("Content-Type")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if r.Method == http.MethodHead {
		return
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.countGivenLocked(cursor)
	}()
	control := http.NewResponseController(w)
	for p := begin; ; {
		if err := control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			s.config.Log.Debug().Err(err).Msg("setting a deadline failed")
		}
		if _, err := w.Write(p); err != nil {
			return // the client is gone
		}
		var err error
		if p, _, err = cursor.Next(); err == io.EOF {
			return
		} else if err != nil {
			s.failures.Error().Err(err).Str("path", r.URL.Path).Msg("reading failed")
			abort(w, r)
			return
		}
	}
}

// abort cuts a response, so that the client does not take it for complete.
func abort(w http.ResponseWriter, r *http.Request) {
	if !r.ProtoAtLeast(1, 1) {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			(&connResponse{conn: conn}).reset()
			return
		}
	}
	panic(http.ErrAbortHandler)
}

// entityTag is a strong validator: it stands for all that the body depends on.
func entityTag(begin []byte, contentType string, sub stream.Subscription, c *stream.Cursor) string {
	after, until := c.Span()
	b := c.Bounds()
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %s %d %d %d %t", begin, contentType, sub.Types, b.Log, after, until, b.First, b.Closed))
	return `"` + hex.EncodeToString(sum[:16]) + `"`
}

// matches reports whether a header If-None-Match names the tag (RFC 9110, section 13.1.2).
func matches(header []string, tag string) bool {
	for named := range strings.SplitSeq(strings.Join(header, ","), ",") {
		named = strings.TrimPrefix(strings.TrimSpace(named), "W/")
		if named == tag || named == "*" {
			return true
		}
	}
	return false
}

// setNextLink names the page after this one, if the limit leaves one.
func setNextLink(h http.Header, r *http.Request, q query, sub stream.Subscription, c *stream.Cursor) {
	_, until := c.Span()
	b := c.Bounds()
	if sub.Limit == 0 || until >= b.Last {
		return
	}
	q.Del("from")
	q.Set("log", b.Log)
	q.Set("lastEventId", strconv.FormatUint(until, 10))
	h.Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, r.URL.EscapedPath(), q.Encode()))
}

// ndjsonFormat writes each event and each gap as a line of JSON.
var ndjsonFormat stream.Format = lines{}

type lines struct{}

func (lines) Event(dst []byte, e store.Event) []byte {
	return appendLine(dst, struct {
		ID    uint64    `json:"id"`
		Event string    `json:"event"`
		Time  time.Time `json:"time"`
		Data  string    `json:"data"`
	}{e.Seq, e.Type, e.Time.UTC(), string(e.Data)})
}

func (lines) Gap(dst []byte, g stream.Gap) []byte {
	return appendLine(dst, struct {
		Event string     `json:"event"`
		Data  stream.Gap `json:"data"`
	}{stream.TypeGap, g})
}

func (lines) Position(dst []byte, _ uint64, _ store.Bounds) []byte { return dst }

func (lines) End(dst []byte, _ store.Bounds) []byte { return dst }

func appendLine(dst []byte, v any) []byte {
	buf := bytes.NewBuffer(dst)
	e := json.NewEncoder(buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // there is no such value in this file
	}
	return buf.Bytes()
}
