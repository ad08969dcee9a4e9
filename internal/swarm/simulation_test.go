// SPDX-License-Identifier: Apache-2.0

package swarm_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/swarm"
)

// network is a simulation with a clock of its own: no bytes, no connections. The link of a host, and that of the operator, is
// shared evenly by what goes over it in one direction. What is said to the operator, and by it, is late by half of the latency.
type network struct {
	link    float64       // of hosts, bytes a second, each way
	uplink  float64       // of the operator
	latency time.Duration // to the operator and back
	step    time.Duration // of the clock
}

// gigabit is hosts and an operator on links of 1 Gbit/s, 20 ms from one another.
func gigabit() network {
	return network{link: 125e6, uplink: 125e6, latency: 20 * time.Millisecond, step: 4 * time.Millisecond}
}

type outcome struct {
	wall     time.Duration
	operator int64 // bytes
	busiest  int64 // bytes given by the host that gave the most
}

// transfer is an assignment under way; its bytes are there when left is 0, and the operator knows it at a later time.
type transfer struct {
	swarm.Assignment
	begins, known time.Duration
	left          float64
	active        bool
}

// fault says how a transfer fails; "" where it does not.
type fault func(a swarm.Assignment) swarm.Reason

func none(swarm.Assignment) swarm.Reason { return "" }

// spread simulates n hosts that need all blobs, until all have them.
func (n network) spread(t testing.TB, hosts int, sizes []int64, fail fault) outcome {
	t.Helper()
	s := swarm.New(sizes)
	needs := make([]bool, len(sizes))
	nothing := make([]int64, len(sizes))
	have := make([][]int64, hosts+1)
	for b := range sizes {
		needs[b], nothing[b] = true, swarm.Nothing
	}
	for h := 1; h <= hosts; h++ {
		have[h] = make([]int64, len(sizes))
		s.Join(swarm.HostID(h), swarm.Joining{Have: nothing, Needs: needs, Serves: true})
	}
	var out outcome
	gave := make([]int64, hosts+1)
	var flying []*transfer
	now := time.Duration(0)
	begin := func(a swarm.Assignment) {
		size := int64(0)
		for _, p := range a.Parts {
			size += p.Length
		}
		if a.From == swarm.Operator {
			out.operator += size
		}
		gave[a.From] += size
		flying = append(flying, &transfer{Assignment: a, begins: now + n.latency/2, left: float64(size)})
	}
	apply := func(a swarm.Assignment) {
		why := fail(a)
		if have[a.To][a.Parts[0].Blob] < a.Parts[0].Offset {
			why = swarm.Dropped // the one before it has failed
		}
		if why != "" {
			s.Failed(swarm.Failure{ID: a.ID, Reason: why})
			return
		}
		for _, p := range a.Parts {
			require.Equal(t, have[a.To][p.Blob], p.Offset, "parts come in order")
			if a.From != swarm.Operator {
				require.GreaterOrEqual(t, have[a.From][p.Blob], p.End(), "a source has what it is to give")
			}
			have[a.To][p.Blob] = p.End()
			s.Have(a.To, p.Blob, p.End())
		}
		s.Done(a.ID)
	}
	busy := map[[2]int]bool{}
	up, down := make([]float64, hosts+1), make([]float64, hosts+1)
	for {
		for _, a := range s.Next(true) {
			begin(a)
		}
		if len(flying) == 0 {
			break
		}
		now += n.step
		clear(up)
		clear(down)
		clear(busy)
		for _, f := range flying { // in the order of their IDs
			// A host takes the parts of a blob, and what the operator sends, one after the other.
			lane := [2]int{int(f.To), f.Parts[0].Blob}
			if f.From == swarm.Operator {
				lane[1] = -1
			}
			f.active = f.begins <= now && f.known == 0 && !busy[lane] && !busy[[2]int{int(f.To), f.Parts[0].Blob}]
			if f.known == 0 {
				busy[lane] = true
				busy[[2]int{int(f.To), f.Parts[0].Blob}] = true
			}
			if f.active {
				up[f.From]++
				down[f.To]++
			}
		}
		ended := flying
		flying = nil
		for _, f := range ended {
			if f.active {
				from := n.link
				if f.From == swarm.Operator {
					from = n.uplink
				}
				f.left -= min(from/up[f.From], n.link/down[f.To]) * n.step.Seconds()
				if f.left <= 0 {
					out.wall = now
					f.left, f.known = 0, now+n.latency/2
				}
			}
			if f.known > 0 && f.known <= now {
				apply(f.Assignment)
				continue
			}
			flying = append(flying, f)
		}
	}
	for h := 1; h <= hosts; h++ {
		require.Zero(t, s.Left(swarm.HostID(h)), "host %d", h)
		require.Equal(t, sizes, have[h])
		out.busiest = max(out.busiest, gave[h])
	}
	return out
}

// image is what a ClusterImage of about 1 GB is made of: two layers of the rootfs, layers of images, many small documents.
func image() []int64 {
	sizes := []int64{3000, 4000, 310 << 20, 45 << 20}
	for i := range int64(40) {
		sizes = append(sizes, (i*i*7919)%(35<<20)+1000, 1500+i, 700+i)
	}
	return sizes
}

func total(sizes []int64) int64 {
	sum := int64(0)
	for _, n := range sizes {
		sum += n
	}
	return sum
}

// The time grows with the logarithm of the number of hosts, and the operator sends the image once.
func TestSwarm_TimeHardlyGrowsWithHosts(t *testing.T) {
	for name, c := range map[string]struct {
		sizes []int64
		grows float64
	}{"image": {image(), 1.3}, "one blob": {[]int64{1 << 30}, 1.5}} {
		sizes := c.sizes
		before := time.Duration(0)
		for _, hosts := range []int{2, 4, 8, 16, 64} {
			out := gigabit().spread(t, hosts, sizes, none)
			t.Logf("%s, %3d hosts: %v, operator × %.3f, busiest host × %.2f", name, hosts, out.wall,
				float64(out.operator)/float64(total(sizes)), float64(out.busiest)/float64(total(sizes)))
			require.Equal(t, total(sizes), out.operator)
			if before > 0 {
				require.Less(t, float64(out.wall), c.grows*float64(before), "%s on %d hosts", name, hosts)
			}
			before = out.wall
		}
	}
}

func BenchmarkSwarm(b *testing.B) {
	for _, uplink := range []float64{12.5e6, 125e6} {
		for _, hosts := range []int{1, 2, 4, 8, 16, 100, 1000} {
			b.Run(fmt.Sprintf("uplink=%.0fMbit,hosts=%d", uplink*8/1e6, hosts), func(b *testing.B) {
				n := gigabit()
				n.uplink = uplink
				if hosts > 100 {
					n.step = 10 * time.Millisecond // as an operator decides who has other things to do
				}
				sizes := image()
				var out outcome
				for b.Loop() {
					out = n.spread(b, hosts, sizes, none)
				}
				b.ReportMetric(out.wall.Seconds(), "simulated-s")
				b.ReportMetric(float64(out.operator)/float64(total(sizes)), "operator/image")
				b.ReportMetric(float64(out.busiest)/float64(total(sizes)), "busiest/image")
			})
		}
	}
}
