package jetstream_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	js "github.com/nats-io/nats.go/jetstream"

	"lastevent/store"
	"lastevent/store/jetstream"
)

func event(data string) store.Event { return store.Event{Type: "message", Data: []byte(data)} }

func mustAppend(t *testing.T, db *jetstream.DB, name string, data ...string) store.Receipt {
	t.Helper()
	var b store.Batch
	for _, d := range data {
		b.Events = append(b.Events, event(d))
	}
	r, err := db.Log(name).Append(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// all returns the data of all events of a log, and checks that they follow each other.
func all(t *testing.T, db *jetstream.DB, name string) (data []string) {
	t.Helper()
	next := uint64(0)
	if _, err := db.Log(name).Read(ctx, 0, func(e store.Event) bool {
		if next > 0 && e.Seq != next {
			t.Errorf("event %d where %d should be", e.Seq, next)
		}
		next = e.Seq + 1
		data = append(data, string(e.Data))
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return data
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// Several servers append to one log at the same time, and each follows it.
func TestServersAppendTogether(t *testing.T) {
	const servers, each = 3, 60
	url := newURL(t)
	var dbs [servers]*jetstream.DB
	var mu sync.Mutex
	var heard [servers][]uint64
	for i := range dbs {
		dbs[i] = open(t, url, jetstream.Options{})
		stop, err := dbs[i].Log("s").Follow(ctx, func(b store.Bounds, events []store.Event) {
			mu.Lock()
			defer mu.Unlock()
			for _, e := range events {
				if n := len(heard[i]); n == 0 || e.Seq > heard[i][n-1] {
					heard[i] = append(heard[i], e.Seq)
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
	}
	var wg sync.WaitGroup
	for i, db := range dbs {
		wg.Go(func() {
			for n := range each {
				b := store.Batch{Events: []store.Event{event(fmt.Sprint(i, "/", n)), event("second")}, Key: fmt.Sprint("key", n)}
				b.Digest[0] = byte(i)
				r, err := db.Log("s").Append(ctx, b)
				if err != nil && !errors.Is(err, store.ErrKeyReused) {
					t.Errorf("append: %+v, %v", r, err)
				}
			}
		})
	}
	wg.Wait()
	events := all(t, dbs[0], "s")
	if len(events) != 2*each { // each key was used by one of the servers
		t.Fatalf("%d events; want %d", len(events), 2*each)
	}
	for i := range heard {
		eventually(t, "all heard", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(heard[i]) == len(events)
		})
		for n, seq := range heard[i] {
			if seq != uint64(n+1) {
				t.Fatalf("server %d heard of event %d after %d", i, seq, n)
			}
		}
	}
}

// Where hardly anything is retained, a server that was overtaken cannot see by whom.
func TestServersOvertake(t *testing.T) {
	url := newURL(t)
	var wg sync.WaitGroup
	for i := range 3 {
		db := open(t, url, jetstream.Options{Retention: store.Retention{Events: 1}})
		wg.Go(func() {
			for n := range 100 {
				if _, err := db.Log("s").Append(ctx, store.Batch{Events: []store.Event{event(fmt.Sprint(i, "/", n))}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b, err := open(t, url, jetstream.Options{}).Log("s").Bounds(ctx)
	if err != nil || b.First != 300 || b.Last != 300 {
		t.Errorf("bounds %+v, %v", b, err)
	}
}

// What one server does, another sees at once.
func TestServersAgree(t *testing.T) {
	url := newURL(t)
	retention := store.Retention{Events: 3}
	a, b := open(t, url, jetstream.Options{Retention: retention}), open(t, url, jetstream.Options{Retention: retention})
	if a.ID() == "" || a.ID() != b.ID() {
		t.Fatalf("logs %q and %q", a.ID(), b.ID())
	}
	for i := range 10 {
		db := []*jetstream.DB{a, b}[i%2]
		mustAppend(t, db, "s", fmt.Sprint(i))
	}
	if got := all(t, a, "s"); !slices.Equal(got, []string{"7", "8", "9"}) {
		t.Fatalf("retained: %v", got)
	}
	if err := b.Log("s").Delete(ctx); err != nil {
		t.Fatal(err)
	}
	if bounds, err := a.Log("s").Bounds(ctx); err != nil || bounds.First != 11 || bounds.Last != 10 {
		t.Fatalf("after a delete elsewhere: %+v, %v", bounds, err)
	}
	if _, err := a.Log("s").Append(ctx, store.Batch{Close: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Log("s").Append(ctx, store.Batch{Events: []store.Event{event("late")}}); !errors.Is(err, store.ErrClosed) {
		t.Fatalf("append after a close elsewhere: %v", err)
	}
	streams, err := b.Streams(ctx)
	if err != nil || len(streams) != 1 || streams[0].Name != "s" || !streams[0].Closed || streams[0].Last != 10 {
		t.Fatalf("streams %+v, %v", streams, err)
	}
}

// What is evicted goes from JetStream, too, with its keys.
func TestEvictedIsRemoved(t *testing.T) {
	db := open(t, newURL(t), jetstream.Options{Retention: store.Retention{Events: 5}})
	for i := range 40 {
		b := store.Batch{Events: []store.Event{event("a"), event("b")}, Key: fmt.Sprint(i)}
		if _, err := db.Log("s").Append(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "at most three commits with their keys", func() bool { return messages(t, db) <= 2*3 })
	if err := db.Log("s").Delete(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one commit, which holds the state", func() bool { return messages(t, db) == 1 })
}

// messages is how many JetStream holds, without those of the DB itself.
func messages(t *testing.T, db *jetstream.DB) (n uint64) {
	t.Helper()
	s, err := db.JetStreamForTest().Stream(ctx, db.Name())
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.Info(ctx, js.WithSubjectFilter(">"))
	if err != nil {
		t.Fatal(err)
	}
	for subject, count := range info.State.Subjects {
		if !strings.HasSuffix(subject, ".barrier") && !strings.HasSuffix(subject, ".sweep") {
			n += count
		}
	}
	return n
}

// Expired events are not read, and are removed also from closed streams.
func TestExpired(t *testing.T) {
	age := 2 * time.Second
	db := open(t, newURL(t), jetstream.Options{Retention: store.Retention{Age: age}})
	mustAppend(t, db, "s", "a", "b")
	if _, err := db.Log("s").Append(ctx, store.Batch{Close: true, Events: []store.Event{event("c")}, Key: "k"}); err != nil {
		t.Fatal(err)
	}
	b, err := db.Log("s").Bounds(ctx)
	if err != nil || b.Expires.IsZero() || b.First != 1 && time.Now().Before(b.Expires) {
		t.Fatalf("bounds %+v, %v", b, err)
	}
	var told store.Bounds
	var mu sync.Mutex
	stop, err := db.Log("s").Follow(ctx, func(b store.Bounds, _ []store.Event) {
		mu.Lock()
		defer mu.Unlock()
		told = b
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	time.Sleep(time.Until(b.Expires.Add(age)))
	if got := all(t, db, "s"); got != nil {
		t.Fatalf("expired, and read: %v", got)
	}
	if b, err := db.Log("s").Bounds(ctx); err != nil || b.First != 4 || b.Last != 3 || b.Bytes != 0 || !b.Closed {
		t.Fatalf("expired: %+v, %v", b, err)
	}
	eventually(t, "the follower is told", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return told.First == 4
	})
	db.SweepForTest()
	eventually(t, "one commit is left", func() bool { return messages(t, db) == 1 })
	if _, used, err := db.Log("s").Used(ctx, "k", [32]byte{}); used || err != nil {
		t.Fatalf("the key of an expired event: %t, %v", used, err)
	}
}

// A JetStream stream that was deleted is created anew, as another log.
func TestCreatedAnew(t *testing.T) {
	url := newURL(t)
	o := jetstream.Options{Retention: store.Retention{Events: 10}}
	db := open(t, url, o)
	mustAppend(t, db, "before", slices.Repeat([]string{"x"}, 20)...)
	mustAppend(t, db, "s", "a", "b")
	old := db.ID()
	told := make(chan store.Bounds, 100)
	stop, err := db.Log("s").Follow(ctx, func(b store.Bounds, _ []store.Event) { told <- b })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if err := db.JetStreamForTest().DeleteStream(ctx, db.Name()); err != nil {
		t.Fatal(err)
	}
	other := open(t, url, o)
	// One that has not heard of it stores nothing under the old name.
	mustAppend(t, db, "new", "x")
	if b, err := other.Log("new").Bounds(ctx); err != nil || b.Log != other.ID() || b.Last != 1 {
		t.Fatalf("bounds %+v, %v", b, err)
	}
	mustAppend(t, other, "s", "c")
	if other.ID() == old {
		t.Fatal("the log has the name of the old one")
	}
	for b := range told {
		if b.Log == other.ID() && b.Last == 1 {
			break
		}
	}
	if got := all(t, db, "s"); !slices.Equal(got, []string{"c"}) {
		t.Fatalf("read: %v", got)
	}
	if r := mustAppend(t, db, "s", "d"); r.Last != 2 {
		t.Fatalf("appended: %+v", r)
	}
	if got := all(t, db, "s"); !slices.Equal(got, []string{"c", "d"}) {
		t.Fatalf("read: %v", got)
	}
}

// A backup that was put back can be given another numbering: what is there stays.
func TestPutBack(t *testing.T) {
	db := open(t, newURL(t), jetstream.Options{})
	mustAppend(t, db, "s", "a", "b")
	told := make(chan store.Bounds, 100)
	stop, err := db.Log("s").Follow(ctx, func(b store.Bounds, _ []store.Event) { told <- b })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	stream, err := db.JetStreamForTest().Stream(ctx, db.Name())
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	config.Metadata["lastevent-log"] = "another"
	if _, err := db.JetStreamForTest().UpdateStream(ctx, config); err != nil {
		t.Fatal(err)
	}
	for b := range told {
		if b.Log == "another" && b.Last == 2 {
			break
		}
	}
	mustAppend(t, db, "s", "c")
	if b, err := db.Log("s").Bounds(ctx); err != nil || b.Log != "another" || b.First != 1 || b.Last != 3 {
		t.Errorf("bounds %+v, %v", b, err)
	}
	if got := all(t, db, "s"); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("read: %v", got)
	}
}

// What one server keeps is not served to who asks for three.
func TestTooFewReplicas(t *testing.T) {
	url := newURL(t)
	open(t, url, jetstream.Options{})
	_, err := jetstream.Open(ctx, strings.TrimSuffix(url, "?replicas=1"), jetstream.Options{})
	if err == nil || !strings.Contains(err.Error(), "replicas=1, and the URL asks for 3") {
		t.Errorf("opened: %v", err)
	}
}

func TestTooLargeForAMessage(t *testing.T) {
	db := open(t, newURL(t), jetstream.Options{})
	half := string(make([]byte, 5<<20)) // a message has at most 8 MiB here
	_, err := db.Log("s").Append(ctx, store.Batch{Events: []store.Event{event(half), event(half)}})
	if !errors.Is(err, store.ErrTooLarge) {
		t.Fatalf("append: %v", err)
	}
	mustAppend(t, db, "s", half)
	if r := mustAppend(t, db, "s", half); r.Last != 2 {
		t.Fatalf("appended: %+v", r)
	}
}

func TestTooManyStreams(t *testing.T) {
	db := open(t, newURL(t), jetstream.Options{MaxStreams: 2})
	mustAppend(t, db, "a", "a")
	mustAppend(t, db, "b", "b")
	if _, err := db.Log("c").Append(ctx, store.Batch{Events: []store.Event{event("c")}}); !errors.Is(err, store.ErrTooManyStreams) {
		t.Fatalf("append: %v", err)
	}
	mustAppend(t, db, "a", "a")
}

// A JetStream stream of somebody else is left alone.
func TestForeign(t *testing.T) {
	url := newURL(t)
	db := open(t, newURL(t), jetstream.Options{})
	_, name, _, err := jetstream.URLOf(url)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.JetStreamForTest().CreateStream(ctx, js.StreamConfig{Name: name, Subjects: []string{name + ".mine"}}); err != nil {
		t.Fatal(err)
	}
	if db, err := jetstream.Open(ctx, url, jetstream.Options{}); err == nil {
		db.Close()
		t.Fatal("opened")
	}
}

// A NATS server may be there before its JetStream is.
func TestOpenBeforeJetStream(t *testing.T) {
	dir := t.TempDir()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer s.WaitForShutdown()
	defer s.Shutdown()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server is not ready")
	}
	enabled := make(chan error, 1)
	time.AfterFunc(500*time.Millisecond, func() { enabled <- s.EnableJetStream(&server.JetStreamConfig{StoreDir: dir}) })
	db := open(t, s.ClientURL()+"?replicas=1", jetstream.Options{})
	if err := <-enabled; err != nil {
		t.Fatal(err)
	}
	mustAppend(t, db, "s", "a")
	db.Close()
	if db, err := jetstream.Open(ctx, s.ClientURL()+"/other", jetstream.Options{}); err == nil || !strings.Contains(err.Error(), "?replicas=1") {
		t.Fatalf("three replicas on one server: %v, %v", db, err)
	}
}

func TestURL(t *testing.T) {
	for _, c := range []struct {
		url, servers, name string
		replicas           int
	}{
		{"nats://a:4222", "nats://a:4222", "lastevent", 3},
		{"nats://a:4222/", "nats://a:4222", "lastevent", 3},
		{"nats://a:1,nats://b:2/events?replicas=5", "nats://a:1,nats://b:2", "events", 5},
		{"tls://u:p@a?replicas=1&creds=x", "tls://u:p@a", "lastevent", 1},
		{"nats://u:p@a:1,b:2,nats://v:q@c:3/x", "nats://u:p@a:1,nats://u:p@b:2,nats://v:q@c:3", "x", 3},
		{"nats://a?replicas=1&replicas=3", "", "", 0},
		{"http://a", "", "", 0},
		{"a:4222", "", "", 0},
		{"nats://a/x,nats://b", "", "", 0},
		{"nats://a/x.y", "", "", 0},
		{"nats://a?replicas=0", "", "", 0},
		{"nats://a?replicas=x", "", "", 0},
		{"nats://a?replica=1", "", "", 0},
		{"", "", "", 0},
	} {
		servers, name, replicas, err := jetstream.URLOf(c.url)
		if (err == nil) != (c.replicas > 0) || err == nil && (servers != c.servers || name != c.name || replicas != c.replicas) {
			t.Errorf("%q: %q, %q, %d, %v", c.url, servers, name, replicas, err)
		}
	}
}

// Appends that are under way when the DB is closed fail, and all of its goroutines end.
func TestCloseWhileAppending(t *testing.T) {
	db := open(t, newURL(t), jetstream.Options{})
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			for {
				_, err := db.Log(fmt.Sprint("s", i%3)).Append(ctx, store.Batch{Events: []store.Event{event("a")}})
				if err != nil {
					return
				}
			}
		})
	}
	mustAppend(t, db, "s0", "a")
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if _, err := db.Log("s0").Append(ctx, store.Batch{Events: []store.Event{event("a")}}); !errors.Is(err, store.ErrStopped) {
		t.Errorf("append after a close: %v", err)
	}
	if _, err := db.Log("s0").Bounds(ctx); err == nil {
		t.Error("bounds after a close")
	}
}
