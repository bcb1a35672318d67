package web_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
)

// What bodies that are on their way take is bounded; what is refused for that is not
// stored, and can be sent again under its key.
func TestBodiesAtOnce(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, s *host) {
		const most, lines = 80_000, 10
		body := strings.Repeat(`{"data":"`+strings.Repeat("x", 960)+`"}`+"\n", lines)
		batch := func(key string) int {
			w := s.do(t, "POST", "/sse/x", body, "Content-Type: application/x-ndjson", "Idempotency-Key: "+key)
			if w.Code == 429 {
				isProblem(t, w, 429)
				if after := w.Header().Get("Retry-After"); after != "1" {
					t.Errorf("Retry-After: %q", after)
				}
			}
			return w.Code
		}
		if code := batch("known"); code != 201 {
			t.Errorf("alone: %d", code)
		}
		var slow []*wire
		for i := range most / len(body) {
			length, begin := fmt.Sprint("Content-Length: ", len(body)), ""
			if i%2 == 1 {
				length, begin = "Transfer-Encoding: chunked", fmt.Sprintf("%x\r\n", len(body))
			}
			w := s.send(t, "POST /sse/x", "Content-Type: application/x-ndjson", length)
			if _, err := io.WriteString(w, begin+body[:len(body)-2]); err != nil {
				t.Fatal(err)
			}
			slow = append(slow, w)
		}
		synctest.Wait()
		for _, key := range []string{"known", "new", ""} {
			if code := batch(key); code != 429 {
				t.Errorf("one too many, with key %q: %d", key, code)
			}
		}
		s.publish(t, "x", "small")
		for i, w := range slow {
			if _, err := io.WriteString(w, body[len(body)-2:]+[]string{"", "\r\n0\r\n\r\n"}[i%2]); err != nil {
				t.Fatal(err)
			}
			if head := w.response(t); head.StatusCode != 201 {
				t.Errorf("slow body %d: %s", i, head.Status)
			}
		}
		for _, key := range []string{"known", "new", ""} {
			if code := batch(key); code != 201 {
				t.Errorf("then, with key %q: %d", key, code)
			}
		}
		if last, want := s.last(t, "x"), uint64(lines*(1+len(slow)+2)+1); last != want {
			t.Errorf("last is %d, want %d", last, want)
		}
	})
}
