package jetstream_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lastevent/store"
	"lastevent/store/jetstream"
)

// A link is a connection to a NATS server that can lose what the server answers.
type link struct {
	listener net.Listener
	target   string
	deaf     atomic.Bool

	mu    sync.Mutex // guards conns
	conns []net.Conn
}

func newLink(t *testing.T, target string) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &link{listener: l, target: target}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				continue
			}
			k.mu.Lock()
			k.conns = append(k.conns, client, server)
			k.mu.Unlock()
			wg.Go(func() { k.copy(server, client, nil) })
			wg.Go(func() { k.copy(client, server, &k.deaf) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		k.reset()
		wg.Wait()
	})
	return k
}

func (k *link) copy(to io.Writer, from io.Reader, drop *atomic.Bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if drop != nil && drop.Load() {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (k *link) reset() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.conns {
		c.Close()
	}
	k.conns = nil
}

// openLinked opens a JetStream stream twice: by a link, and directly.
func openLinked(t *testing.T, o jetstream.Options) (k *link, linked, direct *jetstream.DB) {
	t.Helper()
	text := newURL(t)
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	k = newLink(t, u.Host)
	u.Host = k.listener.Addr().String()
	return k, open(t, u.String(), o), open(t, text, o)
}

// An append whose answer is lost is stored once, with a key or without one.
func TestAnswerLost(t *testing.T) {
	for _, key := range []string{"", "key"} {
		t.Run("key "+key, func(t *testing.T) {
			k, db, direct := openLinked(t, jetstream.Options{})
			mustAppend(t, db, "s", "before")
			k.deaf.Store(true)
			type answer struct {
				receipt store.Receipt
				err     error
			}
			answered := make(chan answer, 1)
			go func() {
				r, err := db.Log("s").Append(ctx, store.Batch{Events: []store.Event{event("lost")}, Key: key})
				answered <- answer{r, err}
			}()
			eventually(t, "stored", func() bool { return len(all(t, direct, "s")) == 2 })
			mustAppend(t, direct, "s", "after")
			select {
			case a := <-answered:
				t.Fatalf("answered: %+v", a)
			case <-time.After(100 * time.Millisecond):
			}
			k.deaf.Store(false)
			k.reset()
			a := <-answered
			if a.err != nil || a.receipt != (store.Receipt{Last: 2, Count: 1}) {
				t.Fatalf("append: %+v", a)
			}
			if got := all(t, direct, "s"); !slices.Equal(got, []string{"before", "lost", "after"}) {
				t.Fatalf("stored: %v", got)
			}
		})
	}
}

// Of an append whose answer is lost, and that is evicted before anybody could look, it is
// not said that nothing was stored.
func TestAnswerLostForGood(t *testing.T) {
	k, db, direct := openLinked(t, jetstream.Options{Retention: store.Retention{Events: 2}})
	mustAppend(t, db, "s", "before")
	k.deaf.Store(true)
	answered := make(chan error, 1)
	go func() {
		_, err := db.Log("s").Append(ctx, store.Batch{Events: []store.Event{event("lost")}})
		answered <- err
	}()
	eventually(t, "stored", func() bool { return len(all(t, direct, "s")) == 2 })
	for range 10 {
		mustAppend(t, direct, "s", "after")
	}
	k.deaf.Store(false)
	k.reset()
	if err := <-answered; !errors.Is(err, store.ErrUnknown) {
		t.Errorf("answered: %v", err)
	}
}

// Of an answer to who reads, messages can get lost on the way, too.
func TestLostMessages(t *testing.T) {
	db := open(t, newURL(t), jetstream.Options{})
	for came := 1; came <= 5; came++ {
		name := fmt.Sprint("s", came)
		l := db.Log(name)
		write := func() {
			for range 5 {
				if _, err := l.Append(ctx, store.Batch{Events: []store.Event{{Type: "t"}}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		var got []uint64
		read := func(after uint64, most int) {
			if _, err := l.Read(ctx, after, func(e store.Event) bool {
				got = append(got, e.Seq)
				most--
				return most > 0
			}); err != nil {
				t.Fatal(err)
			}
		}
		write()
		read(0, 1)
		db.LoseForTest(name, came)
		write()
		read(1, 100)
		if !slices.Equal(got, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}) {
			t.Errorf("of 5 events, of which %d came, and 5 more are read %d", came, got)
		}
	}
}
