// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/host/hosttest"
)

// An image that launches nothing: its nodes are waited for where a network plugin can make them Ready, and it is said where none can.
func TestRun_WithoutCMD(t *testing.T) {
	const notice = "the nodes are not Ready: the cluster has no network plugin, and its image launches none. " +
		"Install one with kubectl, or build an image FROM this one with CNI and LAUNCH\n"
	make := func() *bed {
		b := newBedOf(t, oneHost, clusterimage.Extension{}, nil)
		b.opts.ReadyTimeout = 300 * time.Millisecond
		b.hosts["10.0.0.1"].On("cni/net.d", hosttest.Answer{Code: 1})
		b.hosts["10.0.0.1"].On("^kubectl get daemonsets", hosttest.Answer{Stdout: `{"items":[{"metadata":{"name":"kube-proxy"}}]}`})
		return b
	}
	b := make()
	require.NoError(t, b.run(t))
	require.Equal(t, "cluster \"prod\" runs on 1 host\n", b.out.String(), "they are Ready")

	b = make()
	b.hosts["10.0.0.1"].ready = false
	require.NoError(t, b.run(t))
	require.Equal(t, "cluster \"prod\" runs on 1 host\n"+notice, b.out.String())
	require.NoError(t, b.run(t))
	require.Equal(t, "cluster \"prod\" is complete on 1 host: nothing to change\n"+notice, b.out.String())

	for what, answer := range map[string]hosttest.Answer{
		"cni/net.d":               {},
		"^kubectl get daemonsets": {Stdout: `{"items":[{"metadata":{"name":"kube-router"}}]}`},
	} {
		b = make()
		b.hosts["10.0.0.1"].ready = false
		b.hosts["10.0.0.1"].On(what, answer)
		var unready *cluster.NotReadyError
		require.ErrorAs(t, b.run(t), &unready, what)
	}
}
