// SPDX-License-Identifier: Apache-2.0

package k0s_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/runtime/k0s"
)

func TestFixed(t *testing.T) {
	d := k0s.New()
	for _, path := range []string{"spec.network.podCIDR", "spec.storage.type", "spec.api.port", "spec.network.nodeLocalLoadBalancing.enabled", "spec.konnectivity.agentPort"} {
		require.NotEmpty(t, d.Fixed(append([]string{"ClusterConfig"}, strings.Split(path, ".")...)...), path)
	}
	for _, path := range []string{"spec.api.extraArgs.v", "spec.workerProfiles", "spec.telemetry.enabled", "metadata.annotations.a", "spec.network.kuberouter.mtu"} {
		require.Empty(t, d.Fixed(append([]string{"ClusterConfig"}, strings.Split(path, ".")...)...), path)
	}
}
