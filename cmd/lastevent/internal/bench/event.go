//go:build linux

package bench

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"
)

// The data of an event is t, the time when it was sent, of stampSize hexadecimal
// digits, in µs, and as many x as its size needs.
const stampSize = 13

var dataStamp = []byte("data: t")

// appendData appends the data of an event, which is of at least 14 bytes.
func appendData(p []byte, sent time.Time, size int) []byte {
	const base = 1 << (4 * stampSize)
	p = append(p, 't')
	digits := strconv.AppendInt(nil, base|sent.UnixMicro(), 16)
	p = append(p, digits[1:]...) // without the digit of the base
	return append(p, bytes.Repeat([]byte{'x'}, max(size-1-stampSize, 0))...)
}

// parseStamp reads the time at the beginning of p, unless it is cut off.
func parseStamp(p []byte) (micros int64, ok bool) {
	if len(p) < stampSize {
		return 0, false
	}
	micros, err := strconv.ParseInt(string(p[:stampSize]), 16, 64)
	return micros, err == nil
}

const ndjson = "application/x-ndjson"

// readEvents reads the data of what a request publishes.
func readEvents(r *http.Request) ([]string, error) {
	if t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t != ndjson {
		body, err := io.ReadAll(r.Body)
		return []string{string(body)}, err
	}
	var events []string
	for lines := json.NewDecoder(r.Body); ; {
		var e struct{ Data string }
		err := lines.Decode(&e)
		if err == io.EOF {
			return events, nil
		}
		if err != nil {
			return nil, err
		}
		events = append(events, e.Data)
	}
}
