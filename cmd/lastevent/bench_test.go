//go:build linux

package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"lastevent/cmd/lastevent/servetest"
)

// A smoke run measures all targets, and leaves nothing behind but what it writes.
func TestBench(t *testing.T) {
	dir := t.TempDir()
	status, log := servetest.Run(t, dir, nil, "bench", "--quick", "--dir", dir, "--json", "b.json", "--plot", "b.svg",
		"--workload", "isolated", "--workload", "storm", "--workload", "curve-replay")
	if status != 0 {
		t.Fatalf("status %d\n%s", status, log)
	}
	checkReport(t, filepath.Join(dir, "b.json"), map[string][]string{
		"isolated":     {"lastevent", "classic", "limit"},
		"storm":        {"lastevent", "classic", "limit", "replay"},
		"curve-replay": nil,
	})
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("%v, %v is left; want the two files", entries, err)
	}
}

// A running server is measured from outside, and so has no figures of its process.
func TestBenchURL(t *testing.T) {
	s := servetest.Start(t)
	dir := t.TempDir()
	status, log := servetest.Run(t, dir, nil, "bench", "--quick", "--url", s.URL, "--json", "b.json", "--workload", "replay")
	if status != 0 {
		t.Fatalf("status %d\n%s", status, log)
	}
	r := checkReport(t, filepath.Join(dir, "b.json"), map[string][]string{"replay": {"classic", "limit"}})
	if len(r.Workloads) == 1 && r.Workloads[0].Metrics[0].Checks[0].Met != nil {
		t.Error("the CPU of a server elsewhere is judged")
	}
}

func TestBenchRefuses(t *testing.T) {
	for _, args := range [][]string{
		{"--workload", "none"},
		{"--repeat", "0"},
		{"--url", "https://localhost:1"},
		{"--plot", "x.svg", "--workload", "idle"},
	} {
		dir := t.TempDir()
		if status, log := servetest.Run(t, dir, nil, append([]string{"bench"}, args...)...); status != 2 {
			t.Errorf("%v: status %d, %s; want 2", args, status, log)
		}
	}
}

type benchReport struct {
	Workloads []struct {
		Name    string
		Notes   []string
		Metrics []struct {
			Name   string
			Values map[string]struct{ Median, Min, Max float64 }
			Checks []struct {
				Against string
				Ratio   *struct{ Median float64 }
				Met     *bool
			}
		}
		Curve *struct {
			Points map[string][]struct{ X, Median float64 }
		}
	}
}

// checkReport checks that the report has the workloads, and their first metric
// values of the targets.
func checkReport(t *testing.T, path string, want map[string][]string) (r benchReport) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil || len(r.Workloads) != len(want) {
		t.Fatalf("%v; want %d workloads in %s", err, len(want), text)
	}
	for _, w := range r.Workloads {
		if w.Notes != nil {
			t.Errorf("%s: %q", w.Name, w.Notes)
		}
		if w.Curve != nil {
			for _, target := range []string{"lastevent", "classic", "limit"} {
				if p := w.Curve.Points[target]; len(p) < 2 || p[0].Median <= 0 || p[0].X >= p[1].X {
					t.Errorf("%s: the curve of %s is %v", w.Name, target, p)
				}
			}
			continue
		}
		m := w.Metrics[0]
		if len(m.Values) != len(want[w.Name]) || len(m.Checks) == 0 {
			t.Errorf("%s: values %v, checks %v; want values of %q", w.Name, m.Values, m.Checks, want[w.Name])
		}
		for _, target := range want[w.Name] {
			if v := m.Values[target]; v.Median <= 0 || v.Min > v.Median || v.Max < v.Median {
				t.Errorf("%s, %s: %+v", w.Name, target, v)
			}
		}
		if _, measured := m.Values["lastevent"]; !measured {
			continue
		}
		for _, c := range m.Checks {
			if c.Met == nil || (c.Ratio == nil) != (c.Against == "") {
				t.Errorf("%s: check %+v", w.Name, c)
			}
		}
	}
	return r
}
