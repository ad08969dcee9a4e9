// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/cluster/kube"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime"
)

// threeControlPlanes are asked by kubectl.
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
		return kube.API{Cluster: c, Kubectl: runtime.Kubectl{Argv: []string{"kubectl"}}}.Drain(t.Context(), "n1", kube.DrainOptions{Timeout: time.Minute, Force: force}, io.Discard)
	}
	c, runners := threeControlPlanes(t)
	require.NoError(t, drain(runners[0], c, false))
	require.Equal(t, []string{"kubectl cordon n1", "kubectl drain n1 --ignore-daemonsets --delete-emptydir-data --timeout 1m0s"}, changes(runners[0]))

	// The pod and its budget are named.
	c, runners = threeControlPlanes(t)
	runners[0].On("^kubectl drain", hosttest.Answer{Stderr: "cannot evict", Code: 1})
	err := drain(runners[0], c, false)
	var stuck *kube.DrainError
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
		a := kube.API{Cluster: c, Kubectl: runtime.Kubectl{Argv: []string{"kubectl"}}}
		require.NoError(t, a.Sign(t.Context(), node, kube.CordonedBy+"delete", "true", io.Discard))
		var stuck *kube.DrainError
		require.ErrorAs(t, a.DrainOrRelease(t.Context(), node, kube.CordonedBy+"delete", kube.DrainOptions{}, io.Discard), &stuck)
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
