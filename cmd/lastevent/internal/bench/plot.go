//go:build linux

package bench

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"math"
	"strings"

	"github.com/dustin/go-humanize"
)

// A panel of the plot, in pixels: its place, and margins around its axes.
const (
	panelWidth   = 480
	panelHeight  = 330
	marginLeft   = 70
	marginRight  = 20
	marginTop    = 40
	marginBottom = 56
	legendHeight = 40
)

// legends are of the lines, and so are styles.
var legends = map[target]string{
	lastevent: "lastevent, durable",
	classic:   "classic, stores nothing",
	limit:     "limit, raw writes",
}

var styles = map[target]string{
	lastevent: `stroke="#0b57d0" fill="#0b57d0"`,
	classic:   `stroke="#c4320a" fill="#c4320a"`,
	limit:     `stroke="#667085" fill="#667085" stroke-dasharray="5 4"`,
}

// HasCurves reports whether there is something to plot.
func (r *Report) HasCurves() bool { return len(r.curves()) > 0 }

func (r *Report) curves() (curves []*Entry) {
	for _, e := range r.Workloads {
		if e.Curve != nil && len(e.Curve.Points[lastevent]) > 0 {
			curves = append(curves, e)
		}
	}
	return curves
}

// WriteSVG writes the curves as a picture, a panel each, both axes logarithmic.
func (r *Report) WriteSVG(out io.Writer) error {
	curves := r.curves()
	columns := min(2, max(len(curves), 1))
	rows := (len(curves) + columns - 1) / columns
	width, height := columns*panelWidth, rows*panelHeight+legendHeight
	var w bytes.Buffer
	fmt.Fprintf(&w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n",
		width, height, width, height)
	fmt.Fprintf(&w, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	for i, t := range allTargets {
		x := marginLeft + i*200
		fmt.Fprintf(&w, `<path d="M%d 24h30" stroke-width="2" %s/><text x="%d" y="28" fill="#1d2939">%s</text>`+"\n", x, styles[t], x+38, legends[t])
	}
	for i, e := range curves {
		fmt.Fprintf(&w, `<g transform="translate(%d %d)">`+"\n", i%columns*panelWidth, legendHeight+i/columns*panelHeight)
		e.Curve.plot(&w, e.What)
		fmt.Fprintln(&w, "</g>")
	}
	fmt.Fprintln(&w, "</svg>")
	_, err := out.Write(w.Bytes())
	return err
}

// An axis maps figures to pixels.
type axis struct{ low, high, from, to float64 }

func (a axis) at(v float64) float64 {
	return a.from + (a.to-a.from)*math.Log(v/a.low)/math.Log(a.high/a.low)
}

// axes are of the curve: x from its first to its last point, y from a power of ten
// to another.
func (c *Curve) axes() (x, y axis) {
	x = axis{math.Inf(1), 0, marginLeft, panelWidth - marginRight}
	y = axis{math.Inf(1), 0, panelHeight - marginBottom, marginTop}
	for _, points := range c.Points {
		for _, p := range points {
			x.low, x.high = min(x.low, p.X), max(x.high, p.X)
			y.low, y.high = min(y.low, p.Min), max(y.high, p.Max)
		}
	}
	x.high = max(x.high, 2*x.low) // a single point
	y.low = math.Pow(10, math.Floor(math.Log10(max(y.low, 1e-6))))
	y.high = math.Pow(10, math.Ceil(math.Log10(max(y.high, 1.1*y.low))))
	return x, y
}

func (c *Curve) plot(w io.Writer, title string) {
	x, y := c.axes()
	text := func(at, px, py float64, s string) {
		anchor := map[float64]string{0: "start", 0.5: "middle", 1: "end"}[at]
		fmt.Fprintf(w, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="#1d2939">%s</text>`+"\n", px, py, anchor, html.EscapeString(s))
	}
	line := func(x1, y1, x2, y2 float64) {
		fmt.Fprintf(w, `<path d="M%.1f %.1fL%.1f %.1f" stroke="#e4e7ec"/>`+"\n", x1, y1, x2, y2)
	}
	for v := y.low; v <= y.high*1.001; v *= 10 {
		line(x.from, y.at(v), x.to, y.at(v))
		text(1, x.from-6, y.at(v)+4, tick(v))
	}
	for _, p := range c.Points[lastevent] {
		line(x.at(p.X), y.from, x.at(p.X), y.to)
		text(0.5, x.at(p.X), y.from+18, tick(p.X))
	}
	fmt.Fprintf(w, `<g font-weight="bold">`)
	text(0, x.from, y.to-14, title)
	fmt.Fprintln(w, "</g>")
	text(0.5, (x.from+x.to)/2, y.from+40, c.X)
	middle := (y.from + y.to) / 2
	fmt.Fprintf(w, `<g transform="rotate(-90 18 %.1f)">`, middle)
	text(0.5, 18, middle, c.Y)
	fmt.Fprintln(w, "</g>")
	for _, t := range allTargets {
		c.plotLine(w, t, x, y)
	}
}

// plotLine draws the medians as a line with a dot each.
func (c *Curve) plotLine(w io.Writer, t target, x, y axis) {
	var path, dots strings.Builder
	for i, p := range c.Points[t] {
		px, py := x.at(p.X), y.at(max(p.Median, y.low))
		fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(i, 1)], px, py)
		fmt.Fprintf(&dots, `<circle cx="%.1f" cy="%.1f" r="3"/>`, px, py)
	}
	if path.Len() > 0 {
		fmt.Fprintf(w, `<g %s><path d="%s" fill="none" stroke-width="2"/>%s</g>`+"\n", styles[t], path.String(), dots.String())
	}
}

// tick writes a figure at an axis: 1k, 64Ki, 0.01.
func tick(v float64) string {
	if v >= 1024 && math.Mod(v, 1024) == 0 {
		return fmt.Sprintf("%.0fKi", v/1024)
	}
	if v < 1000 {
		return humanize.Ftoa(v)
	}
	n, unit := humanize.ComputeSI(v)
	return humanize.Ftoa(n) + unit
}
