// SPDX-License-Identifier: Apache-2.0

package k3s_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/runtime/k3s"
)

func TestFixed(t *testing.T) {
	d := k3s.New()
	for _, key := range []string{"cluster-cidr", "token", "node-label", "datastore-endpoint", "https-listen-port", "disable-helm-controller", "docker"} {
		require.NotEmpty(t, d.Fixed("K3s", "server", key), key)
	}
	for _, key := range []string{"kubelet-arg", "kube-apiserver-arg", "disable", "tls-san"} {
		require.Empty(t, d.Fixed("K3s", "server", key), key)
	}
	require.Empty(t, d.Fixed("K3s", "ignoreChecks"))
}
