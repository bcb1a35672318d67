package jetstream

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

// requestTimeout is how long one answer is awaited, before the request is made again,
// maybe of another server.
const requestTimeout = 2 * time.Second

// What a publish that was not stored failed with.
var (
	errConflict = errors.New("the log was appended to meanwhile")
	errFull     = errors.New("JetStream has no room")
	// errMaybe: no answer came, so it may be stored.
	errMaybe = errors.New("no answer from JetStream")
	errAgain = errors.New("JetStream cannot take it now")
	// errBusy: the acknowledged commit before it is not yet out of the way.
	errBusy = errors.New("JetStream is not done with the log's last commit")
)

// JetStream's error codes.
const (
	codeNoPeers       = 10005
	codeNoResources   = 10023
	codeNoMemory      = 10028
	codeNoStorage     = 10047
	codeWrongLast     = 10071
	codeNotClustered  = 10074
	codeStoreFailed   = 10077
	codeWrongLastBusy = 10164
)

// publish stores the messages, all of them or none, and returns the JetStream sequence
// of the last one.
func (db *DB) publish(ctx context.Context, msgs ...*nats.Msg) (uint64, error) {
	nc, err := db.conn()
	if err != nil {
		return 0, err
	}
	last := msgs[len(msgs)-1]
	if len(msgs) > 1 {
		id := nuid.Next()
		for i, m := range msgs {
			m.Header.Set("Nats-Batch-Id", id)
			m.Header.Set("Nats-Batch-Sequence", strconv.Itoa(i+1))
		}
		last.Header.Set("Nats-Batch-Commit", "1")
		for _, m := range msgs[:len(msgs)-1] {
			if err := nc.PublishMsg(m); err != nil {
				return 0, fmt.Errorf("%w: %w", errAgain, err)
			}
		}
	}
	ctx, cancel := db.within(ctx, requestTimeout)
	defer cancel()
	answer, err := nc.RequestMsgWithContext(ctx, last)
	switch {
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, nats.ErrReconnectBufExceeded):
		return 0, fmt.Errorf("%w: %w", errAgain, err)
	case err != nil:
		return 0, fmt.Errorf("%w: %w", errMaybe, err)
	}
	return parseAck(answer.Data)
}

func parseAck(p []byte) (uint64, error) {
	var ack struct {
		Seq   uint64 `json:"seq"`
		Error *struct {
			Code        int    `json:"err_code"`
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(p, &ack); err != nil {
		return 0, fmt.Errorf("%w: %w", errMaybe, err)
	}
	if ack.Error == nil {
		if ack.Seq == 0 {
			return 0, fmt.Errorf("%w: %q", errMaybe, p)
		}
		return ack.Seq, nil
	}
	kind := errAgain
	switch ack.Error.Code {
	case codeWrongLast:
		kind = errConflict
	case codeWrongLastBusy:
		kind = errBusy
	case codeNoResources, codeNoMemory, codeNoStorage:
		kind = errFull
	case codeStoreFailed:
		kind = errFull
		if ack.Error.Description == "store is closed" { // of this replica
			kind = errMaybe
		}
	}
	return 0, fmt.Errorf("%w: %s (%d)", kind, ack.Error.Description, ack.Error.Code)
}

// A getRequest asks any replica for messages. It may be behind.
type getRequest struct {
	Seq       uint64   `json:"seq,omitempty"`
	NextFor   string   `json:"next_by_subj,omitempty"`
	Batch     int      `json:"batch,omitempty"`
	MaxBytes  int      `json:"max_bytes,omitempty"`
	MultiLast []string `json:"multi_last,omitempty"`
	NoHeaders bool     `json:"no_hdr,omitempty"`
}

// get calls each with the messages that answer the request, until it returns false, and
// returns the JetStream sequence up to which they are all, where the replica says so, and
// whether it has more.
func (db *DB) get(ctx context.Context, r getRequest, each func(*nats.Msg) bool) (upTo uint64, more bool, err error) {
	ctx, cancel := db.within(ctx, requestTimeout)
	defer cancel()
	body, err := json.Marshal(r)
	if err != nil {
		return 0, false, err
	}
	nc, err := db.conn()
	if err != nil {
		return 0, false, err
	}
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return 0, false, err
	}
	defer sub.Unsubscribe() //nolint:errcheck // the connection is closed, if it fails
	if err := nc.PublishRequest("$JS.API.DIRECT.GET."+db.name, inbox, body); err != nil {
		return 0, false, err
	}
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return 0, false, fmt.Errorf("reading from JetStream: %w", err)
		}
		switch status := m.Header.Get("Status"); status {
		case "":
			if !each(m) {
				return 0, false, nil
			}
		case "204":
			last := headerNumber(m, "Nats-Last-Sequence")
			if headerNumber(m, "Nats-Num-Pending") > 0 {
				return last, true, nil
			}
			return cmp.Or(headerNumber(m, "Nats-UpTo-Sequence"), last), false, nil
		case "404":
			if r.MultiLast == nil || m.Header.Get("Description") == "No Results" {
				return 0, false, nil
			}
			fallthrough // it could not load one of them
		default:
			return 0, false, fmt.Errorf("reading from JetStream: %s %s", status, m.Header.Get("Description"))
		}
	}
}

func headerNumber(m *nats.Msg, key string) uint64 {
	n, _ := strconv.ParseUint(m.Header.Get(key), 10, 64) // absent: 0
	return n
}

// leaderNext asks the leader for the first message of a subject from a JetStream
// sequence on; nil: there is none.
func (db *DB) leaderNext(ctx context.Context, subject string, seq uint64) (*nats.Msg, error) {
	ctx, cancel := db.within(ctx, requestTimeout)
	defer cancel()
	body, err := json.Marshal(getRequest{Seq: max(seq, 1), NextFor: subject})
	if err != nil {
		return nil, err
	}
	nc, err := db.conn()
	if err != nil {
		return nil, err
	}
	answer, err := nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+db.name, body)
	if err != nil {
		return nil, err
	}
	var got struct {
		Message struct {
			Subject string `json:"subject"`
			Seq     uint64 `json:"seq"`
			Hdrs    []byte `json:"hdrs"`
			Data    []byte `json:"data"`
		} `json:"message"`
		Error *struct {
			Code        int    `json:"code"`
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &got); err != nil {
		return nil, err
	}
	if got.Error != nil {
		if got.Error.Code == 404 {
			return nil, nil
		}
		return nil, errors.New(got.Error.Description)
	}
	h, err := nats.DecodeHeadersMsg(got.Message.Hdrs)
	if err != nil {
		return nil, err
	}
	h.Set("Nats-Subject", got.Message.Subject)
	h.Set("Nats-Sequence", strconv.FormatUint(got.Message.Seq, 10))
	return &nats.Msg{Header: h, Data: got.Message.Data}, nil
}

// parseCommit reads a stored or republished message.
func parseCommit(m *nats.Msg) (c commit, err error) {
	c.state, err = parseState(m.Header.Get(stateHeader))
	c.seq = headerNumber(m, "Nats-Sequence")
	if c.oldest == 0 {
		c.oldest = c.seq
	}
	b, blockErr := parseBlock(m.Data)
	c.data = b.data
	if err = cmp.Or(err, blockErr); err == nil && (c.seq == 0 || b.first != c.firstEvent() || b.count != c.count || b.time != c.time) {
		err = errFormat
	}
	if err != nil {
		err = fmt.Errorf("JetStream message %d on %s %w", c.seq, m.Header.Get("Nats-Subject"), err)
	}
	return c, err
}
