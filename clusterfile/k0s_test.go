// SPDX-License-Identifier: Apache-2.0

package clusterfile_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterfile"
)

const k0sWithSecrets = `apiVersion: sealer.io/v2
kind: Cluster
spec: {image: example.com/a:v1, hosts: [{ips: [10.0.0.1], roles: [master]}]}
---
apiVersion: k0s.k0sproject.io/v1beta1
kind: ClusterConfig
spec:
  storage: {type: kine, kine: {dataSource: "env:DB"}}
  network:
    controlPlaneLoadBalancing:
      enabled: true
      type: Keepalived
      keepalived: {vrrpInstances: [{virtualIPs: [10.0.0.9/24], authPass: hunter2}]}
`

// The secrets of a ClusterConfig are treated like all others, at whatever depth they stand.
func TestK0s_Secrets(t *testing.T) {
	f, err := clusterfile.Parse("Clusterfile", []byte(k0sWithSecrets))
	require.NoError(t, err)
	require.Equal(t, []clusterfile.Place{{File: "Clusterfile", Line: 13, Field: "authPass"}}, f.ClearText)
	require.NoError(t, f.ResolveSecrets(func(r clusterfile.Reference) (clusterfile.Secret, error) {
		require.Equal(t, "env:DB", r.String())
		return "mysql://root:hunter3@tcp(db)/k", nil
	}))
	spec := f.K0s["spec"].(map[string]any)
	require.Equal(t, "mysql://root:hunter3@tcp(db)/k", spec["storage"].(map[string]any)["kine"].(map[string]any)["dataSource"])
	text, err := f.Marshal()
	require.NoError(t, err)
	require.NotContains(t, string(text), "hunter")
	require.Contains(t, string(text), "authPass: prompt")
	public, err := f.Public().Marshal()
	require.NoError(t, err)
	require.Equal(t, string(text), string(public))

	f, err = clusterfile.Parse("Clusterfile", []byte(k0sWithSecrets))
	require.NoError(t, err)
	text, err = f.Marshal()
	require.NoError(t, err)
	require.Contains(t, string(text), "dataSource: env:DB", "a reference says nothing")
}
