package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"
	"github.com/spf13/pflag"
)

const (
	// unixPrefix begins a --listen that is the path of a socket.
	unixPrefix = "unix:"
	// maxSocketPath is what every system has room for.
	maxSocketPath = 103
)

// listenFlags say where the server is reached.
type listenFlags struct {
	listen     string
	socketMode fileMode

	passed bool // systemd has passed the sockets, and they are in the place of listen
}

func (f *listenFlags) add(flags *pflag.FlagSet) {
	f.socketMode = 0o660
	flags.StringVar(&f.listen, "listen", "localhost:8080", "`address` to serve at; unix:PATH is a socket. Sockets that systemd passes take its place")
	flags.Var(&f.socketMode, "socket-mode", "who may connect to the socket of --listen unix:PATH: its permissions, in octal")
}

func (f *listenFlags) validate() error {
	if path, ok := strings.CutPrefix(f.listen, unixPrefix); ok {
		if path == "" || path[0] == '@' || len(path) > maxSocketPath {
			return fmt.Errorf("--listen %s: %q is not the path of a file, of at most %d bytes", f.listen, path, maxSocketPath)
		}
		return nil
	}
	_, port, err := net.SplitHostPort(f.listen)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	return nil
}

// open listens at --listen, or returns the sockets that systemd listens at and has
// passed. Those stay open when the server ends, so that who connects meanwhile waits
// for the next one.
func (f *listenFlags) open() ([]net.Listener, error) {
	var listeners []net.Listener
	for _, file := range activation.Files(true) {
		l, err := net.FileListener(file)
		if err := errors.Join(err, file.Close()); err != nil {
			return nil, fmt.Errorf("%s, which systemd has passed, is no socket to listen at: %w", file.Name(), err)
		}
		listeners = append(listeners, l)
	}
	if f.passed = listeners != nil; f.passed {
		return listeners, nil
	}
	l, err := f.listenAlone()
	if err != nil {
		return nil, fmt.Errorf("--listen %s: %w", f.listen, err)
	}
	return []net.Listener{l}, nil
}

func (f *listenFlags) listenAlone() (net.Listener, error) {
	if path, ok := strings.CutPrefix(f.listen, unixPrefix); ok {
		return listenUnix(path, fs.FileMode(f.socketMode))
	}
	return net.Listen("tcp", f.listen)
}

// at is how clients call what listens at the address.
func (f *listenFlags) at(scheme string, addr net.Addr) string {
	if addr.Network() == "unix" {
		return unixPrefix + addr.String()
	}
	host, port, _ := net.SplitHostPort(addr.String()) // of TCP
	if !f.passed {
		host, _, _ = net.SplitHostPort(f.listen) // validated
	}
	return scheme + "://" + net.JoinHostPort(cmp.Or(host, "localhost"), port)
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		_ = l.Close() // most were closed when the server stopped
	}
}

// isLocal reports whether only this machine reaches what listens at the address.
func isLocal(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return addr.Network() == "unix" || ok && tcp.IP.IsLoopback()
}

// notify tells systemd, where that has started the server, what state it is in.
func notify(log zerolog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn().Err(err).Str("socket", os.Getenv("NOTIFY_SOCKET")).Str("state", state).Msg("systemd cannot be told how the server is")
	}
}

// fileMode is a flag's value: permissions as chmod takes them.
type fileMode fs.FileMode

func (m *fileMode) String() string { return fmt.Sprintf("%04o", uint32(*m)) }
func (m *fileMode) Type() string   { return "mode" }

func (m *fileMode) Set(text string) error {
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || n > 0o777 {
		return fmt.Errorf("%q is not a mode, such as 0660", text)
	}
	*m = fileMode(n)
	return nil
}
