// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime"
)

// threeControlPlanes are asked by kubectl, and well where "healthy" succeeds on them.
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

const drainPods = `{"items":[
  {"metadata":{"name":"web-1","namespace":"shop","labels":{"app":"web"},"ownerReferences":[{"kind":"ReplicaSet","controller":true}]},"status":{"phase":"Running"}},
  {"metadata":{"name":"ds-1","namespace":"shop","ownerReferences":[{"kind":"DaemonSet","controller":true}]},"status":{"phase":"Running"}},
  {"metadata":{"name":"etcd","namespace":"kube-system","annotations":{"kubernetes.io/config.mirror":"x"}},"status":{"phase":"Running"}},
  {"metadata":{"name":"done","namespace":"shop"},"status":{"phase":"Succeeded"}}]}`

const budgets = `{"items":[
  {"metadata":{"name":"other","namespace":"shop"},"spec":{"selector":{"matchLabels":{"app":"db"}}},"status":{"disruptionsAllowed":0}},
  {"metadata":{"name":"free","namespace":"shop"},"spec":{"selector":{"matchLabels":{"app":"web"}}},"status":{"disruptionsAllowed":1}},
  {"metadata":{"name":"web","namespace":"shop"},"spec":{"selector":{"matchExpressions":[{"key":"app","operator":"In","values":["web"]}]}},"status":{"disruptionsAllowed":0}}]}`

func TestDrain(t *testing.T) {
	pods := drainPods
	drain := func(r *hosttest.Runner, c *runtime.Cluster, force bool) error {
		r.On("get pods", hosttest.Answer{Stdout: pods}).On("get poddisruptionbudgets", hosttest.Answer{Stdout: budgets})
		return api{c, runtime.Kubectl{Argv: []string{"kubectl"}}}.drain(t.Context(), "n1", drainOptions{timeout: time.Minute, force: force}, io.Discard)
	}
	c, runners := threeControlPlanes(t)
	require.NoError(t, drain(runners[0], c, false))
	require.Equal(t, []string{"kubectl cordon n1", "kubectl drain n1 --ignore-daemonsets --delete-emptydir-data --timeout 1m0s"}, changes(runners[0]))

	// The pod and its budget are named.
	c, runners = threeControlPlanes(t)
	runners[0].On("^kubectl drain", hosttest.Answer{Stderr: "cannot evict", Code: 1})
	err := drain(runners[0], c, false)
	var stuck *DrainError
	require.ErrorAs(t, err, &stuck)
	require.EqualError(t, err, "the node n1 is not drained after 1m0s: on it stays shop/web-1, which the disruption budget web protects")
	require.Contains(t, stuck.Hint(), "--force")

	// By force they are deleted, and what is left then does not stop anything.
	c, runners = threeControlPlanes(t)
	runners[0].On("^kubectl drain", hosttest.Answer{Code: 1})
	require.NoError(t, drain(runners[0], c, true))
	require.Contains(t, strings.Join(changes(runners[0]), "\n"), "--force --disable-eviction")

	// A pod that nothing makes anew is not lost without being asked for.
	c, runners = threeControlPlanes(t)
	pods = `{"items":[{"metadata":{"name":"alone","namespace":"default"},"status":{"phase":"Running"}}]}`
	require.EqualError(t, drain(runners[0], c, false), "the node n1 cannot be drained: on it stays default/alone, which nothing would make anew")
	require.NotContains(t, strings.Join(changes(runners[0]), "\n"), "kubectl drain")

	// A connection that is lost is no answer.
	c, runners = threeControlPlanes(t)
	runners[0].On("^kubectl drain", hosttest.Answer{Err: errors.New("lost")})
	require.EqualError(t, drain(runners[0], c, true), "lost")
}

// A node that cannot be drained stays, and takes pods again: unless its owner keeps them off it.
func TestDrainOrRelease(t *testing.T) {
	const nodes = `{"items":[{"metadata":{"name":"n1","annotations":{"sealer.io/cordoned-by-delete":"true"}},"spec":{"unschedulable":true}},
		{"metadata":{"name":"n2"},"spec":{"unschedulable":true}}]}`
	for node, released := range map[string][]string{
		"n1": {"kubectl uncordon n1", "kubectl annotate node n1 sealer.io/cordoned-by-delete-"},
		"n2": nil,
	} {
		c, runners := threeControlPlanes(t)
		runners[0].On("get nodes", hosttest.Answer{Stdout: nodes}).On("get pods", hosttest.Answer{Stdout: drainPods}).
			On("get poddisruptionbudgets", hosttest.Answer{Stdout: budgets}).On("^kubectl drain", hosttest.Answer{Code: 1})
		a := api{c, runtime.Kubectl{Argv: []string{"kubectl"}}}
		require.NoError(t, a.sign(t.Context(), node, cordonedByDelete, "true", io.Discard))
		var stuck *DrainError
		require.ErrorAs(t, a.drainOrRelease(t.Context(), node, cordonedByDelete, drainOptions{}, io.Discard), &stuck)
		did := changes(runners[0])
		require.Equal(t, released, append([]string(nil), did[2:]...), "after cordon and drain")
	}
}

func changes(r *hosttest.Runner) []string {
	var lines []string
	for _, c := range r.Calls() {
		if c.Mutates {
			lines = append(lines, c.String())
		}
	}
	return lines
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
	require.EqualError(t, noContact(c, c.Hosts[1]), `no control plane of the cluster "my-cluster" answers; asked were 10.0.0.1, 10.0.0.3`)

	c.Hosts[2].Facts.State = nil
	h, err = findContact(t.Context(), c, d, c.Hosts[1])
	require.NoError(t, err)
	require.Nil(t, h, "what sealer has not touched is not asked")
}
