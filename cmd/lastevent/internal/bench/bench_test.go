//go:build linux

package bench

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net/http/httputil"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// response is the header and a body of the chunks.
func response(t *testing.T, chunks ...string) []byte {
	t.Helper()
	out := bytes.NewBufferString("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
	w := httputil.NewChunkedWriter(out)
	for _, c := range chunks {
		if _, err := io.WriteString(w, c); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

func TestConnCountsHoweverItIsCut(t *testing.T) {
	const events = 50
	body := "retry: 1000\nevent: position\nid: 0\ndata: {}\n\n"
	for range events {
		body += "id: 1\n" + string(appendData([]byte("data: "), time.UnixMicro(1234), 40)) + "\n\n"
		body += ":\n" // a heartbeat
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		chunks := cutUp(rnd, body)
		whole := response(t, chunks...)
		if rnd.IntN(4) == 0 {
			whole = []byte("HTTP/1.1 200 OK\r\n\r\n" + body)
		}
		var c conn
		for _, p := range cutUp(rnd, string(whole)) {
			if err := c.feed([]byte(p), nil); err != nil {
				t.Fatal(err)
			}
		}
		if c.blocks != events+1 {
			t.Fatalf("%d blocks; want %d", c.blocks, events+1)
		}
	}
}

func cutUp(rnd *rand.Rand, s string) (parts []string) {
	for len(s) > 0 {
		n := min(1+rnd.IntN(100), len(s))
		parts, s = append(parts, s[:n]), s[n:]
	}
	return parts
}

func TestConnSeesWhatIsNoStream(t *testing.T) {
	ended := append(response(t, "retry: 1\n\n"), "0\r\n\r\n"...)
	for _, p := range []string{string(ended), "HTTP/1.1 503 Service Unavailable\r\n\r\n"} {
		var c conn
		if err := c.feed([]byte(p), nil); err == nil {
			t.Errorf("no error for %q", p)
		}
	}
}

func TestLatencyIsFromTheStamp(t *testing.T) {
	c := clients{latency: newHistogram()}
	sent := time.Now().Add(-20 * time.Second)
	event := appendData([]byte("data: "), sent, 16)
	if len(event) != len("data: ")+16 {
		t.Errorf("data %q is not of 16 bytes", event)
	}
	c.received(append(event, "\n\ndata: t0006"...)) // of which the last is cut off
	if got, n := time.Duration(c.latency.Max())*time.Microsecond, c.latency.TotalCount(); n != 1 || got < 19*time.Second || got > time.Minute {
		t.Errorf("%d latencies, at most %v; want one of 20s", n, got)
	}
}

// report has a metric with two checks, of which the second is missed, and a curve.
func report() *Report {
	e := &Entry{Name: "replay", What: "all"}
	m := e.metric("CPU", "µs", atMost(2, limit), atLeast(7, classic), atMost(5, ""), atMost(1, "other"))
	for i, v := range []float64{3, 1, 2} {
		m.add(lastevent, v)
		m.add(limit, 2*v)
		m.add(classic, []float64{1, 2, 4}[i])
	}
	m.add(limit, math.NaN())
	e.Curve = &Curve{X: "clients", Y: "µs < 3", Points: map[target][]Point{}}
	for _, x := range []float64{1, 65536} {
		p := &Metric{samples: map[target][]float64{lastevent: {x / 2}, limit: {0.5}}}
		e.point(x, p)
	}
	e.finish()
	return &Report{Machine: "here", Repeat: 3, Workloads: []*Entry{e}}
}

func TestRatiosAreOfEachRepetition(t *testing.T) {
	m := report().Workloads[0].Metrics[0]
	if diff := cmp.Diff(Value{2, 1, 3}, m.Values[lastevent]); diff != "" {
		t.Error(diff)
	}
	yes, no := true, false
	for i, want := range []Check{
		{Ratio: &Value{0.5, 0.5, 0.5}, Met: &yes},
		{Ratio: &Value{0.5, 0.5, 3}, Met: &no},
		{Met: &yes},
		{}, // not measured
	} {
		got := *m.Checks[i]
		if diff := cmp.Diff(want, Check{Ratio: got.Ratio, Met: got.Met}); diff != "" {
			t.Errorf("check %d: %s", i, diff)
		}
	}
}

func TestTable(t *testing.T) {
	var out strings.Builder
	if err := report().WriteTable(&out); err != nil {
		t.Fatal(err)
	}
	want := `here. Medians of 3, and their spread.

replay: all
           lastevent  classic   limit    ratio            must be
  CPU, µs  2 (1–3)    2 (1–4)   4 (2–6)  0.50             ≤ 2 × limit    met
                                         0.50 (0.50–3)    ≥ 7 × classic  MISSED
                                                          ≤ 5 µs         met
                                                          ≤ 1 × other    n/a
  clients  lastevent  classic   limit    µs < 3
  1        0.50                 0.50
  65,536   32,768               0.50
`
	if diff := cmp.Diff(strings.Fields(want), strings.Fields(out.String())); diff != "" {
		t.Errorf("%s\n%s", diff, out.String())
	}
}

func TestSVGIsWhole(t *testing.T) {
	var out bytes.Buffer
	if err := report().WriteSVG(&out); err != nil {
		t.Fatal(err)
	}
	svg := out.String()
	texts := map[string]bool{}
	for d := xml.NewDecoder(&out); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if text, ok := token.(xml.CharData); ok {
			texts[string(text)] = true
		}
	}
	for _, want := range []string{"all", "clients", "µs < 3", "lastevent, durable", "limit, raw writes", "1", "64Ki", "0.1", "100k"} {
		if !texts[want] {
			t.Errorf("no %q in the picture", want)
		}
	}
	if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
		t.Error("a place in the picture is not a number")
	}
}
