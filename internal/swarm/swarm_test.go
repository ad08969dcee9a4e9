// SPDX-License-Identifier: Apache-2.0

package swarm_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/swarm"
)

// Whatever goes wrong between hosts, all of them get everything, and the operator sends little more.
func TestSwarm_Faults(t *testing.T) {
	const hosts = 8
	cases := map[string]struct {
		fail fault
		most float64 // times the image out of the operator
	}{
		"connections break": {func(a swarm.Assignment) swarm.Reason {
			if a.From != swarm.Operator && a.ID%11 == 0 {
				return swarm.Cut
			}
			return ""
		}, 1.05},
		"the first host is behind a firewall": {func(a swarm.Assignment) swarm.Reason {
			if a.From == 1 {
				return swarm.Unreachable
			}
			return ""
		}, 2.1},
		"one reaches nobody, and nobody reaches it": {func(a swarm.Assignment) swarm.Reason {
			if a.From != swarm.Operator && (a.To == 5 || a.From == 5) {
				return swarm.Unreachable
			}
			return ""
		}, 2.1},
		"one gives wrong bytes": {func(a swarm.Assignment) swarm.Reason {
			if a.From == 3 {
				return swarm.Wrong
			}
			return ""
		}, 1.01},
		"one is slow for half of them": {func(a swarm.Assignment) swarm.Reason {
			if a.From == 2 && a.To%2 == 0 {
				return swarm.Slow
			}
			return ""
		}, 1.01},
		"nobody reaches anybody": {func(a swarm.Assignment) swarm.Reason {
			if a.From != swarm.Operator {
				return swarm.Unreachable
			}
			return ""
		}, hosts + 0.1},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			out := gigabit().spread(t, hosts, image(), c.fail)
			require.LessOrEqual(t, float64(out.operator), c.most*float64(total(image())))
		})
	}
}

func joining(n int, have int64, needs bool) swarm.Joining {
	j := swarm.Joining{Serves: true}
	for range n {
		j.Have, j.Needs = append(j.Have, have), append(j.Needs, needs)
	}
	return j
}

// What hosts have already is not sent.
func TestSwarm_HelpersGiveEverything(t *testing.T) {
	s := swarm.New([]int64{swarm.PartSize + 5, 100})
	helper := joining(2, 100, false)
	helper.Have[0] = swarm.PartSize + 5
	s.Join(7, helper)
	s.Join(8, joining(2, swarm.Nothing, true))
	var parts []swarm.Part
	for list := s.Next(true); len(list) > 0; list = s.Next(true) {
		for _, a := range list {
			require.Equal(t, swarm.HostID(7), a.From)
			require.Equal(t, swarm.HostID(8), a.To)
			parts = append(parts, a.Parts...)
			for _, p := range a.Parts {
				s.Have(8, p.Blob, p.End())
			}
			s.Done(a.ID)
		}
	}
	require.ElementsMatch(t, []swarm.Part{{0, 0, swarm.PartSize}, {0, swarm.PartSize, 5}, {1, 0, 100}}, parts)
	require.Zero(t, s.Left(8))
}

// A host that had some of a blob gets the rest of that part; where the bytes were wrong, all of it, from another.
func TestSwarm_GoesOnAndBeginsAnew(t *testing.T) {
	s := swarm.New([]int64{swarm.PartSize * 2})
	whole := joining(1, swarm.PartSize*2, false)
	s.Join(1, whole)
	s.Join(2, whole)
	j := joining(1, swarm.Nothing, true)
	j.Begun = []int64{1000}
	s.Join(3, j)
	list := s.Next(false)
	require.NotEmpty(t, list)
	require.Equal(t, []swarm.Part{{0, 1000, swarm.PartSize - 1000}}, list[0].Parts)
	bad := list[0].From
	require.Equal(t, bad, s.Failed(swarm.Failure{ID: list[0].ID, Reason: swarm.Wrong, At: map[int]int64{0: 0}}))
	for _, a := range list[1:] {
		require.Equal(t, swarm.Operator, s.Failed(swarm.Failure{ID: a.ID, Reason: swarm.Dropped, At: map[int]int64{0: 0}}))
	}
	list = s.Next(false)
	require.NotEmpty(t, list)
	for _, a := range list {
		require.NotEqual(t, bad, a.From)
	}
	require.Equal(t, []swarm.Part{{0, 0, swarm.PartSize}}, list[0].Parts)
}

// A host that comes back is another: what others had against it is forgotten.
func TestSwarm_ComesBack(t *testing.T) {
	s := swarm.New([]int64{10})
	s.Join(1, joining(1, 10, false))
	s.Join(2, joining(1, swarm.Nothing, true))
	list := s.Next(true)
	require.Len(t, list, 1)
	require.Equal(t, swarm.HostID(1), list[0].From)
	s.Leave(1)
	s.Failed(swarm.Failure{ID: list[0].ID, Reason: swarm.Unreachable})
	s.Join(1, joining(1, 10, false))
	list = s.Next(true)
	require.Len(t, list, 1)
	require.Equal(t, swarm.HostID(1), list[0].From)
	s.Failed(swarm.Failure{ID: list[0].ID, Reason: swarm.Unreachable})
	require.True(t, s.Alone(2))
	list = s.Next(true)
	require.Len(t, list, 1)
	require.Equal(t, swarm.Operator, list[0].From)
}
