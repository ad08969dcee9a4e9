//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/lab"
)

// What this machine's hosts need, which share a kernel with cgroup v1 hierarchies and its memory.
const (
	k3sSettings = `---
apiVersion: sealer.io/v2
kind: K3s
ignoreChecks: [cpu, memory, cgroup]
`
	k0sSettings = `---
apiVersion: k0s.k0sproject.io/v1beta1
kind: ClusterConfig
metadata:
  name: k0s
  annotations: {sealer.io/ignore-pre-flight-checks: "true"}
spec:
  workerProfiles:
  - name: default
    values: {failCgroupV1: false}
`
)

// A cluster of k3s or k0s is, to its user, like one of kubeadm: it is made, looked at, made again without change, and deleted.
func TestDistributions(t *testing.T) {
	for _, d := range []struct {
		name, version, image, settings string
		build                          func(context.Context, string, string) (string, error)
	}{
		{"k3s", lab.K3sVersion, shared.K3sImage(lab.K3sVersion), k3sSettings, shared.BuildK3s},
		{"k0s", lab.K0sVersion, shared.K0sImage(lab.K0sVersion), k0sSettings, shared.BuildK0s},
	} {
		t.Run(d.name, func(t *testing.T) {
			_, err := d.build(t.Context(), d.name, d.version)
			require.NoError(t, err)
			require.NoError(t, shared.TrustHosts(d.name))
			file := filepath.Join(t.TempDir(), "Clusterfile")
			text := "apiVersion: sealer.io/v2\nkind: Cluster\nmetadata: {name: " + d.name + "}\nspec: {env: []}\n" + d.settings
			require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
			before := snapshots(t)
			login := []string{"--pk", shared.Hosts.KeyFile, "--name", d.name}
			t.Cleanup(func() {
				if t.Failed() {
					_, err := shared.Run(context.WithoutCancel(t.Context()), d.name, append([]string{"delete", "--all", "--yes"}, login...)...)
					t.Log("deleting the cluster of a test that failed:", err)
				}
			})

			sealer(t, d.name, shared.RunImageArgs(d.image, file)...)
			var status struct {
				Runtime string
				Hosts   []struct {
					Host, Version string
					Ready         bool
				}
				Unwell, Drift []string
			}
			out, stderr, code := runAny(t, d.name, append([]string{"status", "-o", "json"}, login...)...)
			require.Zero(t, code, "%s\n%s", out, stderr)
			require.NoError(t, json.Unmarshal([]byte(out), &status))
			require.Equal(t, d.name, status.Runtime)
			require.Len(t, status.Hosts, 2)
			for _, h := range status.Hosts {
				require.True(t, h.Ready, h.Host)
				require.NotEmpty(t, h.Version)
			}
			require.Contains(t, sealer(t, d.name, shared.RunImageArgs(d.image, file)...), "nothing to change")
			require.Contains(t, sealer(t, d.name, append([]string{"cert", "check"}, login...)...), "(CA)")

			worker := shared.Hosts.Hosts[1].Address.String()
			sealer(t, d.name, append([]string{"delete", "--yes", "--nodes", worker}, login...)...)
			sealer(t, d.name, append([]string{"join", "--nodes", worker}, login...)...)

			sealer(t, d.name, append([]string{"delete", "--all", "--yes"}, login...)...)
			require.Equal(t, before, snapshots(t), "the hosts are as they were")
		})
	}
}
