//go:build unix

package main_test

import (
	"net/http"
	"time"

	"lastevent/cmd/lastevent/servetest"
)

// A clusterFault is struck, lasts and is mended when strike returns.
type clusterFault struct {
	name   string
	strike func(*clusterTest)
}

func clusterFaults() []clusterFault {
	return []clusterFault{
		{"the leader killed", func(c *clusterTest) {
			s := c.leader()
			s.Kill()
			c.wait(0, 4)
			s.Start()
		}},
		{"a nats-server killed", func(c *clusterTest) {
			s := c.cluster.Servers[c.one()]
			s.Kill()
			c.wait(0, 4)
			s.Start()
		}},
		{"all nats-servers killed", func(c *clusterTest) {
			for _, s := range c.cluster.Servers {
				s.Kill()
			}
			c.unready("all nats-servers are killed", c.fronts...)
			for _, s := range c.cluster.Servers {
				s.Start()
			}
		}},
		{"the leader paused", func(c *clusterTest) {
			s := c.leader()
			s.Pause()
			c.wait(3, 12)
			s.Continue()
		}},
		{"a nats-server cut off from the others", func(c *clusterTest) {
			c.cluster.Cut(c.one())
			c.wait(5, 15)
			c.cluster.Heal(c.rand.IntN(2) == 0)
		}},
		{"all nats-servers cut off from each other", func(c *clusterTest) {
			for i := range c.cluster.Servers {
				c.cluster.Cut(i)
			}
			c.unready("no nats-server has a majority", c.fronts...)
			c.wait(0, 5)
			c.cluster.Heal(c.rand.IntN(2) == 0)
		}},
		{"a front cut off from a nats-server", func(c *clusterTest) {
			f := c.front()
			f.links[c.one()].Partition()
			c.wait(2, 10)
			f.links.Heal(c.rand.IntN(2) == 0)
		}},
		{"a front cut off from all nats-servers", func(c *clusterTest) {
			f := c.front()
			f.links.Cut()
			c.unready("it is cut off", f)
			for i, other := range c.fronts {
				if other != f && other.ready() != http.StatusOK {
					c.t.Errorf("front %d is not ready while another one is cut off", i)
				}
			}
			c.wait(0, 5)
			f.links.Heal(c.rand.IntN(2) == 0)
		}},
		{"a front killed", func(c *clusterTest) {
			f := c.front()
			f.Kill()
			c.wait(0, 4)
			f.Restart()
		}},
		{"a front restarted", func(c *clusterTest) {
			f := c.front()
			f.Stop()
			f.Restart()
		}},
		{"a front cut off and restarted", func(c *clusterTest) {
			f := c.front()
			f.links.Cut()
			c.wait(0, 4)
			f.Stop()
			f.links.Heal(true)
			f.Restart()
		}},
		{"a front paused", func(c *clusterTest) {
			f := c.front()
			f.Pause()
			c.wait(3, 12)
			f.Continue()
		}},
	}
}

// one is the index of one of three.
func (c *clusterTest) one() int { return c.rand.IntN(3) }

func (c *clusterTest) front() *front { return c.fronts[c.one()] }

func (c *clusterTest) leader() *servetest.NATSServer {
	c.t.Helper()
	i, err := c.cluster.Leader(clusterName)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.cluster.Servers[i]
}

// wait waits so many seconds, but seldom long in the short run.
func (c *clusterTest) wait(from, to int) {
	if !servetest.Long {
		to = min(to, from+3)
	}
	time.Sleep(time.Duration(from)*time.Second + time.Duration(c.rand.Int64N(int64(to-from)*int64(time.Second))))
}

// unready checks that fronts say in time that they cannot append.
func (c *clusterTest) unready(why string, fronts ...*front) {
	c.t.Helper()
	for _, f := range fronts {
		if !f.becomes(http.StatusServiceUnavailable, truthWithin) {
			c.t.Errorf("a front is ready %v after %s", truthWithin, why)
		}
	}
}
