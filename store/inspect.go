package store

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"
)

// maxDamage is how much damage a report lists.
const maxDamage = 1000

// A Report is what a file holds, and what of it is not whole.
type Report struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`   // of the file, in bytes
	Format uint32 `json:"format"` // 0: it cannot be read
	// Log is as in [Bounds.Log], empty if it cannot be read. That of a backup is the
	// log that it is of: it gets one of its own when it is opened.
	Log string `json:"log"`
	// Backup is when the backup was taken that the file is; zero if it is none.
	Backup    time.Time `json:"backup,omitzero"`
	Pages     uint64    `json:"pages"`     // of 4 KiB
	FreePages uint64    `json:"freePages"` // of these; they are used before the file grows
	// TornMeta: one of the file's two meta pages is not intact, as a power cut can leave
	// it. The next start mends that. If it was no power cut, the last commit is missing.
	TornMeta bool           `json:"tornMeta,omitempty"`
	Streams  []StreamReport `json:"streams"` // by name
	// Damage says in words what is not as it should be, beside corrupt events: at most
	// 1000 things, and MoreDamage is how many more there are.
	Damage     []string `json:"damage"`
	MoreDamage int      `json:"moreDamage,omitempty"`
}

// A StreamReport is what a file holds of one stream.
type StreamReport struct {
	Name   string `json:"name"`
	First  uint64 `json:"first"` // as in Bounds
	Last   uint64 `json:"last"`
	Events uint64 `json:"events"` // retained and whole
	Bytes  uint64 `json:"bytes"`  // their types and data
	Stored uint64 `json:"stored"` // bytes that its blocks take in the file
	Closed bool   `json:"closed"`
	// Corrupt are the events from First to Last that are not whole, or missing.
	Corrupt []Span `json:"corrupt,omitempty"`
}

// A Span is the sequences from First to Last.
type Span struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// Whole reports whether nothing is damaged.
func (r *Report) Whole() bool {
	return len(r.Damage) == 0 && !slices.ContainsFunc(r.Streams, func(s StreamReport) bool { return s.Corrupt != nil })
}

// Inspect reads all of a file that no DB has open, and says what it holds: each event,
// each checksum, whether one goes with the other, and how they are laid out on pages. It
// only reads, once through, in memory for the streams and an event, whatever is damaged.
//
// An error names the file and wraps ErrLocked (after a second), ErrForeign, ErrVersion,
// or ErrDamaged where nothing at all can be read. Any other damage is in the report.
func Inspect(path string) (*Report, error) {
	s, err := openSurvey(path)
	if err != nil {
		return nil, named(path, err)
	}
	defer s.p.f.Close()
	s.run(nil)
	return s.finish(), nil
}

// named is an error that names the file.
func named(path string, err error) error {
	var has *fs.PathError
	if errors.As(err, &has) {
		return err
	}
	return fmt.Errorf("%s %w", path, err)
}

// A survey goes through a file.
type survey struct {
	p      *fileReader
	report Report
	base   uint64
	// metaWhole: what the file says of itself is.
	metaWhole bool
	streams   map[string]*surveyed
	// uncertain: the last sequence of a stream, or the log, may not be the true one.
	uncertain bool
	inStates  bool
	into      *copier // gets what is whole; may be nil
}

// A surveyed stream is what has been found of it.
type surveyed struct {
	StreamReport
	state state
	known bool   // state is stored, and whole
	next  uint64 // sequence that should come next; 0: any
	// What is whole, from its first event to behind its last.
	low, high edge
	// Receipts by their records, and by the entries that find them.
	records, entries tally
}

// A tally tells sets of receipts apart, in whatever order they come.
type tally struct{ count, sum uint64 }

func (t *tally) add(last uint64, hash []byte) {
	t.count++
	t.sum += (bigEndian(hash)^last)*0x9E3779B97F4A7C15 + bigEndian(hash[8:])
}

func newSurvey(path string) *survey {
	return &survey{report: Report{Path: path, Damage: []string{}}, streams: map[string]*surveyed{}}
}

func openSurvey(path string) (*survey, error) {
	var err error
	s := newSurvey(path)
	if s.p, err = openPages(path, s.damage); err != nil {
		return nil, err
	}
	if err := s.meta(); err != nil {
		s.p.f.Close()
		return nil, err
	}
	return s, nil
}

// damage notes what is not as it should be.
func (s *survey) damage(err error) {
	s.uncertain = s.uncertain || s.inStates
	if len(s.report.Damage) == maxDamage {
		s.report.MoreDamage++
		return
	}
	s.report.Damage = append(s.report.Damage, strings.TrimPrefix(err.Error(), ErrDamaged.Error()+": "))
}

func (s *survey) damagef(format string, args ...any) { s.damage(fmt.Errorf(format, args...)) }

// meta reads what is said of the file as a whole.
func (s *survey) meta() error {
	s.report.Size, s.report.TornMeta = s.p.size, s.p.torn
	s.report.Pages, s.report.FreePages = s.p.pages, s.p.freed
	s.inStates = true
	m := metaOf(func(visit func(key, value []byte)) {
		s.p.bucket(string(metaBucket), isStateKey, visit)
	})
	s.inStates = false
	err := m.check()
	if errors.Is(err, ErrVersion) {
		return err
	}
	if s.metaWhole = err == nil; !s.metaWhole {
		s.damage(err)
	}
	s.uncertain = s.uncertain || s.p.torn || s.p.rootDamaged || !s.metaWhole
	s.report.Format, s.report.Log, s.report.Backup, s.base = m.format, m.log, m.backup, m.base
	return nil
}

// run goes through all that the trees hold, and for a copy also through the leaves that
// no tree leads to.
func (s *survey) run(orphans []uint64) {
	s.states()
	s.each(orphans, s.lostState)
	s.events()
	s.each(orphans, s.lostBlock)
	for _, st := range s.streams {
		s.compare(st)
	}
	s.receipts()
	s.each(orphans, func(k, v []byte) { s.receipt(k, v) })
}

func (s *survey) states() {
	s.inStates = true
	s.p.bucket(string(stateBucket), isStateKey, func(k, v []byte) {
		if !s.state(k, v) {
			s.damagef("the state of stream %.300q, which holds its last sequence, is not whole", k)
		}
	})
	s.inStates = false
}

// state takes a stored state, unless it is not whole.
func (s *survey) state(k, v []byte) bool {
	state, err := decodeState(string(k), v)
	if !isStateKey(k) || err != nil || state.first == 0 || state.first > state.last+1 {
		return false
	}
	st := s.stream(string(k))
	st.state, st.known, st.next = state, true, state.first
	return true
}

func (s *survey) stream(name string) *surveyed {
	st := s.streams[name]
	if st == nil {
		st = &surveyed{StreamReport: StreamReport{Name: name}}
		s.streams[name] = st
	}
	return st
}

func (s *survey) events() {
	s.p.bucket(string(eventsBucket), isBlockKey, func(k, v []byte) {
		b, err := parseBlock(k, v)
		if !isBlockKey(k) || err != nil || !b.parses() {
			// Where that is one that should be there, its events will be missing.
			if st := s.streams[nameOf(k, blockTail)]; st == nil || !st.known || bigEndian(k[len(k)-8:]) > st.state.last {
				s.damagef("there is a block of events that is not whole, under the key %.300q", k)
			}
			return
		}
		st := s.stream(nameOf(k, blockTail))
		st.Stored += uint64(len(k) + len(v))
		s.block(st, b)
	})
}

// block takes a whole block of the stream.
func (s *survey) block(st *surveyed, b block) {
	if st.known && b.last < st.state.first {
		return // evicted, and not yet removed
	}
	if !st.known && st.next == 0 {
		st.next = b.first
	}
	from := max(b.first, st.next)
	if from > b.last {
		s.damagef("stream %q: events %d to %d are stored twice", st.Name, b.first, b.last)
		return
	}
	if from > st.next {
		st.Corrupt = append(st.Corrupt, Span{st.next, from - 1})
	}
	low, high, ascending, bytes := b.span(from)
	switch {
	case !ascending:
		s.damagef("stream %q: the times of events %d to %d do not ascend", st.Name, from, b.last)
	case st.high.seq == from && (st.high.total != low.total || st.high.time > low.time),
		st.known && from == st.state.first && (st.state.evicted != low.total || st.state.firstTime != low.time):
		s.damagef("stream %q: the times or totals at event %d do not go together", st.Name, from)
	}
	st.extend(low, high)
	st.Events += b.last - from + 1
	st.Bytes += bytes
	st.next = b.last + 1
	if s.into != nil {
		s.into.add(st.Name, b, from)
	}
}

// extend widens what is whole of the stream. High is that of an event that would follow.
func (st *surveyed) extend(low, high edge) {
	if st.low.seq == 0 || low.seq < st.low.seq {
		st.low = low
	}
	if high.seq > st.high.seq {
		st.high = high
	}
}

// compare compares a stream's state with its events.
func (s *survey) compare(st *surveyed) {
	switch last := st.state.last; {
	case !st.known:
		s.uncertain = true
		s.damagef("stream %q has events and no state, which would hold its last sequence", st.Name)
	case st.high.seq > last+1:
		s.uncertain = true
		s.damagef("stream %q has events up to %d, and its state says that %d is the last", st.Name, st.high.seq-1, last)
	case st.next <= last:
		st.Corrupt = append(st.Corrupt, Span{st.next, last})
	case st.high.seq > 0 && (st.high.total != st.state.total || st.high.time != st.state.lastTime):
		s.damagef("stream %q: the state and event %d do not go together", st.Name, last)
	}
	final := st.final()
	st.First, st.Last, st.Closed = final.first, final.last, final.closed
}

// final is the stream's state by all that is whole.
func (st *surveyed) final() state {
	s := st.state
	if !st.known {
		s = state{first: st.low.seq}
	}
	if s.empty() || !st.known {
		s.firstTime, s.evicted = max(st.low.time, s.firstTime), max(st.low.total, s.evicted)
	}
	if last := st.high.seq - 1; st.high.seq > 0 && last > s.last {
		s.last, s.lastTime, s.total = last, st.high.time, st.high.total
	}
	s.leftover = false
	return s
}

// receipts goes through the idempotency keys, and sees that those that are retained are
// found when their time to be evicted comes.
func (s *survey) receipts() {
	s.p.bucket(string(keysBucket), isRecordKey, func(k, v []byte) {
		if !s.receipt(k, v) {
			s.damagef("the receipt of an idempotency key of stream %.300q is not whole", nameOf(k, recordTail))
		}
	})
	s.p.bucket(string(orderBucket), isOrderKey, func(k, _ []byte) {
		st := s.streams[nameOf(k, orderTail)]
		if !isOrderKey(k) || st == nil {
			s.damagef("an entry that finds an idempotency key is of no stream, under the key %.300q", k)
		} else if last := bigEndian(k[len(k)-orderTail:]); last >= st.First {
			st.entries.add(last, k[len(k)-keyHash:])
		}
	})
	for _, st := range s.streams {
		if st.records != st.entries {
			s.damagef("stream %q has %d receipts of idempotency keys, and %d others are to be found", st.Name, st.records.count, st.entries.count)
		}
	}
}

// receipt takes a stored receipt, unless it is not whole.
func (s *survey) receipt(k, v []byte) bool {
	st := s.streams[nameOf(k, recordTail)]
	r, digest, err := decodeReceipt(k, v)
	if !isRecordKey(k) || err != nil || st == nil || r.Last > st.Last {
		return false
	}
	if r.Count > 0 && r.Last < st.First {
		return true // evicted, and not yet removed
	}
	st.records.add(r.evictedWith(), k[len(k)-keyHash:])
	if s.into != nil {
		s.into.receipt(st.Name, k, digest, r)
	}
	return true
}

// finish completes the report.
func (s *survey) finish() *Report {
	if s.whole() {
		if n := s.p.unaccounted(); n > 0 {
			s.damagef("%d pages are neither in use nor free", n)
		}
		if _, err := checkFile(s.p.f); err != nil {
			s.damage(err)
		}
	}
	s.report.Streams = make([]StreamReport, 0, len(s.streams))
	for _, st := range s.streams {
		s.report.Streams = append(s.report.Streams, st.StreamReport)
	}
	slices.SortFunc(s.report.Streams, func(a, b StreamReport) int { return strings.Compare(a.Name, b.Name) })
	return &s.report
}

// whole reports whether there is no damage but events that are missing.
func (s *survey) whole() bool { return len(s.report.Damage) == 0 }
