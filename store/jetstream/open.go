package jetstream

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"
)

// A target is what a URL for Open says.
type target struct {
	servers  string
	name     string
	replicas int
	creds    string
	ca       string
}

var validName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func parseURL(text string) (t target, err error) {
	t = target{name: "lastevent", replicas: 3}
	servers, query, _ := strings.Cut(text, "?")
	list := strings.Split(servers, ",")
	scheme, _, _ := strings.Cut(text, "://")
	var user *url.Userinfo
	for i, server := range list {
		if i > 0 && !strings.Contains(server, "://") {
			server = scheme + "://" + server
		}
		u, err := url.Parse(server)
		if err != nil || u.Host == "" || u.Scheme != "nats" && u.Scheme != "tls" {
			return t, errors.New("must be nats://[user:password@]host[:port][,host[:port]…][/NAME][?replicas=N][&creds=FILE][&ca=FILE], or tls://…")
		}
		if i == 0 {
			user = u.User
		}
		u.User = cmp.Or(u.User, user)
		if name := strings.Trim(u.Path, "/"); name != "" {
			if i < len(list)-1 || !validName.MatchString(name) {
				return t, fmt.Errorf("%q is no name for a JetStream stream; it comes after the last server, and has letters, digits, - and _", name)
			}
			t.name = name
		}
		u.Path = ""
		list[i] = u.String()
	}
	t.servers = strings.Join(list, ",")
	values, err := url.ParseQuery(query)
	if err != nil {
		return t, err
	}
	for key, v := range values {
		if len(v) > 1 {
			return t, fmt.Errorf("%s= is given more than once", key)
		}
		switch key {
		case "replicas":
			if t.replicas, err = strconv.Atoi(v[0]); err != nil || t.replicas < 1 || t.replicas > 5 {
				return t, fmt.Errorf("replicas=%s is not 1 to 5", v[0])
			}
		case "creds":
			t.creds = v[0]
		case "ca":
			t.ca = v[0]
		default:
			return t, fmt.Errorf("%s= is not replicas, creds or ca", key)
		}
	}
	return t, nil
}

// CheckURL returns what is wrong with a URL for Open, without connecting.
func CheckURL(text string) error {
	t, err := parseURL(text)
	if err != nil {
		return err
	}
	for _, file := range []string{t.creds, t.ca} {
		if file == "" {
			continue
		}
		if _, err := os.Stat(file); err != nil {
			return err
		}
	}
	return nil
}

// connect returns a connection that goes on to another server when it loses one. All that
// it tries ends with the context.
func (db *DB) connect(ctx context.Context) (*nats.Conn, error) {
	options := []nats.Option{
		nats.Name("lastevent"),
		nats.Timeout(requestTimeout),
		nats.SetCustomDialer(dialer{ctx}),
		nats.SkipHostLookup(), // the dialer does it
		nats.PingInterval(time.Second),
		nats.MaxPingsOutstanding(2),
		nats.SyncQueueLen(4 * fetchCount), // an answer is at most a quarter of it
		nats.MaxReconnects(-1),
		nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 100*time.Millisecond),
		nats.ReconnectBufSize(-1),   // what cannot be sent fails at once, and is not sent later
		nats.IgnoreAuthErrorAbort(), // who is refused may be let in later
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { db.connection(cmp.Or(err, errLost)) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { db.reconnect.Store(&err) }),
		nats.ReconnectHandler(func(*nats.Conn) {
			db.connection(nil)
			db.recheck()
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			if sub == nil { // maybe nobody is let in
				db.reconnect.Store(&err)
				return
			}
			db.recheck() // it lost messages
		}),
	}
	if db.creds != "" {
		options = append(options, nats.UserCredentials(db.creds))
	}
	if db.ca != "" {
		options = append(options, nats.RootCAs(db.ca))
	}
	return nats.Connect(db.servers, options...)
}

// conn returns the connection to the servers, or an error while there is none: nats.go lets
// callers wait while it tries a server, for as long as that says nothing.
func (db *DB) conn() (*nats.Conn, error) {
	if db.offline.Load() {
		return nil, fmt.Errorf("%w: no connection to %s: %w", errAgain, db.Servers(), *db.reconnect.Load())
	}
	return db.nc, nil
}

var errLost = errors.New("the connection is lost")

// connection notes that the connection is lost, or is there again.
func (db *DB) connection(err error) {
	if db.ctx.Err() != nil {
		return
	}
	if err != nil {
		db.reconnect.Store(&err)
	}
	db.offline.Store(err != nil)
	if db.options.Connection != nil {
		db.options.Connection(err)
	}
}

// A dialer's connections end with the context. While nats.go waits for what a server says
// first, it could not even be closed.
type dialer struct{ ctx context.Context }

func (d dialer) Dial(network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: requestTimeout}).DialContext(d.ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &endingConn{conn, context.AfterFunc(d.ctx, func() { conn.Close() })}, nil
}

type endingConn struct {
	net.Conn
	stop func() bool
}

func (c *endingConn) Close() error {
	c.stop()
	return c.Conn.Close()
}

// Metadata of the JetStream stream.
const (
	metaLog    = "lastevent-log"
	metaEpoch  = "lastevent-epoch"
	metaFormat = "lastevent-format"
)

// ensure creates the JetStream stream where it is missing, and returns its origin. A question to a cluster that has no leader is never answered, so it must be
// asked again.
func (db *DB) ensure(ctx context.Context, logID string) (o origin, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	stream, err := db.js.Stream(ctx, db.name)
	if errors.Is(err, js.ErrStreamNotFound) {
		stream, err = db.js.CreateStream(ctx, db.config(logID))
	}
	if errors.Is(err, js.ErrStreamNameAlreadyInUse) { // another server was faster
		stream, err = db.js.Stream(ctx, db.name)
	}
	if err != nil {
		return o, db.explain(err)
	}
	config := stream.CachedInfo().Config
	o = origin{db.name, config.Metadata[metaLog], config.Metadata[metaEpoch]}
	if o.log == "" || o.epoch == "" || config.Metadata[metaFormat] != "1" {
		return o, lastingError{fmt.Errorf("the JetStream stream %s is not one of this lastevent; name another one (nats://host:port/NAME)", db.name)}
	}
	if config.MaxMsgsPerSubject > 0 && config.MaxMsgsPerSubject < db.maxCommits() || config.MaxMsgsPerSubject > 0 && db.maxCommits() < 0 {
		config.MaxMsgsPerSubject = db.maxCommits()
		if _, err := db.js.UpdateStream(ctx, config); err != nil {
			return o, db.explain(err)
		}
	}
	db.replicas.Store(int64(config.Replicas))
	db.perSubject.Store(config.MaxMsgsPerSubject)
	return o, nil
}

// maxCommits is how many commits of a log JetStream may keep so that it removes none
// that is retained: each holds an event, but for one that closes the log, and for those
// that expire one each. What it removes costs nothing more; the rest is removed by
// requests, of which a cluster takes a few thousand a second.
func (db *DB) maxCommits() int64 {
	r := db.options.Retention
	switch {
	case r.Events == 0 || r.Events > 1<<40:
		return -1
	case r.Age > 0:
		return 2*int64(r.Events) + 16
	}
	return int64(r.Events) + 2
}

// A lastingError will be the same when it is tried again.
type lastingError struct{ error }

func (e lastingError) Unwrap() error { return e.error }

// explain says what to do about JetStream's errors, where that is known.
func (db *DB) explain(err error) error {
	var api *js.APIError
	switch {
	case errors.As(err, &api) && (api.ErrorCode == codeNotClustered || api.ErrorCode == codeNoPeers || api.ErrorCode == codeNoResources):
		err = fmt.Errorf("%w: %d replicas of the stream %s need as many NATS servers with JetStream; to try it on one, add ?replicas=1 to the URL", err, db.target.replicas, db.name)
		if api.ErrorCode == codeNotClustered {
			err = lastingError{err}
		}
	case errors.Is(err, js.ErrJetStreamNotEnabled), errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("%w: the NATS server has no JetStream; start it with -js", err)
	}
	return err
}

func (db *DB) config(logID string) js.StreamConfig {
	draw := func() string { return strings.ToLower(rand.Text()[:8]) }
	o := origin{db.name, cmp.Or(logID, draw()), draw()}
	return js.StreamConfig{
		Name:        db.name,
		Description: "events of lastevent; a subject for each stream",
		Subjects:    []string{o.subject("e", "*"), o.subject("k", "*", "*"), o.barrier(), o.sweep()},
		Storage:     js.FileStorage,
		Replicas:    db.target.replicas,
		// Retention is lastevent's; a limit that somebody sets must refuse, not remove.
		Discard:            js.DiscardNew,
		AllowDirect:        true,
		AllowRollup:        true,
		MaxMsgsPerSubject:  db.maxCommits(),
		AllowAtomicPublish: true,
		RePublish:          &js.RePublish{Source: o.subject("e", ">"), Destination: db.liveSubject(">")},
		Metadata:           map[string]string{metaLog: o.log, metaEpoch: o.epoch, metaFormat: "1"},
	}
}

// Open connects to the servers of the URL
//
//	nats://[user:password@]host:port[,nats://host:port…][/NAME][?replicas=N][&creds=FILE][&ca=FILE]
//
// and creates the JetStream stream NAME (lastevent) where it is missing, on three
// servers unless replicas says otherwise. It tries until the context ends, and then
// returns why it could not.
func Open(ctx context.Context, url string, o Options) (*DB, error) {
	t, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	db := newDB(t, o)
	stop := context.AfterFunc(ctx, db.cancel)
	defer stop()
	moved, told := time.Now(), time.Now()
	for {
		now := db.tryOpen(ctx)
		if now == nil && stop() {
			db.start()
			return db, nil
		}
		now = cmp.Or(now, ctx.Err())
		if o.Waiting != nil && time.Since(told) > time.Second && ctx.Err() == nil {
			o.Waiting(now)
			told = time.Now().Add(5 * time.Second)
		}
		if ctx.Err() == nil {
			err = now
		}
		if errors.As(err, new(lastingError)) || ctx.Err() != nil {
			db.cancel()
			if db.nc != nil {
				db.nc.Close()
			}
			return nil, fmt.Errorf("JetStream at %s: %w", redacted(t.servers), cmp.Or(err, now))
		}
		if db.nc != nil && time.Since(moved) > 2*requestTimeout { // another server may know more
			_ = db.nc.ForceReconnect() // it fails while there is no connection
			moved = time.Now()
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// tryOpen tries once what is still to be done.
func (db *DB) tryOpen(ctx context.Context) (err error) {
	if db.nc == nil {
		if db.nc, err = db.connect(db.ctx); err != nil {
			return err
		}
		if db.js, err = js.New(db.nc); err != nil {
			return err
		}
	}
	o, err := db.ensure(ctx, db.options.LogID)
	if err != nil {
		return err
	}
	if has, want := db.Replicas(), db.target.replicas; has < want {
		return lastingError{fmt.Errorf("the JetStream stream %s has replicas=%d, and the URL asks for %d: change the stream by `nats stream edit %s --replicas %d`, or add ?replicas=%d to the URL", db.name, has, want, db.name, want, has)}
	}
	db.origin.Store(&o)
	return db.barrier(ctx)
}

// redacted is a list of URLs without passwords.
func redacted(servers string) string {
	list := strings.Split(servers, ",")
	for i, s := range list {
		if u, err := url.Parse(s); err == nil {
			list[i] = u.Redacted()
		}
	}
	return strings.Join(list, ",")
}
