//go:build linux

package bench

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
)

// A Report is what a run measured.
type Report struct {
	Time      time.Time `json:"time"`
	Machine   string    `json:"machine"`
	URL       string    `json:"url,omitempty"`
	Repeat    int       `json:"repeat"`
	Quick     bool      `json:"quick,omitempty"`
	Workloads []*Entry  `json:"workloads"`
}

// An Entry is one workload.
type Entry struct {
	Name    string    `json:"name"`
	What    string    `json:"what"`
	Metrics []*Metric `json:"metrics,omitempty"`
	Curve   *Curve    `json:"curve,omitempty"`
	Notes   []string  `json:"notes,omitempty"`
}

// A Metric is one figure of a workload, for each target that it was measured for.
type Metric struct {
	Name   string           `json:"name"`
	Unit   string           `json:"unit"`
	Values map[target]Value `json:"values"`
	Checks []*Check         `json:"checks,omitempty"`

	samples map[target][]float64
}

// A Check is what the metric must reach: as a ratio to what it is measured
// against, or by itself.
type Check struct {
	Against target   `json:"against,omitempty"` // empty: the value by itself
	AtMost  *float64 `json:"at_most,omitempty"`
	AtLeast *float64 `json:"at_least,omitempty"`
	// Ratio is of the figures of each repetition; nil for the value by itself.
	Ratio *Value `json:"ratio,omitempty"`
	Met   *bool  `json:"met,omitempty"` // nil: not measured
}

// A Value is the median of the repetitions, and their spread.
type Value struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// A Curve is a figure against the size of its workload.
type Curve struct {
	X      string             `json:"x"`
	Y      string             `json:"y"`
	Points map[target][]Point `json:"points"`
}

// A Point is one of a curve.
type Point struct {
	X float64 `json:"x"`
	Value
}

func (e *Entry) note(format string, args ...any) {
	if note := fmt.Sprintf(format, args...); !slices.Contains(e.Notes, note) {
		e.Notes = append(e.Notes, note)
	}
}

// metric adds a figure, to be measured.
func (e *Entry) metric(name, unit string, checks ...*Check) *Metric {
	m := &Metric{Name: name, Unit: unit, Checks: checks, samples: map[target][]float64{}}
	e.Metrics = append(e.Metrics, m)
	return m
}

func atMost(bound float64, against target) *Check { return &Check{Against: against, AtMost: &bound} }

func atLeast(bound float64, against target) *Check { return &Check{Against: against, AtLeast: &bound} }

// add adds a repetition's figure; NaN is none.
func (m *Metric) add(t target, v float64) {
	if !math.IsNaN(v) {
		m.samples[t] = append(m.samples[t], v)
	}
}

// point moves what was measured to a point of the curve.
func (e *Entry) point(x float64, m *Metric) {
	for t, samples := range m.samples {
		e.Curve.Points[t] = append(e.Curve.Points[t], Point{x, *summary(samples)})
	}
	clear(m.samples)
}

// finish sums up what was measured.
func (e *Entry) finish() {
	for _, m := range e.Metrics {
		m.Values = map[target]Value{}
		for t, samples := range m.samples {
			m.Values[t] = *summary(samples)
		}
		for _, c := range m.Checks {
			c.finish(m.samples)
		}
	}
}

func (c *Check) finish(samples map[target][]float64) {
	figures := slices.Clone(samples[lastevent])
	if c.Against != "" {
		figures = figures[:min(len(figures), len(samples[c.Against]))]
		for i := range figures {
			figures[i] /= samples[c.Against][i]
		}
	}
	v := summary(figures)
	if v == nil {
		return
	}
	if c.Against != "" {
		c.Ratio = v
	}
	met := (c.AtMost == nil || v.Median <= *c.AtMost) && (c.AtLeast == nil || v.Median >= *c.AtLeast)
	c.Met = &met
}

// summary is nil if there are no samples.
func summary(samples []float64) *Value {
	if len(samples) == 0 {
		return nil
	}
	s := slices.Sorted(slices.Values(samples))
	n := len(s)
	return &Value{Median: (s[(n-1)/2] + s[n/2]) / 2, Min: s[0], Max: s[n-1]}
}

// WriteTable writes the report as text.
func (r *Report) WriteTable(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s. Medians of %d, and their spread.\n", r.Machine, r.Repeat)
	if r.Quick {
		fmt.Fprintln(w, "All was small and quick: the figures mean nothing.")
	}
	for _, e := range r.Workloads {
		fmt.Fprintf(w, "\n%s: %s\n", e.Name, e.What)
		if len(e.Metrics) > 0 {
			fmt.Fprintf(w, "  \tlastevent\tclassic\tlimit\tratio\tmust be\t\n")
		}
		for _, m := range e.Metrics {
			m.write(w)
		}
		if e.Curve != nil {
			e.Curve.write(w)
		}
		for _, note := range e.Notes {
			fmt.Fprintf(w, "  %s\n", note)
		}
	}
	return w.Flush()
}

func (m *Metric) write(w io.Writer) {
	fmt.Fprintf(w, "  %s", strings.TrimSuffix(m.Name+", "+m.Unit, ", "))
	for _, t := range allTargets {
		cell := ""
		if v, ok := m.Values[t]; ok {
			cell = v.String()
		} else if t == lastevent {
			cell = "n/a"
		}
		fmt.Fprintf(w, "\t%s", cell)
	}
	for i, c := range m.Checks {
		if i > 0 {
			fmt.Fprint(w, "\n  \t\t\t")
		}
		c.write(w, m.Unit)
	}
	if len(m.Checks) == 0 {
		fmt.Fprint(w, "\t\t\t")
	}
	fmt.Fprintln(w)
}

func (c *Check) write(w io.Writer, unit string) {
	ratio, verdict := "", "n/a"
	if c.Met != nil {
		verdict = map[bool]string{true: "met", false: "MISSED"}[*c.Met]
	}
	if c.Against != "" {
		unit = "× " + string(c.Against)
	}
	if c.Ratio != nil {
		ratio = c.Ratio.String()
	}
	sign, bound := "≤", c.AtMost
	if bound == nil {
		sign, bound = "≥", c.AtLeast
	}
	fmt.Fprintf(w, "\t%s\t%s\t%s", ratio, strings.TrimSpace(sign+" "+number(*bound)+" "+unit), verdict)
}

func (c *Curve) write(w io.Writer) {
	fmt.Fprintf(w, "  %s\tlastevent\tclassic\tlimit\t%s\t\t\n", c.X, c.Y)
	for i, p := range c.Points[lastevent] {
		fmt.Fprintf(w, "  %s", number(p.X))
		for _, t := range allTargets {
			cell := ""
			if i < len(c.Points[t]) {
				cell = c.Points[t][i].String()
			}
			fmt.Fprintf(w, "\t%s", cell)
		}
		fmt.Fprint(w, "\t\t\t\n")
	}
}

func (v Value) String() string {
	if v.Min == v.Max {
		return number(v.Median)
	}
	return fmt.Sprintf("%s (%s–%s)", number(v.Median), number(v.Min), number(v.Max))
}

// number writes a figure with about three digits.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100 || v == math.Trunc(v):
		return humanize.Comma(int64(math.Round(v)))
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 0.1:
		return fmt.Sprintf("%.2f", v)
	}
	return strings.TrimRight(fmt.Sprintf("%.4f", v), "0")
}
