//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
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

// The suite with k3s and k0s: their doubles, or the programs that K3S_BIN and K0S_BIN name.
func TestDistributions(t *testing.T) {
	for _, d := range []struct {
		bed
		program, version, next, settings string
	}{
		{
			bed: bed{
				kubectl: []string{"/usr/local/bin/k3s", "kubectl", "--cache-dir", "/tmp/kubectl"},
				peers:   etcdPeers("/var/lib/rancher/k3s/server/tls/etcd", "server-ca.crt", "client.crt", "client.key"),
			},
			program: "k3s", version: lab.K3sVersion, next: lab.K3sNextVersion, settings: k3sSettings,
		},
		{ // from 1.36 on k0s reads another form of drop-ins for containerd
			bed: bed{
				kubectl: []string{"/usr/local/bin/k0s", "kubectl", "--kubeconfig", "/var/lib/k0s/pki/admin.conf", "--cache-dir", "/tmp/kubectl"},
				peers:   etcdPeers("/var/lib/k0s/pki", "etcd/ca.crt", "apiserver-etcd-client.crt", "apiserver-etcd-client.key"),
			},
			program: "k0s", version: lab.K0sPreviousVersion, next: lab.K0sVersion, settings: k0sSettings,
		},
	} {
		t.Run(d.program, func(t *testing.T) {
			b := &d.bed
			b.name, b.site, b.lab = d.program, "suite", fiveHosts(t)
			b.h = b.lab.Hosts.Hosts
			require.NoError(t, b.lab.TrustHosts(b.site))
			b.clusterfile(t, d.settings)
			releases, err := lab.Releases(t.Context(), d.program, d.version, d.next)
			require.NoError(t, err)
			for _, r := range releases {
				_, err := b.lab.BuildRelease(t.Context(), b.site, r)
				require.NoError(t, err)
				b.versions = append(b.versions, release{b.lab.ReleaseImage(r), r.Version, kubeletVersion(r.Version)})
			}
			if releases[0].Images == "" { // else what runs is no double
				b.journal = "/var/log/" + d.program + "-double.jsonl"
			}
			b.live(t)
		})
	}
}

// kubeletVersion is what a node of k0s says of itself, which leaves out the last number, or of k3s.
func kubeletVersion(version string) string {
	before, _, k0s := strings.Cut(version, "+k0s")
	if k0s {
		return before + "+k0s"
	}
	return version
}

// etcdPeers asks etcd itself for the names of its members, with the API server's certificate.
func etcdPeers(dir, ca, cert, key string) string {
	return fmt.Sprintf("cd %s && curl -s --max-time 20 --cacert %s --cert %s --key %s -d {} https://127.0.0.1:2379/v3/cluster/member/list"+
		` | grep -o '"name":"[^"]*"' | cut -d '"' -f 4`, dir, ca, cert, key)
}
