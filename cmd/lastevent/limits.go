package main

import (
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/pflag"
	"golang.org/x/time/rate"

	"lastevent/web"
)

const (
	// usualClients is --max-clients where there are descriptors for as many.
	usualClients = 20_000
	// fewConnections are possible also where --max-clients is small.
	fewConnections = 1000
)

// limitFlags bound what clients can have of the server.
type limitFlags struct {
	limits         web.Limits
	trustedProxies []string
	trusted        web.TrustedProxies
}

func (f *limitFlags) add(flags *pflag.FlagSet) {
	flags.IntVar(&f.limits.MaxClients, "max-clients", 0, "how many clients there can be, subscribers and reads; others are told to come again later. "+
		"0 is 20000, or fewer if ulimit -n leaves no descriptors for as many")
	flags.IntVar(&f.limits.MaxClientsPerAddress, "max-clients-per-address", 0, "how many of them an address, or /64 of IPv6, can have; 0 is no limit")
	flags.IntVar(&f.limits.MaxPublishesPerSecond, "max-publishes-per-second", 0, "how many requests an address, or /64 of IPv6, can make a second that publish or delete; 0 is no limit")
	flags.DurationVar(&f.limits.MaxConnectionAge, "max-connection-age", 0, "age, a tenth more or less, at which a subscription is cut for its client to resume, maybe elsewhere; 0 is no limit")
	flags.StringSliceVar(&f.trustedProxies, "trusted-proxy", nil, "`address` or CIDR of a proxy whose X-Forwarded-For is believed, or unix for those that come by a Unix socket; repeatable")
}

func (f *limitFlags) validate() error {
	for name, value := range map[string]int{
		"max-clients":              f.limits.MaxClients,
		"max-clients-per-address":  f.limits.MaxClientsPerAddress,
		"max-publishes-per-second": f.limits.MaxPublishesPerSecond,
	} {
		if value < 0 {
			return fmt.Errorf("--%s must not be negative, and is %d", name, value)
		}
	}
	if age := f.limits.MaxConnectionAge; age != 0 && age < time.Second {
		return fmt.Errorf("--max-connection-age must be 0 or at least 1s, and is %v", age)
	}
	for _, proxy := range f.trustedProxies {
		if err := f.trusted.Add(proxy); err != nil {
			return fmt.Errorf("--trusted-proxy: %w", err)
		}
	}
	return nil
}

// maxClients is how many clients there can be: those that there are descriptors for,
// beside other connections and files.
func maxClients(wanted, descriptors int) int {
	if wanted == 0 {
		wanted = usualClients
	}
	if descriptors > 0 {
		wanted = min(wanted, descriptors-descriptors/5)
	}
	return wanted
}

// maxConnections is how many connections there can be: as many again as clients, but
// that descriptors are left for files.
func maxConnections(clients, descriptors int) int {
	n := max(2*clients, fewConnections)
	if descriptors > 0 {
		n = min(n, descriptors-descriptors/10)
	}
	return n
}

// config sets the limits, as far as there are descriptors for them.
func (f *limitFlags) config(c *web.Config) {
	c.Limits, c.TrustedProxies = f.limits, f.trusted
	c.Limits.MaxClients = maxClients(f.limits.MaxClients, maxDescriptors())
}

// limitAll has the listeners share the bound. To close those returned ends what waits
// for a place, too.
func limitAll(listeners []net.Listener, c *web.Connections) []net.Listener {
	var limited []net.Listener
	for _, l := range listeners {
		limited = append(limited, c.Limit(l))
	}
	return limited
}

// connections bounds those of h. When there are as many as can be, those that do
// nothing, or have sent no request for 5 s, are closed.
func (f *limitFlags) connections(h *http.Server, log zerolog.Logger) *web.Connections {
	clients := maxClients(f.limits.MaxClients, maxDescriptors())
	if clients < f.limits.MaxClients {
		log.Warn().Int("possible", clients).Msg("--max-clients is more than ulimit -n leaves descriptors for")
	}
	n := maxConnections(clients, maxDescriptors())
	warn := rate.Sometimes{Interval: time.Minute}
	return web.NewConnections(n, func() {
		h.SetKeepAlivesEnabled(false) // which closes them
		h.SetKeepAlivesEnabled(true)
		warn.Do(func() {
			log.Warn().Int("connections", n).Msg("there are as many connections as --max-clients and ulimit -n allow; more have to wait")
		})
	})
}
