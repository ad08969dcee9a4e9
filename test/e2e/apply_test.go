//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/lab"
)

// A Clusterfile is changed and applied, again and again: what differs is shown and done, and nothing else. The cluster is of k3s'
// double, which is cheap and real where it counts: processes under systemd, on hosts, over SSH.
func TestApply(t *testing.T) {
	const root = "apply"
	release := lab.Release{Program: "k3s", Version: lab.K3sVersion}
	image := shared.ReleaseImage(release)
	_, err := shared.BuildRelease(t.Context(), root, release)
	require.NoError(t, err)
	require.NoError(t, shared.TrustHosts(root))
	first, second := shared.Hosts.Hosts[0], shared.Hosts.Hosts[1]
	before := snapshots(t)
	file := filepath.Join(t.TempDir(), "Clusterfile")
	write := func(marks, worker, more string) {
		t.Helper()
		text := fmt.Sprintf("apiVersion: sealer.io/v2\nkind: Cluster\nmetadata: {name: apply}\nspec:\n  image: %s\n  ssh: {pk: %s}\n  hosts:\n"+
			"  - {ips: [%s], roles: [master]%s}\n", image, shared.Hosts.KeyFile, first.Address, marks)
		if worker != "" {
			text += fmt.Sprintf("  - {ips: [%s], roles: [node]%s}\n", second.Address, strings.TrimPrefix(worker, "node"))
		}
		require.NoError(t, os.WriteFile(file, []byte(text+more), 0o600))
	}
	apply := func(more ...string) string {
		t.Helper()
		return sealer(t, root, append([]string{"apply", "-f", file}, more...)...)
	}
	journal := func() int {
		t.Helper()
		var events []any
		require.NoError(t, json.Unmarshal([]byte(sealer(t, root, "logs", "--name", "apply", "-o", "json")), &events))
		return len(events)
	}
	nothing := func() {
		t.Helper()
		steps := journal()
		require.Regexp(t, `\(v1\.\d+\.\d+\): nothing to do$`, apply("--yes"))
		require.Equal(t, steps, journal(), "no step was begun")
	}
	kubectl := func(args ...string) string {
		t.Helper()
		return onHost(t, first, append([]string{"env", "KUBECONFIG=/etc/rancher/k3s/k3s.yaml", "/usr/local/bin/k3s", "kubectl"}, args...)...)
	}
	remove := []string{"delete", "--all", "--yes", "--name", "apply", "--pk", shared.Hosts.KeyFile}
	t.Cleanup(func() {
		if t.Failed() {
			_, err := shared.Run(context.WithoutCancel(t.Context()), root, remove...)
			t.Log("deleting the cluster of a test that failed:", err)
		}
	})

	// There is none yet: it is made.
	write("", "node", k3sSettings)
	plan := apply("--dry-run")
	require.Contains(t, plan, "3 to add\n 1. making the cluster\n    + cluster apply\n")
	unchanged(t, before, snapshots(t))
	require.True(t, strings.HasPrefix(apply("--yes"), plan))
	nothing()

	// Labels, taints, a file and a setting; one by hand is put right.
	site := "---\napiVersion: sealer.io/v2\nkind: Config\nmetadata: {name: site}\nspec: {path: etc/site.conf, data: \"place = %s\\n\"}\n"
	setting := strings.Replace(k3sSettings, "ignoreChecks", "server: {kubelet-arg: [max-pods=%d]}\nignoreChecks", 1)
	write("", "node, labels: {zone: a}, taints: [\"gpu=yes:NoSchedule\"]", fmt.Sprintf(setting, 90)+fmt.Sprintf(site, "here"))
	plan = apply("--dry-run")
	for _, text := range []string{
		"+ Config site (etc/site.conf)", "+ setting K3s.server.kubelet-arg: [\"max-pods=90\"]",
		"+ " + second.Address.String() + ": label zone: a", "+ " + second.Address.String() + ": taint gpu=yes:NoSchedule",
	} {
		require.Contains(t, plan, text)
	}
	var asJSON struct {
		Cluster string
		Stages  []struct{ Changes []struct{ Op, About string } }
	}
	require.NoError(t, json.Unmarshal([]byte(apply("--dry-run", "-o", "json")), &asJSON))
	require.Equal(t, "apply", asJSON.Cluster)
	require.Len(t, asJSON.Stages, 2)
	require.True(t, strings.HasPrefix(apply("--yes"), plan))
	require.Contains(t, onHost(t, first, "cat", "/etc/rancher/k3s/config.yaml"), "max-pods=90")
	require.Contains(t, onHost(t, first, "sh", "-c", "cat $(find /var/lib/sealer/node -path '*/etc/site.conf' | head -n 1)"), "place = here")
	nodes := kubectl("get", "nodes", "-o", "json")
	require.Contains(t, nodes, `"zone": "a"`)
	require.Contains(t, nodes, `"gpu"`)
	nothing()
	kubectl("label", "node", strings.TrimSpace(onHost(t, second, "cat", "/proc/sys/kernel/hostname")), "zone=z", "--overwrite")
	out, _, code := runAny(t, root, "status", "-f", file)
	require.Equal(t, 1, code)
	require.Contains(t, out, second.Address.String()+": the label zone is z, not a")
	require.Contains(t, apply("--yes"), "~ "+second.Address.String()+": label zone: z → a")
	nothing()

	// What cannot be changed is refused.
	write("", "node, labels: {zone: a}, taints: [\"gpu=yes:NoSchedule\"]", strings.Replace(fmt.Sprintf(setting, 90), "server: {", "server: {cluster-cidr: 10.99.0.0/16, ", 1)+fmt.Sprintf(site, "here"))
	_, stderr, code := runAny(t, root, "apply", "-f", file, "--yes")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "K3s.server.cluster-cidr: k3s wants it the same on all servers")

	// The worker goes, and other things change; killed in the middle, and the same command goes on.
	write(", labels: {zone: b}", "", fmt.Sprintf(setting, 100)+fmt.Sprintf(site, "there"))
	plan = apply("--dry-run")
	require.Contains(t, plan, "- "+second.Address.String()+": worker (its pods leave, and it is put back as it was before)")
	cmd := shared.Command(t.Context(), root, "apply", "-f", file, "--yes")
	require.NoError(t, cmd.Start())
	begun := poll(t, func() error {
		if !strings.Contains(sealer(t, root, "logs", "--name", "apply"), "draining "+strings.TrimSpace(onHost(t, second, "cat", "/proc/sys/kernel/hostname"))) {
			return fmt.Errorf("the worker is not being drained yet")
		}
		return nil
	})
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait(), "it was killed")
	require.NoError(t, begun)
	require.Contains(t, apply("--yes"), "- "+second.Address.String()+": worker")
	nothing()
	require.Contains(t, onHost(t, first, "cat", "/etc/rancher/k3s/config.yaml"), "max-pods=100")
	require.NotContains(t, kubectl("get", "nodes", "-o", "json"), `"zone": "a"`)

	// It comes back, and at last all goes.
	write(", labels: {zone: b}", "node", fmt.Sprintf(setting, 100))
	plan = apply("--yes")
	require.Contains(t, plan, "+ "+second.Address.String()+": worker")
	require.Contains(t, plan, "- Config site (etc/site.conf)")
	nothing()
	out, stderr, code = runAny(t, root, "status", "-f", file)
	require.Zero(t, code, "%s\n%s", out, stderr)

	// Applications come, change, are put right and go.
	site1, site2 := buildSite(t, root, "v1", "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: old}\n"), buildSite(t, root, "v2", "")
	named := func(image, more string) {
		write(", labels: {zone: b}", "node", fmt.Sprintf(setting, 100)+
			"---\napiVersion: sealer.io/v2\nkind: Application\nmetadata: {name: pages}\nspec: {image: "+image+more+"}\n")
	}
	maps := func() string {
		return kubectl("get", "configmaps", "--namespace", "default", "-o", "jsonpath={range .items[*]}{.metadata.name}={.data.colour} {end}")
	}
	named(site1, "")
	plan = apply("--dry-run")
	require.Contains(t, plan, ": 1 to add\n 1. applications\n    + application pages: "+site1)
	require.True(t, strings.HasPrefix(apply("--yes"), plan))
	require.Contains(t, maps(), "site=red")
	nothing()
	named(site1, ", env: [COLOUR=blue]")
	kubectl("delete", "configmap", "old", "--namespace", "default")
	out, _, code = runAny(t, root, "status", "-f", file)
	require.Equal(t, 1, code)
	require.Contains(t, out, "the application pages: env COLOUR; configmap default/old is gone")
	require.Contains(t, apply("--yes"), "~ application pages (env COLOUR; configmap default/old is gone)")
	require.Contains(t, maps(), "old=")
	require.Contains(t, maps(), "site=blue")
	named(site2, ", env: [COLOUR=blue]")
	require.Contains(t, apply("--yes"), "~ application pages: "+site1+" → "+site2)
	require.NotContains(t, maps(), "old=", "what only the image before had")
	nothing()
	require.Contains(t, maps(), "second=")
	named(site2, ", env: [COLOUR=blue], launchApps: [site]")
	require.Contains(t, apply("--yes"), "~ application pages (launchApps; what second has made goes)")
	require.NotContains(t, maps(), "second=")
	require.Contains(t, maps(), "site=blue")
	nothing()
	write(", labels: {zone: b}", "node", fmt.Sprintf(setting, 100))
	require.Contains(t, apply("--yes"), "- application pages: "+site2)
	require.NotContains(t, maps(), "site=")
	nothing()
	sealer(t, root, remove...)
	unchanged(t, before, snapshots(t))
}

// buildSite builds an application image of ConfigMaps: nothing has to run for it.
func buildSite(t *testing.T, root, version, more string) string {
	t.Helper()
	image := shared.Registry + "/team/site:" + version
	sealer(t, root, "build", "-t", image, writeContext(t, map[string]string{
		"Kubefile":       "FROM scratch\nAPP site local://site.yaml.tmpl\nAPPENV site COLOUR=red\nAPP second local://second.yaml\nLAUNCH [\"site\", \"second\"]\n",
		"second.yaml":    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: second}\n",
		"site.yaml.tmpl": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: site}\ndata: {colour: {{ .COLOUR }}}\n" + more,
	}))
	return image
}
