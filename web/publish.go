package web

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"lastevent/store"
)

const (
	maxKey = 255
	// maxBatchEvents bounds what a batch of tiny events takes in memory, which is
	// many times its body.
	maxBatchEvents = 100_000
)

// post appends what the body holds, and answers once it is durable.
func (s *Server) post(w http.ResponseWriter, r *http.Request, name string) {
	if err := s.checkOwner(name); err != nil {
		s.fail(w, r, err)
		return
	}
	log := s.config.Streams.Log(name)
	batch, err := s.parseBatch(w, r)
	// A client that has closed its side, which ends the context, is still there.
	ctx := context.WithoutCancel(r.Context())
	var receipt store.Receipt
	if err == nil {
		begun := time.Now()
		receipt, err = log.Append(ctx, batch)
		s.metrics.published(begun)
	} else if batch.Key != "" {
		// What the key was used for comes before anything that is wrong now.
		var used bool
		var keyErr error
		receipt, used, keyErr = log.Used(ctx, batch.Key, batch.Digest)
		if used || keyErr != nil {
			err = keyErr
		}
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if receipt.Replayed {
		w.Header().Set("Idempotency-Replayed", "true")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(struct {
		ID    uint64 `json:"id"`
		Count int    `json:"count"`
	}{receipt.Last, receipt.Count}) // a client that is gone asks again, with its key
}

// delete removes the stream's events.
func (s *Server) delete(w http.ResponseWriter, r *http.Request, name string) {
	err := s.checkOwner(name)
	if err == nil {
		var q query
		if q, err = parseQuery(r); err == nil {
			err = q.only()
		}
	}
	if err == nil {
		err = s.config.Streams.Log(name).Delete(context.WithoutCancel(r.Context()))
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) checkOwner(stream string) error {
	if slices.Contains(s.config.Owned, stream) {
		return &refusal{http.StatusForbidden, "the stream " + stream + " is written by the server itself"}
	}
	return nil
}

// parseBatch reads what the request publishes. Where it returns an error beside a
// key, the digest is that of the whole request all the same, or of none that ever
// succeeded.
func (s *Server) parseBatch(w http.ResponseWriter, r *http.Request) (b store.Batch, err error) {
	q, err := parseQuery(r)
	if err != nil {
		return b, err
	}
	if err := q.only("event", "close"); err != nil {
		return b, err
	}
	b.Key = r.Header.Get("Idempotency-Key")
	if len(b.Key) > maxKey {
		b.Key = ""
		return b, badRequest("the Idempotency-Key has more than %d bytes", maxKey)
	}
	isBatch := isNDJSON(r.Header.Get("Content-Type"))
	limit := s.config.MaxEventBytes
	if isBatch {
		limit = s.config.MaxBatchBytes
	}
	body := io.Reader(newPacedBody(w, http.MaxBytesReader(netWriter(w), r.Body, limit)))
	var digest hash.Hash
	if b.Key != "" {
		digest = newDigest(q, r.Header)
		body = io.TeeReader(body, digest)
	}
	typ, err := q.one("event")
	if err == nil {
		b.Close, err = q.bool("close", false)
	}
	switch err = cmp.Or(err, checkType(typ), checkContent(r.Header)); {
	case err != nil:
	case isBatch:
		b.Events, err = s.parseLines(body, cmp.Or(typ, "message"), b.Close)
	default:
		b.Events, err = s.parseEvent(body, cmp.Or(typ, "message"), b.Close)
	}
	if b.Key != "" {
		if _, rest := io.Copy(io.Discard, body); rest != nil {
			err = cmp.Or(err, rest)
			fmt.Fprint(digest, "and more") // than a request under any key has had
		}
		digest.Sum(b.Digest[:0])
	}
	if err == errBusy {
		b.Key = "" // nothing is known of the rest
	}
	return b, err
}

// newDigest returns the digest of a request but for its body.
func newDigest(q query, h http.Header) hash.Hash {
	d := sha256.New()
	fmt.Fprintf(d, "%q %q %q\n", q.Values["event"], q.Values["close"], h.Get("Content-Type"))
	return d
}

// parseEvent reads a body that is the data of one event, or of none if it is empty
// and only closes the stream.
func (s *Server) parseEvent(body io.Reader, typ string, closes bool) ([]store.Event, error) {
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, unreadable(err)
	}
	if len(data) == 0 && closes {
		return nil, nil
	}
	e := store.Event{Type: typ, Data: data}
	if err := s.checkEvent(e); err != nil {
		return nil, err
	}
	return []store.Event{e}, nil
}

// unreadable is the error of a body that cannot be read to its end, which is for the
// client to mend.
func unreadable(err error) error {
	_, tooLong := errors.AsType[*http.MaxBytesError](err)
	_, tooSlow := errors.AsType[*refusal](err)
	if tooLong || tooSlow {
		return err
	}
	return badRequest("the body cannot be read to its end: %v", err)
}

func (s *Server) checkEvent(e store.Event) error {
	if n := int64(len(e.Type) + len(e.Data)); n > s.config.MaxEventBytes {
		return &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("the event has %d bytes of type and data; at most %d are possible", n, s.config.MaxEventBytes)}
	}
	if !utf8.Valid(e.Data) {
		return badRequest("the event's data is not UTF-8")
	}
	return nil
}

// parseLines reads a body with an event on each line. Lines are not kept.
func (s *Server) parseLines(body io.Reader, typ string, closes bool) ([]store.Event, error) {
	var events []store.Event
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, int(s.config.MaxBatchBytes)+1)
	for number := 1; lines.Scan(); number++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 || lines.Err() != nil { // the rest of a body that broke off is no line
			continue
		}
		if len(events) == maxBatchEvents {
			return nil, &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("the batch has more than %d events", maxBatchEvents)}
		}
		e, err := parseLine(line, typ)
		if err == nil {
			err = s.checkEvent(e)
		}
		var refused *refusal
		if errors.As(err, &refused) {
			return nil, &refusal{refused.status, "line " + strconv.Itoa(number) + ": " + refused.detail}
		}
		events = append(events, e)
	}
	if err := lines.Err(); err != nil {
		return nil, unreadable(err)
	}
	if len(events) == 0 && !closes {
		return nil, badRequest("the batch has no lines; each holds an event: {\"event\":\"T\",\"data\":…}")
	}
	return events, nil
}

// parseLine reads an event; typ is its type where it names none. Its errors are
// refusals.
func parseLine(line []byte, typ string) (store.Event, error) {
	if !utf8.Valid(line) {
		return store.Event{}, badRequest("it is not UTF-8")
	}
	var fields struct {
		Event string          `json:"event"`
		Data  json.RawMessage `json:"data"`
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&fields); err != nil {
		return store.Event{}, badRequest("it is not {\"event\":\"T\",\"data\":…}: %v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return store.Event{}, badRequest("something follows the event; each line holds one")
	}
	if fields.Data == nil {
		return store.Event{}, badRequest("data is missing")
	}
	e := store.Event{Type: cmp.Or(fields.Event, typ)}
	if err := checkType(e.Type); err != nil {
		return e, err
	}
	if fields.Data[0] != '"' {
		var compact bytes.Buffer
		err := json.Compact(&compact, fields.Data)
		e.Data = compact.Bytes()
		return e, err
	}
	var text string
	err := json.Unmarshal(fields.Data, &text)
	e.Data = []byte(text)
	return e, err
}

func isNDJSON(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	return err == nil && t == ndjson
}

// checkContent refuses bodies that are not the data itself.
func checkContent(h http.Header) error {
	if strings.HasPrefix(strings.ToLower(h.Get("Content-Type")), "multipart/") {
		return &refusal{http.StatusUnsupportedMediaType, "a multipart body is not taken; send the event's data as the body"}
	}
	if e := h.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return &refusal{http.StatusUnsupportedMediaType, "a body encoded with " + e + " is not taken; send it as it is"}
	}
	return nil
}
