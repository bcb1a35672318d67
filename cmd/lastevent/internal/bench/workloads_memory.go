//go:build linux

package bench

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

func idle(ctx context.Context, b *bench) error {
	each := b.entry.metric("RSS a connection", "KiB", atMost(6, ""))
	all := b.entry.metric(fmt.Sprintf("accepted of %d connections", b.idle+b.more), "", atLeast(float64(b.idle+b.more), ""))
	return b.inTurns(ctx, []target{lastevent, classic}, func(t target) error {
		s, err := b.start(ctx, t)
		if err != nil {
			return err
		}
		defer s.stop()
		before := s.memory("VmRSS")
		prefix := b.newPrefix()
		follow := clientsConfig{Prefix: prefix, Streams: 1, Clients: b.idle, Expect: 1}
		first, err := b.connect(ctx, s, follow)
		if err != nil {
			return err
		}
		defer first.stop()
		rss, err := settled(ctx, func() (float64, error) { return s.memory("VmRSS"), nil })
		if err != nil {
			return err
		}
		follow.Clients = b.more
		more, err := b.connect(ctx, s, follow)
		if err != nil {
			return err
		}
		defer more.stop()
		// All must be there still to get an event.
		l := load{prefix: prefix, streams: 1, size: eventSize, publishers: 1, events: 1}
		if _, err := l.run(ctx, s); err != nil {
			return err
		}
		for _, c := range []*player{first, more} {
			if _, err := c.result(); err != nil {
				return err
			}
		}
		each.add(t, (rss-before)/float64(b.idle))
		all.add(t, float64(b.idle+b.more))
		return nil
	})
}

// stalledEvents are more than the kernel's buffers hold, and no more than a channel
// of the classic server does.
const (
	stalledEvents = 60
	stalledSize   = 64 << 10
)

func stalled(ctx context.Context, b *bench) error {
	if _, err := exec.LookPath("ss"); err != nil {
		b.entry.note("not measured: ss is missing; it is in the package iproute2")
		return nil
	}
	if b.remote != nil {
		b.entry.note("not measured on a remote server")
		return nil
	}
	kernel := b.entry.metric("kernel memory a client", "KiB", atMost(32, ""))
	rss := b.entry.metric("RSS", "MiB")
	return b.inTurns(ctx, []target{lastevent, classic}, func(t target) error {
		s, err := b.start(ctx, t)
		if err != nil {
			return err
		}
		defer s.stop()
		prefix := b.newPrefix()
		c, err := b.connect(ctx, s, clientsConfig{Prefix: prefix, Streams: 1, Clients: b.stalled, Stalled: true})
		if err != nil {
			return err
		}
		defer c.stop()
		l := load{prefix: prefix, streams: 1, size: stalledSize, publishers: 1, events: stalledEvents}
		if _, err := l.run(ctx, s); err != nil {
			return err
		}
		bytes, err := settled(ctx, func() (float64, error) {
			sum, sockets, err := SocketMemory(ctx, s.addr)
			if err == nil && sockets != b.stalled {
				err = fmt.Errorf("ss shows %d connections of %d", sockets, b.stalled)
			}
			return sum, err
		})
		if err != nil {
			return err
		}
		kernel.add(t, bytes/1024/float64(b.stalled))
		rss.add(t, s.memory("VmRSS")/1024)
		return nil
	})
}

// Of what ss tells about a socket's memory: received, to be sent, reserved, options
// and backlog, in bytes. The others are limits, or part of these.
var skmem = regexp.MustCompile(`skmem:\(r(\d+),rb\d+,t\d+,tb\d+,f(\d+),w(\d+),o(\d+),bl(\d+),`)

// SocketMemory is the kernel's memory for the established connections of the server
// at the address, in bytes, and how many these are. It needs the program ss.
func SocketMemory(ctx context.Context, addr string) (bytes float64, sockets int, err error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, 0, err
	}
	out, err := exec.CommandContext(ctx, "ss", "-tmnH", "state", "established", "sport", "=", ":"+port).Output()
	if err != nil {
		return 0, 0, fmt.Errorf("ss: %w", err)
	}
	found := skmem.FindAllSubmatch(out, -1)
	for _, socket := range found {
		for _, field := range socket[1:] {
			n, _ := strconv.ParseFloat(string(field), 64) // digits
			bytes += n
		}
	}
	return bytes, len(found), nil
}

func startup(ctx context.Context, b *bench) error {
	if b.remote != nil {
		b.entry.note("not measured on a remote server")
		return nil
	}
	answer := b.entry.metric("until the first answer", "ms", atMost(100, ""))
	anonymous := b.entry.metric("anonymous memory before clients come", "MiB", atMost(64, ""))
	b.step("appending %d MiB", b.file>>20)
	file := b.newFile()
	if _, err := b.appends(ctx, appendsConfig{DB: file, Producers: 16, Batch: 1000, Size: eventSize, FileBytes: b.file}); err != nil {
		return err
	}
	return b.inTurns(ctx, []target{lastevent}, func(t target) error {
		began := time.Now()
		s, err := b.serve(ctx, file, "--retain-events", "0")
		if err != nil {
			return err
		}
		s.file = "" // to be kept
		defer s.stop()
		started := time.Since(began)
		anonymous.add(t, s.memory("RssAnon")/1024)
		began = time.Now()
		if err := firstAnswer(ctx, s, "/sse/bench?from=-1&limit=1"); err != nil {
			return err
		}
		answer.add(t, float64((started+time.Since(began)).Microseconds())/1e3)
		return nil
	})
}

// firstAnswer waits for the first bytes of a response.
func firstAnswer(ctx context.Context, s *server, path string) error {
	p, err := newPublisher(ctx, s)
	if err != nil {
		return err
	}
	defer p.close()
	if _, err := fmt.Fprintf(p.conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, s.host); err != nil {
		return err
	}
	_, err = p.in.ReadByte()
	return err
}
