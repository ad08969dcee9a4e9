//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/hosts"
	"github.com/sealerio/sealer/test/lab"
)

// One real cluster through its life: it grows from one control plane and one worker to three and two, loses its first control plane, which
// comes back under the same address, is given another worker on the same host, and shrinks to one control plane and one worker.
func TestNodes(t *testing.T) {
	name := os.Getenv("SEALER_LAB")
	if name == "" {
		name = "lab"
	}
	l, err := lab.Open(t.Context(), lab.Options{Hosts: 5, Name: name + "-nodes", Out: os.Stderr})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close(context.WithoutCancel(t.Context()))) })
	const site = "site"
	_, err = l.BuildBase(t.Context(), site)
	require.NoError(t, err)
	_, err = l.BuildShop(t.Context(), site)
	require.NoError(t, err)
	file, err := l.WriteClusterfile("grow")
	require.NoError(t, err)
	require.NoError(t, l.TrustHosts(site))
	g := &growing{lab: l, site: site, h: l.Hosts.Hosts, before: map[string]string{}}
	for _, h := range g.h {
		g.before[h.Name] = g.snapshot(t, h)
	}
	first, second, third, one, two := g.h[0], g.h[1], g.h[2], g.h[3], g.h[4]
	g.sealer(t, "run", l.ShopImage(), "-f", file, "--pk", l.Hosts.KeyFile, "--masters", first.Address.String(), "--nodes", one.Address.String())
	require.Equal(t, []string{first.Name, one.Name}, g.ready(t, first))

	t.Run("it grows", func(t *testing.T) {
		g.sealer(t, "join", "--name", "grow", "--pk", l.Hosts.KeyFile,
			"--masters", second.Address.String()+","+third.Address.String(), "--nodes", two.Address.String())
		require.Len(t, g.ready(t, first), 5)
		require.Contains(t, g.sealer(t, "join", "--name", "grow", "--pk", l.Hosts.KeyFile, "--nodes", two.Address.String()), "nothing to change")
	})
	t.Run("what is pushed is on all control planes", func(t *testing.T) { g.pushes(t, first, third) })
	t.Run("a pod and its budget are named", func(t *testing.T) { g.budget(t, first, two) })
	t.Run("the first control plane is destroyed", func(t *testing.T) {
		// Pods of a node that is gone start elsewhere after minutes: what is looked at runs on a worker.
		g.kubectl(t, second, "patch", "deployment", "hello", "--patch", `{"spec":{"template":{"spec":{"nodeName":"`+one.Name+`"}}}}`)
		g.kubectl(t, second, "rollout", "status", "deployment/hello", "--timeout", "120s")
		asked := g.askFrom(t, one, 40)
		require.NoError(t, first.Kill(t.Context()))
		answers, failed := asked()
		t.Logf("a worker asked the API server %d times while its first control plane was killed, %d without success", answers, failed)
		require.LessOrEqual(t, failed, 2, "a connection that was open may be lost")
		g.pulls(t, one)
		g.pulls(t, second)
		_, err := l.GetShopOn(t.Context(), one, time.Minute)
		require.NoError(t, err)
		require.NoError(t, lab.Poll(t.Context(), 3*time.Minute, func(context.Context) error {
			if n := len(g.readyNow(t, second)); n != 4 {
				return fmt.Errorf("%d nodes are Ready", n)
			}
			return nil
		}))

		_, err = l.Run(t.Context(), g.site, "delete", "--name", "grow", "--pk", l.Hosts.KeyFile, "--masters", first.Address.String(), "--yes")
		require.ErrorContains(t, err, "--force")
		g.sealer(t, "delete", "--name", "grow", "--pk", l.Hosts.KeyFile, "--masters", first.Address.String(), "--yes", "--force")
		require.Equal(t, []string{second.Name, third.Name, one.Name, two.Name}, g.ready(t, second))
		require.Equal(t, []string{second.Name, third.Name}, g.members(t, second))
	})
	t.Run("it comes back", func(t *testing.T) {
		require.NoError(t, first.Start(t.Context()))
		g.sealer(t, "delete", "--name", "grow", "--pk", l.Hosts.KeyFile, "--masters", first.Address.String(), "--yes")
		require.Equal(t, g.before[first.Name], g.snapshot(t, first), "a host that is taken out is as found")
		g.sealer(t, "join", "--name", "grow", "--pk", l.Hosts.KeyFile, "--masters", first.Address.String())
		require.Len(t, g.ready(t, first), 5)
		require.Equal(t, []string{first.Name, second.Name, third.Name}, g.members(t, first))
		g.has(t, first, "team/pushed:v1")
	})
	t.Run("a worker is replaced on the same host", func(t *testing.T) {
		g.sealer(t, "delete", "--name", "grow", "--pk", l.Hosts.KeyFile, "--nodes", two.Address.String(), "--yes")
		require.Equal(t, g.before[two.Name], g.snapshot(t, two))
		g.sealer(t, "join", "--name", "grow", "--pk", l.Hosts.KeyFile, "--nodes", two.Address.String())
		require.Len(t, g.ready(t, first), 5)
	})
	t.Run("it shrinks", func(t *testing.T) {
		g.sealer(t, "delete", "--name", "grow", "--pk", l.Hosts.KeyFile, "--yes",
			"--masters", second.Address.String()+","+third.Address.String(), "--nodes", two.Address.String())
		require.Equal(t, []string{first.Name, one.Name}, g.ready(t, first))
		require.Equal(t, []string{first.Name}, g.members(t, first))
		for _, h := range []hosts.Host{second, third, two} {
			require.Equal(t, g.before[h.Name], g.snapshot(t, h), h.Name)
		}
		_, err := l.Run(t.Context(), g.site, "delete", "--name", "grow", "--pk", l.Hosts.KeyFile, "--masters", first.Address.String(), "--yes")
		require.ErrorContains(t, err, "no control plane left")
		g.sealer(t, "delete", "--all", "--name", "grow", "--pk", l.Hosts.KeyFile, "--yes")
		for _, h := range []hosts.Host{first, one} {
			require.Equal(t, g.before[h.Name], g.snapshot(t, h), h.Name)
		}
	})
}

// growing is the cluster of TestNodes.
type growing struct {
	lab    *lab.Lab
	site   string
	h      []hosts.Host
	before map[string]string // snapshots, by name
}

func (g *growing) sealer(t *testing.T, args ...string) string {
	t.Helper()
	began := time.Now()
	out, err := g.lab.Run(t.Context(), g.site, args...)
	require.NoError(t, err)
	t.Logf("sealer %s took %s", args[0], time.Since(began).Round(100*time.Millisecond))
	return out
}

func (g *growing) snapshot(t *testing.T, h hosts.Host) string {
	t.Helper()
	return g.exec(t, h, "sh", "-c", snapshot)
}

func (g *growing) exec(t *testing.T, h hosts.Host, argv ...string) string {
	t.Helper()
	out, err := h.Exec(t.Context(), argv...)
	require.NoError(t, err, string(out))
	return strings.TrimSpace(string(out))
}

func (g *growing) kubectl(t *testing.T, h hosts.Host, args ...string) string {
	t.Helper()
	return g.exec(t, h, append([]string{"kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf"}, args...)...)
}

const readyNodes = `{range .items[*]}{.metadata.name}={range .status.conditions[?(@.type=="Ready")]}{.status}{end}{"\n"}{end}`

func (g *growing) readyNow(t *testing.T, h hosts.Host) []string {
	t.Helper()
	var names []string
	for line := range strings.Lines(g.kubectl(t, h, "get", "nodes", "-o", "jsonpath="+readyNodes)) {
		if name, ok := strings.CutSuffix(strings.TrimSpace(line), "=True"); ok {
			names = append(names, name)
		}
	}
	return names
}

// ready are the nodes, all of which must be Ready.
func (g *growing) ready(t *testing.T, h hosts.Host) []string {
	t.Helper()
	names := g.readyNow(t, h)
	require.Len(t, names, len(strings.Fields(g.kubectl(t, h, "get", "nodes", "-o", "name"))))
	return names
}

// members are the names of etcd's members, sorted.
func (g *growing) members(t *testing.T, h hosts.Host) []string {
	t.Helper()
	const pki = "/etc/kubernetes/pki/etcd/"
	var members []struct{ Name string }
	require.NoError(t, json.Unmarshal([]byte(g.exec(t, h, "sealer-cluster-node", "etcd", "members",
		"--cacert", pki+"ca.crt", "--cert", pki+"healthcheck-client.crt", "--key", pki+"healthcheck-client.key")), &members))
	var names []string
	for _, h := range g.h {
		for _, m := range members {
			if m.Name == h.Name {
				names = append(names, m.Name)
			}
		}
	}
	require.Len(t, names, len(members))
	return names
}

// pulls removes a packed image from the host and pulls it again.
func (g *growing) pulls(t *testing.T, h hosts.Host) {
	t.Helper()
	const image = "docker.io/sealer-test/multi:v1"
	_, _ = h.Exec(t.Context(), "crictl", "rmi", image) // it may not be there yet
	began := time.Now()
	g.exec(t, h, "crictl", "pull", image)
	t.Logf("%s pulled after %s", h.Name, time.Since(began).Round(10*time.Millisecond))
}

// askFrom has a worker ask the API server again and again, as its kubelet does, until it has done so n times.
func (g *growing) askFrom(t *testing.T, h hosts.Host, n int) func() (answers, failed int) {
	t.Helper()
	const script = `for i in $(seq "$1"); do
	if kubectl --cache-dir /tmp/kubectl-cache --kubeconfig /etc/kubernetes/kubelet.conf get node "$2" -o name --request-timeout 10s >/dev/null 2>&1; then echo yes; else echo no; fi
done`
	type result struct {
		out []byte
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := h.Exec(t.Context(), "sh", "-c", script, "sh", fmt.Sprint(n), h.Name)
		done <- result{out, err}
	}()
	return func() (int, int) {
		r := <-done
		require.NoError(t, r.err, string(r.out))
		return n, strings.Count(string(r.out), "no")
	}
}

// pushes pushes an image to one control plane with skopeo, and looks for it on another one.
func (g *growing) pushes(t *testing.T, to, other hosts.Host) {
	t.Helper()
	var access struct{ Username, Password string }
	require.NoError(t, json.Unmarshal([]byte(g.exec(t, to, "cat", "/var/lib/sealer/node/registry/credentials.json")), &access))
	certs := filepath.Join(g.lab.Dir, "certs")
	require.NoError(t, os.MkdirAll(certs, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(certs, "ca.crt"), []byte(g.exec(t, to, "cat", "/var/lib/sealer/node/registry/ca.crt")+"\n"), 0o600))
	auth := filepath.Join(g.lab.Dir, "auth.json")
	login := exec.CommandContext(t.Context(), "skopeo", "login", "--authfile", auth, "--cert-dir", certs, "--username", access.Username, "--password-stdin", to.Address.String()+":5000")
	login.Stdin = strings.NewReader(access.Password)
	out, err := login.CombinedOutput()
	require.NoError(t, err, string(out))
	out, err = exec.CommandContext(t.Context(), "skopeo", "copy", "--src-tls-verify=false", "--authfile", auth, "--dest-cert-dir", certs,
		"docker://"+g.lab.Registry+"/docker.io/sealer-test/hello:v1", "docker://"+to.Address.String()+":5000/team/pushed:v1").CombinedOutput()
	require.NoError(t, err, string(out))
	g.has(t, other, "team/pushed:v1")
	for _, h := range g.h {
		g.exec(t, h, "crictl", "pull", "sea.hub:5000/team/pushed:v1")
	}
}

// has: the registry's folder of a control plane has the tag.
func (g *growing) has(t *testing.T, h hosts.Host, image string) {
	t.Helper()
	repo, tag, _ := strings.Cut(image, ":")
	link := "/var/lib/sealer/node/registry/docker/registry/v2/repositories/" + repo + "/_manifests/tags/" + tag + "/current/link"
	require.NoError(t, lab.Poll(t.Context(), time.Minute, func(ctx context.Context) error {
		out, err := h.Exec(ctx, "cat", link)
		if err != nil {
			return fmt.Errorf("%s: %w: %s", h.Name, err, out)
		}
		return nil
	}))
}

const budgetManifest = `apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: stay}
spec: {minAvailable: 1, selector: {matchLabels: {app: stay}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: stay}
spec:
  replicas: 1
  selector: {matchLabels: {app: stay}}
  template:
    metadata: {labels: {app: stay}}
    spec: {nodeName: %s, containers: [{name: c, image: "docker.io/sealer-test/hello:v1"}]}
`

// budget tries to take out a worker with a pod that may not leave.
func (g *growing) budget(t *testing.T, control, worker hosts.Host) {
	t.Helper()
	var out strings.Builder
	require.NoError(t, control.Pipe(t.Context(), strings.NewReader(fmt.Sprintf(budgetManifest, worker.Name)), &out, &out,
		"kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "apply", "-f", "-"), out.String())
	g.kubectl(t, control, "rollout", "status", "deployment/stay", "--timeout", "120s")
	_, err := g.lab.Run(t.Context(), g.site, "delete", "--name", "grow", "--pk", g.lab.Hosts.KeyFile,
		"--nodes", worker.Address.String(), "--yes", "--timeout", "5s")
	require.ErrorContains(t, err, "which the disruption budget stay protects")
	require.ErrorContains(t, err, "default/stay-")
	g.kubectl(t, control, "delete", "deployment/stay", "pdb/stay")
	g.kubectl(t, control, "uncordon", worker.Name)
}
