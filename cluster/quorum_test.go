// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime"
)

// threeControlPlanes are well where "healthy" succeeds on them.
func threeControlPlanes(t *testing.T) (*runtime.Cluster, []*hosttest.Runner) {
	t.Helper()
	f, err := clusterfile.FromFlags("10.0.0.1-10.0.0.3", "", clusterfile.SSH{})
	require.NoError(t, err)
	c := &runtime.Cluster{File: f}
	var runners []*hosttest.Runner
	for _, m := range f.Machines() {
		r := hosttest.New(m.Address)
		runners = append(runners, r)
		c.Hosts = append(c.Hosts, &runtime.Host{Spec: m, Runner: r, Facts: runtime.Facts{State: &runtime.HostState{}}})
	}
	return c, runners
}

// asksHealth is a distribution of which only Health and Kubectl are asked.
type asksHealth struct{ runtime.Distribution }

func (asksHealth) Kubectl() runtime.Kubectl { return runtime.Kubectl{Argv: []string{"kubectl"}} }
func (asksHealth) Health(_ *runtime.Cluster, h *runtime.Host) []runtime.Probe {
	return []runtime.Probe{{Name: runtime.ProbeDatastore, Ask: func(ctx context.Context) error {
		return h.Runner.Run(ctx, host.Command{Argv: []string{"healthy"}})
	}}}
}

func TestCheckQuorum(t *testing.T) {
	down := hosttest.Answer{Stderr: "no leader", Code: 1}
	lost := &runtime.Host{Spec: clusterfile.Host{Address: "10.0.0.9", Role: clusterfile.ControlPlane}, Lost: errors.New("no route to host")}
	for name, c := range map[string]struct {
		unwell []int
		lost   []*runtime.Host
		goes   int // -1: none
		want   string
	}{
		"all well":                    {goes: 0},
		"one unwell goes":             {unwell: []int{2}, goes: 2},
		"a well one stays":            {unwell: []int{2}, goes: 0, want: "2 of 3 members of the datastore are well: without 10.0.0.1 there would be no majority; not well: 10.0.0.3: "},
		"no majority":                 {unwell: []int{1, 2}, goes: -1, want: "1 of 3 members of the datastore are well, which is no majority"},
		"four, one lost":              {lost: []*runtime.Host{lost}, goes: -1},
		"four, one lost, one goes":    {lost: []*runtime.Host{lost}, goes: 0},
		"four, two lost, no majority": {lost: []*runtime.Host{lost}, unwell: []int{0}, goes: -1, want: "2 of 4"},
	} {
		t.Run(name, func(t *testing.T) {
			cl, runners := threeControlPlanes(t)
			for _, i := range c.unwell {
				runners[i].On("^healthy$", down)
			}
			var h *runtime.Host
			if c.goes >= 0 {
				h = cl.Hosts[c.goes]
			}
			err := checkQuorum(t.Context(), cl, asksHealth{}, h, c.lost...)
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			var quorum *QuorumError
			require.ErrorAs(t, err, &quorum)
			require.ErrorContains(t, err, c.want)
			require.NotEmpty(t, quorum.Hint())
		})
	}
}

func TestFindContact(t *testing.T) {
	c, runners := threeControlPlanes(t)
	d := asksHealth{}
	runners[0].On("readyz", hosttest.Answer{Code: 1})
	h, err := findContact(t.Context(), c, d)
	require.NoError(t, err)
	require.Same(t, c.Hosts[1], h)
	h, err = findContact(t.Context(), c, d, c.Hosts[1])
	require.NoError(t, err)
	require.Same(t, c.Hosts[2], h)
	require.EqualError(t, noContact(c, nil, c.Hosts[1]), `no control plane of the cluster "my-cluster" answers; asked were 10.0.0.1, 10.0.0.3`)

	c.Hosts[2].Facts.State = nil
	h, err = findContact(t.Context(), c, d, c.Hosts[1])
	require.NoError(t, err)
	require.Nil(t, h, "what sealer has not touched is not asked")
}
