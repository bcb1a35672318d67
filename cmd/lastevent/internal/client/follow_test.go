package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lastevent/cmd/lastevent/internal/client"
	"lastevent/stream/sse"
)

// A recorder is a consumer that writes down what it is told.
type recorder struct {
	got  []string
	fail string // the data of an event that it fails at
}

var errTaken = errors.New("not taken")

func (r *recorder) Take(_ context.Context, m sse.Message) error {
	if m.Data == r.fail {
		return errTaken
	}
	if m.Type != "position" {
		r.got = append(r.got, strings.TrimPrefix(m.Type, "message")+m.Data)
	}
	return nil
}

func (r *recorder) Settle(p client.Position) error {
	if say := "at " + p.ID; p.ID != "" && (len(r.got) == 0 || r.got[len(r.got)-1] != say) {
		r.got = append(r.got, say)
	}
	return nil
}

// events answers with a text of the stream, in which "@N" stands for a position and "N"
// for an event of this ID.
func events(then error, text ...string) answer {
	a := answer{status: 200, header: "Content-Type: text/event-stream", then: then, body: "retry: 1000\n"}
	for _, s := range text {
		switch {
		case strings.HasPrefix(s, "@"):
			a.body += fmt.Sprintf("event: position\nid: %s\ndata: {\"log\":\"l\",\"first\":1,\"last\":9}\n\n", s[1:])
		case s == "gap" || s == "end":
			a.body += "event: " + s + "\ndata: {}\n\n"
		default:
			a.body += fmt.Sprintf("id: %s\ndata: <%s>\n\n", s, s)
		}
	}
	return a
}

var cut = io.ErrUnexpectedEOF

// follow follows a scripted server to the end.
func follow(t *testing.T, f *client.Follower, answers ...answer) (*script, []string, error) {
	s := &script{t: t, answers: answers}
	r, _ := f.Consumer.(*recorder)
	if r == nil {
		r = new(recorder)
	}
	f.Server, f.Stream, f.Consumer = s.server(noToken), "s", r
	f.Waiting = func(error, int) {}
	if f.Silence == 0 {
		f.Silence = 45 * time.Second
	}
	err := f.Run(t.Context())
	if len(s.calls) != len(answers) {
		t.Errorf("there were %d calls, want %d", len(s.calls), len(answers))
	}
	return s, r.got, err
}

func TestFollow(t *testing.T) {
	for name, test := range map[string]struct {
		follower client.Follower
		answers  []answer
		got      string
		queries  string
	}{
		"resumes after a cut": {
			client.Follower{From: "earliest"},
			[]answer{events(cut, "@0", "1", "2"), events(cut, "@2"), events(nil, "@2", "3", "end")},
			"at 0 <1> <2> at 2 <3> end{} at 3", "from=earliest lastEventId=2&log=l lastEventId=2&log=l",
		},
		"has an ID from the first byte on": {
			client.Follower{},
			[]answer{events(cut, "@5"), events(nil, "@5", "6", "end")},
			"at 5 <6> end{} at 6", " lastEventId=5&log=l",
		},
		"settles where it starts before the first event": {
			client.Follower{},
			[]answer{events(nil, "@5", "6", "end")},
			"at 5 <6> end{} at 6", "",
		},
		"begins anew where it had none": {
			client.Follower{From: "-3"},
			[]answer{refused, events(cut), events(nil, "@5", "end")},
			"at 5 end{} at 5", "from=-3 from=-3 from=-3",
		},
		"takes a clean end that is none for a cut": {
			client.Follower{},
			[]answer{events(nil, "@5", "6"), events(nil, "@6", "end")},
			"at 5 <6> at 6 end{} at 6", " lastEventId=6&log=l",
		},
		"is told that all is over": {
			client.Follower{Position: client.Position{ID: "9", Log: "l"}},
			[]answer{{status: 204}},
			"at 9", "lastEventId=9&log=l",
		},
		"goes on behind a gap": {
			client.Follower{Position: client.Position{ID: "2", Log: "k"}},
			[]answer{events(cut, "gap"), events(cut, "gap", "@1", "2"), events(nil, "@2", "end")},
			"at 2 gap{} at 2 gap{} <2> at 2 end{} at 2", "lastEventId=2&log=k lastEventId=2&log=k lastEventId=2&log=l",
		},
		"ends at the limit, over all connections": {
			client.Follower{Limit: 3},
			[]answer{events(cut, "@0", "1", "2"), events(nil, "@2", "3")},
			"at 0 <1> <2> at 2 <3> at 3", "limit=3 lastEventId=2&limit=1&log=l",
		},
		"takes each once": {
			client.Follower{},
			[]answer{events(nil, "@5", "6", "6", "5", "7", "end")},
			"at 5 <6> <7> end{} at 7", "",
		},
		"has what was left out sent again": {
			client.Follower{},
			[]answer{events(nil, "@5", "7"), events(nil, "@5", "6", "7", "end")},
			"at 5 <6> <7> end{} at 7", " lastEventId=5&log=l",
		},
		"may leave out other types": {
			client.Follower{Types: []string{"message", "x y"}},
			[]answer{events(cut, "@5", "7", "@9"), events(nil, "@9", "end")},
			"at 5 <7> at 9 end{} at 9", "event=message&event=x+y event=message&event=x+y&lastEventId=9&log=l",
		},
		"settles after each": {
			client.Follower{SettleEach: true},
			[]answer{events(nil, "@5", "6", "7", "end")},
			"at 5 <6> at 6 <7> at 7 end{} at 7", "",
		},
		"reads what there is": {
			client.Follower{Once: true},
			[]answer{{status: 200, header: "Content-Type: text/event-stream; charset=utf-8", body: events(nil, "@8", "9").body}},
			"at 8 <9> at 9", "follow=false",
		},
		"tries again where the server is overloaded": {
			client.Follower{},
			[]answer{{status: 503}, {status: 429}, {status: 502}, events(nil, "@5", "end")},
			"at 5 end{} at 5", "   ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s, got, err := follow(t, &test.follower, test.answers...)
				if err != nil {
					t.Error(err)
				}
				if diff := cmp.Diff(test.got, strings.Join(got, " ")); diff != "" {
					t.Errorf("it got (-want +got):\n%s", diff)
				}
				var queries []string
				for _, c := range s.calls {
					queries = append(queries, c.query)
				}
				if diff := cmp.Diff(test.queries, strings.Join(queries, " ")); diff != "" {
					t.Errorf("it asked (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestFollowFails(t *testing.T) {
	for want, test := range map[string]struct {
		follower client.Follower
		answer   answer
	}{
		"400: so it is":    {client.Follower{}, problem(400, "so it is")},
		"401 Unauthorized": {client.Follower{}, answer{status: 401}},
		`the answer is 200 of type "text/html", and not a stream of events; is the URL right?`: {client.Follower{}, answer{status: 200, header: "Content-Type: text/html"}},
		"not taken": {client.Follower{Consumer: &recorder{fail: "<6>"}}, events(cut, "@5", "6")},
		"the stream goes on after ID 7 where 5 was asked for: something on the way drops the query": {client.Follower{Position: client.Position{ID: "5", Log: "l"}}, events(cut, "@7", "8")},
		`an event has the ID "6", where a number after a position must be; is this lastevent?`:      {client.Follower{}, events(cut, "6")},
	} {
		bubble(t, func(t *testing.T) {
			if _, _, err := follow(t, &test.follower, test.answer); err == nil || err.Error() != want {
				t.Errorf("%v, want %s", err, want)
			}
		})
	}
}

// What a consumer did not take is not settled.
func TestFollowSettlesBeforeAFailure(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := &recorder{fail: "<7>"}
		_, got, err := follow(t, &client.Follower{Consumer: r}, events(cut, "@5", "6", "7"))
		if want := "at 5 <6> at 6"; strings.Join(got, " ") != want || err != errTaken {
			t.Errorf("got %q and %v, want %q", got, err, want)
		}
	})
}

// A connection without even a heartbeat is dead, but not while the consumer has to do.
func TestFollowNoticesSilence(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := client.Follower{Silence: 10 * time.Second}
		s, got, err := follow(t, &f, events(errOpen, "@5", "6"), events(nil, "@6", "end"))
		if want := "at 5 <6> at 6 end{} at 6"; strings.Join(got, " ") != want || err != nil {
			t.Errorf("got %q and %v, want %q", got, err, want)
		}
		if d := s.pauses()[0]; d < 10*time.Second || d > 12*time.Second {
			t.Errorf("connected again after %v", d)
		}
	})
}

// The pauses begin with the server's retry:, and grow until a connection succeeds.
func TestFollowBacksOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, _, err := follow(t, &client.Follower{},
			events(cut, "@5"), refused, refused, refused, refused, refused, refused, events(nil, "@5", "end"))
		if err != nil {
			t.Fatal(err)
		}
		s.checkPauses(time.Second)
	})
	bubble(t, func(t *testing.T) {
		slow := events(cut, "@5")
		slow.body = strings.Replace(slow.body, "1000", "4000", 1)
		s, _, err := follow(t, &client.Follower{}, slow, slow, events(nil, "@5", "end"))
		for _, d := range s.pauses() {
			if err != nil || d < 2*time.Second || d > 4*time.Second {
				t.Errorf("%v, pauses %v", err, s.pauses())
			}
		}
	})
}
