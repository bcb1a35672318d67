package web_test

import (
	"encoding/json"
	"strings"
	"testing"

	"lastevent/store"
)

// The events 1, 2 and 3 are of 00:00, 00:01 and 00:02; it is 00:03.
func TestFrom(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, s *host) { testFrom(t, s, 0) })
}

// None of it causes a gap, where what is asked for is no longer retained.
func TestFromEvicted(t *testing.T) {
	inBubble(t, setup{retention: store.Retention{Events: 2}}, func(t *testing.T, s *host) { testFrom(t, s, 1) })
}

// The first of these that is given counts: the header, lastEventId, from.
func TestWhichStart(t *testing.T) {
	inBubble(t, setup{}, func(t *testing.T, s *host) {
		s.publish(t, "x", "1", "2", "3", "4", "5")
		for _, test := range []struct {
			query, header string
			after         string
		}{
			{"", "", "5"},
			{"?from=-2", "", "3"},
			{"?lastEventId=2", "", "2"},
			{"?lastEventId=2&from=-2", "", "2"},
			{"?from=-2&lastEventId=2", "", "2"},
			{"?lastEventId=0&from=latest", "", "0"},
			{"", "Last-Event-ID: 1", "1"},
			{"", "last-event-id: 1", "1"},
			{"?from=-2", "Last-Event-ID: 1", "1"},
			{"?lastEventId=2", "Last-Event-ID: 1", "1"},
			{"?lastEventId=2&from=-2", "Last-Event-ID: 0", "0"},
			{"?from=-2", "Last-Event-ID:", "3"},
			{"?from=-2", "Last-Event-ID:   ", "3"},
			{"?lastEventId=2&from=-2", "Last-Event-ID:", "2"},
			{"?lastEventId=&from=-2", "Last-Event-ID:", "3"},
			{"?lastEventId=&from=", "Last-Event-ID:", "5"},
			{"?log=another", "", "5"},
			{"?log=another&from=-2", "", "3"},
			{"?lastEventId=2&log=" + s.db.ID(), "", "2"},
			{"?lastEventId=2&log=", "", "2"},
			{"?lastEventId=00000000000000000002", "", "2"},
			{"?lastEventId=%32", "", "2"},
		} {
			var headers []string
			if test.header != "" {
				headers = []string{test.header}
			}
			sub := s.subscribe(t, "/sse/x"+test.query, headers...)
			if id := sub.position(t); id != test.after {
				t.Errorf("%s with %q: after %s, want %s", test.query, test.header, id, test.after)
			}
			sub.Close()
		}
	})
}

func TestGaps(t *testing.T) {
	inBubble(t, setup{retention: store.Retention{Events: 3}}, func(t *testing.T, s *host) {
		s.publish(t, "x", "1", "2", "3", "4", "5")
		long := strings.Repeat("0", 200)
		for _, test := range []struct {
			query, header string
			reason, echo  string
			missed        any
		}{
			{"?lastEventId=1", "", "evicted", "1", 1.0},
			{"?lastEventId=0", "", "evicted", "0", 2.0},
			{"", "1", "evicted", "1", 1.0},
			{"?lastEventId=6", "", "ahead", "6", nil},
			{"", "18446744073709551615", "ahead", "18446744073709551615", nil},
			{"?lastEventId=4&log=another", "", "reset", "4", nil},
			{"?log=another", "5", "reset", "5", nil},
			{"", "x", "unknown", "x", nil},
			{"?lastEventId=4", "x", "unknown", "x", nil}, // the header is given
			{"?from=-1", "x", "unknown", "x", nil},
			{"", "-1", "unknown", "-1", nil},
			{"", "+1", "unknown", "+1", nil},
			{"", "4.0", "unknown", "4.0", nil},
			{"", "4, 4", "unknown", "4, 4", nil},
			{"", "0x4", "unknown", "0x4", nil},
			{"", "18446744073709551616", "unknown", "18446744073709551616", nil},
			{"", "000000000000000000004", "unknown", "000000000000000000004", nil},
			{"", `"<>&\`, "unknown", `"<>&\`, nil},
			{"", "é\u2028", "unknown", "é\u2028", nil},
			{"", "\xff", "unknown", "\ufffd", nil},
			{"", long, "unknown", long[:128], nil},
			{"", long[:128], "unknown", long[:128], nil},
		} {
			var headers []string
			if test.header != "" {
				headers = []string{"Last-Event-ID: " + test.header}
			}
			sub := s.subscribe(t, "/sse/x"+test.query, headers...)
			m := sub.next(t)
			var got map[string]any
			if err := json.Unmarshal([]byte(m.Data), &got); err != nil || m.Type != "gap" || m.ID != "" {
				t.Fatalf("%s with %q: begins with %+v, %v", test.query, test.header, m, err)
			}
			missed, there := got["missed"]
			if got["reason"] != test.reason || got["lastEventId"] != test.echo || got["first"] != 3.0 || got["last"] != 5.0 || missed != test.missed || !there {
				t.Errorf("%s with %q: %s", test.query, test.header, m.Data)
			}
			if id := sub.position(t); id != "2" {
				t.Errorf("%s with %q: goes on after %s", test.query, test.header, id)
			}
			if m := sub.next(t); m.ID != "3" {
				t.Errorf("%s with %q: goes on with %+v", test.query, test.header, m)
			}
			sub.Close()
		}
	})
}

// What is wrong with a parameter is said, whatever the header.
func TestMalformedParameters(t *testing.T) {
	s := newHost(t, setup{})
	for query, names := range map[string]string{
		"lastEventId=x":                     "lastEventId",
		"lastEventId=-1":                    "lastEventId",
		"lastEventId=1.0":                   "lastEventId",
		"lastEventId=+1":                    "lastEventId",
		"lastEventId=18446744073709551616":  "lastEventId",
		"lastEventId=000000000000000000001": "lastEventId",
		"lastEventId=1&lastEventId=1":       "lastEventId",
		"from=x":                            "from",
		"from=-0":                           "from",
		"from=-":                            "from",
		"from=--1":                          "from",
		"from=-x":                           "from",
		"from=-1.5":                         "from",
		"from=-18446744073709551616":        "from",
		"from=-10m":                         "from",
		"from=10":                           "from",
		"from=10x":                          "from",
		"from=Earliest":                     "from",
		"from=9999999h":                     "from",
		"from=2026-01-02":                   "from",
		"from=2026-01-02T03:04:05":          "from",
		"from=2026-13-02T03:04:05Z":         "from",
		"from=2026-01-02T03:04:05++02:00":   "from",
		"from=1767323045":                   "from",
		"from=earliest&from=latest":         "from",
		"from=x&lastEventId=1":              "from",
		"limit=0":                           "limit",
		"limit=-1":                          "limit",
		"limit=x":                           "limit",
		"limit=1.5":                         "limit",
		"limit=%2B1":                        "limit",
		"limit=18446744073709551616":        "limit",
		"limit=1&limit=1":                   "limit",
		"log=a&log=b":                       "log",
		"from=%zz":                          "query",
		"from=earliest;limit=1":             "query",
	} {
		for _, headers := range [][]string{nil, {"Last-Event-ID: 0"}} {
			for _, method := range []string{"GET", "HEAD"} {
				w := s.do(t, method, "/sse/x?"+query, "", headers...)
				if detail := isProblem(t, w, 400); !strings.Contains(detail, names) {
					t.Errorf("%s: the detail does not name %s: %s", query, names, detail)
				}
			}
		}
	}
}
