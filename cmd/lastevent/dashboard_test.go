//go:build unix

package main_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"lastevent/cmd/lastevent/servetest"
)

// The dashboard and the alerts ask only for what a server has.
func TestDashboardAndAlerts(t *testing.T) {
	t.Parallel()
	s := servetest.Start(t, "--metrics-stream", "x")
	s.MustPublish("x", 1, "1")
	s.Do("GET", "/sse/x?follow=false", "")
	scraped := s.Do("GET", "/metrics", "").Body
	for _, expr := range append(dashboardQueries(t), alertQueries(t)...) {
		checkQuery(t, expr, scraped)
	}
}

// dashboardQueries are all expressions of the dashboard.
func dashboardQueries(t *testing.T) (exprs []string) {
	var dashboard struct {
		Panels []struct {
			Type, Title string
			Targets     []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Type, Definition string }
		}
	}
	if err := json.Unmarshal(deployed(t, "grafana.json"), &dashboard); err != nil {
		t.Fatal(err)
	}
	for _, v := range dashboard.Templating.List {
		if v.Type == "query" {
			exprs = append(exprs, v.Definition)
		}
	}
	for _, p := range dashboard.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("the panel %s shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			exprs = append(exprs, target.Expr)
		}
	}
	return exprs
}

// alertQueries are the expressions of the alerts, each of which says what to do.
func alertQueries(t *testing.T) (exprs []string) {
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr         string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(deployed(t, "alerts.yml"), &rules); err != nil {
		t.Fatal(err)
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if r.Labels["severity"] == "" || !strings.Contains(r.Annotations["summary"], "$labels.instance") || r.Annotations["action"] == "" {
				t.Errorf("%s does not say what is wrong, where, and what to do", r.Alert)
			}
			exprs = append(exprs, r.Expr)
		}
	}
	return exprs
}

func deployed(t *testing.T, name string) []byte {
	text, err := os.ReadFile("../../deploy/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

var (
	selector = regexp.MustCompile(`([a-z_]+)\{([^}]*)\}`)
	matcher  = regexp.MustCompile(`([a-z]+)(=~|!~|!=|=)"([^"]*)"`)
)

// checkQuery checks that there are series for each selector of a query.
func checkQuery(t *testing.T, expr, scraped string) {
	selectors := selector.FindAllStringSubmatch(expr, -1)
	if len(selectors) == 0 {
		t.Errorf("%q asks for nothing", expr)
	}
	for _, s := range selectors {
		name, want := s[1], "^"+s[1]+`(\{.*\})? `
		if name == "up" {
			continue
		}
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			label, op, value := m[1], m[2], m[3]
			if label == "job" || label == "instance" {
				continue
			}
			if op != "=" {
				value = `[^"]*`
			}
			want = "^" + name + `\{(.*,)?` + label + `="` + value + `"`
		}
		if !regexp.MustCompile("(?m)" + want).MatchString(scraped) {
			t.Errorf("%s of %q is not scraped", s[0], expr)
		}
	}
}
