package web

import (
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"lastevent/stream"
)

const (
	maxName = 255
	maxType = 255
)

// checkName checks a stream's name: segments of A-Z a-z 0-9 . _ ~ - joined by
// slashes, none of them empty, "." or "..", of at most 255 bytes in all.
func checkName(name string) error {
	if name == "" {
		return badRequest("the stream's name is missing: /sse/{stream}")
	}
	if len(name) > maxName {
		return badRequest("the stream's name has %d bytes; at most %d are possible", len(name), maxName)
	}
	for segment := range strings.SplitSeq(name, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return badRequest("the stream's name has the segment %q; segments must not be empty, . or ..", segment)
		}
		if i := strings.IndexFunc(segment, notInName); i >= 0 {
			return badRequest("the stream's name must be of A-Z a-z 0-9 . _ ~ - and /; %q is not", segment[i:i+1])
		}
	}
	return nil
}

func notInName(c rune) bool {
	return !(c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.ContainsRune("._~-", c))
}

// checkType checks the type of an event to publish.
func checkType(typ string) error {
	switch {
	case len(typ) > maxType:
		return badRequest("the event's type has %d bytes; at most %d are possible", len(typ), maxType)
	case strings.ContainsAny(typ, "\r\n\x00"):
		return badRequest("the event's type must not hold CR, LF or NUL")
	case !utf8.ValidString(typ):
		return badRequest("the event's type is not UTF-8")
	case stream.Reserved(typ):
		return badRequest("the event type %q is reserved", typ)
	}
	return nil
}

func badRequest(format string, args ...any) error {
	return &refusal{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// A query is the parameters of a request.
type query struct{ url.Values }

func parseQuery(r *http.Request) (query, error) {
	v, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return query{}, badRequest("the query cannot be read: %v", err)
	}
	return query{v}, nil
}

// only refuses parameters other than the known ones: a misspelt one must not be taken
// for left out where something is written.
func (q query) only(known ...string) error {
	for name := range q.Values {
		if !slices.Contains(known, name) {
			return badRequest("the parameter %q is not known here", name)
		}
	}
	return nil
}

// one returns a parameter that can be given once; empty is as good as not given.
func (q query) one(name string) (string, error) {
	if len(q.Values[name]) > 1 {
		return "", badRequest("%s= is given %d times; once is possible", name, len(q.Values[name]))
	}
	return q.Get(name), nil
}

// bool returns a parameter that is true or false.
func (q query) bool(name string, unless bool) (bool, error) {
	s, err := q.one(name)
	if s == "" || err != nil {
		return unless, err
	}
	b, err := strconv.ParseBool(s)
	if err != nil {
		return unless, badRequest("%s=%q is neither true nor false", name, s)
	}
	return b, nil
}

// parseSubscription reads what a GET of one stream asks for.
func parseSubscription(r *http.Request, q query) (stream.Subscription, error) {
	sub, err := parseSelection(r, q, false)
	if err != nil {
		return sub, err
	}
	follow, err := q.bool("follow", true)
	if err != nil {
		return sub, err
	}
	format, named := negotiate(r.Header.Values("Accept"))
	if format == ndjson || !follow && !named {
		sub.Format, follow = ndjsonFormat, false
	}
	sub.Once = !follow
	if sub.Once && q.Get("from") == "" && sub.Start.LastEventID == nil {
		sub.Start.Earliest = true
	}
	return sub, nil
}

// parseSelection reads which events a GET asks for, of one stream or of several.
func parseSelection(r *http.Request, q query, several bool) (sub stream.Subscription, err error) {
	if sub.Start, err = parseStart(r, q, several); err != nil {
		return sub, err
	}
	if sub.Limit, err = parseLimit(q); err != nil {
		return sub, err
	}
	sub.Types, err = parseTypes(q)
	return sub, err
}

// parseTypes reads event=, which may be given several times.
func parseTypes(q query) (types []string, err error) {
	for _, typ := range q.Values["event"] {
		if len(typ) > maxType || strings.ContainsAny(typ, "\r\n\x00") {
			return nil, badRequest("event=%q is no event type: at most %d bytes without CR, LF and NUL", typ, maxType)
		}
		if typ != "" {
			types = append(types, typ)
		}
	}
	return types, nil
}

// negotiate chooses between SSE and NDJSON by the Accept header, and reports
// whether SSE was named. NDJSON has to be named, and preferred.
func negotiate(accept []string) (format string, named bool) {
	var lines, events, any float64
	for part := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		t, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		weight := 1.0
		if q, err := strconv.ParseFloat(params["q"], 64); err == nil {
			weight = q
		}
		switch t {
		case ndjson:
			lines = weight
		case eventStream:
			events, named = weight, true
		case "*/*", "text/*", "text/html":
			any = max(any, weight)
		}
	}
	if lines > 0 && (named && lines > events || !named && lines >= any) {
		return ndjson, named
	}
	return eventStream, named
}

// parseStart reads where a subscription begins, by the header or the parameters.
// A parameter that is wrong is an error; what is wrong with the header becomes a
// gap, as no client could mend it, and an error would stop an EventSource for good.
//
// The log belongs to the ID: that of a parameter says nothing of the header that a
// reconnecting EventSource adds, whose ID came after whatever gap there was.
func parseStart(r *http.Request, q query, several bool) (start stream.Start, err error) {
	id, err := q.one("lastEventId")
	if err != nil {
		return start, err
	}
	if id != "" && !isID(id, several) {
		return start, badRequest("lastEventId=%q is not an event ID: 1 to 20 digits, at most 2^64-1", id)
	}
	from, err := q.one("from")
	if err != nil {
		return start, err
	}
	if start, err = parseFrom(from); err != nil {
		return start, err
	}
	log, err := q.one("log")
	if err != nil {
		return start, err
	}
	if header := r.Header.Get("Last-Event-ID"); header != "" {
		if id != "" {
			log = ""
		}
		id = header
	}
	if id != "" {
		return stream.Start{LastEventID: &id, Log: log}, nil
	}
	return start, nil
}

// isID reports whether id is an event ID, of one stream or of several.
func isID(id string, several bool) bool {
	if several {
		return stream.SplitID(id) != nil
	}
	_, ok := stream.ParseID(id)
	return ok
}

// parseFrom reads from=: earliest, latest, -N, a duration or an RFC 3339 time.
func parseFrom(from string) (stream.Start, error) {
	switch from {
	case "", "latest":
		return stream.Start{}, nil
	case "earliest":
		return stream.Start{Earliest: true}, nil
	}
	if n, ok := strings.CutPrefix(from, "-"); ok {
		if n, err := strconv.ParseUint(n, 10, 64); err == nil && n > 0 {
			return stream.Start{Newest: n}, nil
		}
	} else if back, err := time.ParseDuration(from); err == nil {
		return stream.Start{Since: time.Now().Add(-back)}, nil
		// A "+" that was not escaped arrives as a space.
	} else if at, err := time.Parse(time.RFC3339, strings.Replace(from, " ", "+", 1)); err == nil {
		if at.Unix() <= 0 {
			return stream.Start{Earliest: true}, nil
		}
		return stream.Start{Since: at}, nil
	}
	return stream.Start{}, badRequest("from=%q is not understood; possible are earliest, latest, -N (the newest N), a duration back (10m) and a time (2026-01-02T15:04:05Z)", from)
}

// parseLimit reads limit=; 0 is none.
func parseLimit(q query) (uint64, error) {
	s, err := q.one("limit")
	if s == "" || err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 {
		return 0, badRequest("limit=%q is not a number of events from 1 on", s)
	}
	return n, nil
}
