//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/hosts"
	"github.com/sealerio/sealer/test/lab"
)

const upgradeRoot, upgradeName = "upgrade", "upgraded"

// A real cluster of one Kubernetes minor version becomes one of the next, goes back by a patch release, and is made anew as it was before all
// that: under a client that asks all the time.
func TestUpgrade(t *testing.T) {
	up := shared
	before, err := up.Previous(t.Context())
	require.NoError(t, err)
	patch, err := up.Patch(t.Context())
	require.NoError(t, err)
	for _, l := range []*lab.Lab{before, patch, up} {
		_, err := l.BuildBase(t.Context(), upgradeRoot)
		require.NoError(t, err)
		buildSteadyShop(t, l)
	}
	file, err := up.WriteClusterfile(upgradeName)
	require.NoError(t, err)
	require.NoError(t, up.TrustHosts(upgradeRoot))
	_, err = up.Run(t.Context(), upgradeRoot, before.RunArgs(file)...)
	require.NoError(t, err)
	require.NoError(t, up.WaitForNodes(t.Context(), 2, 2*time.Minute))
	_, err = up.GetShop(t.Context(), 2*time.Minute)
	require.NoError(t, err)
	require.Equal(t, []string{lab.PreviousVersion, lab.PreviousVersion}, kubeletVersions(t, up))
	_, err = up.Kubectl(t.Context(), "create", "configmap", "from-before", "--from-literal", "a=b")
	require.NoError(t, err)

	t.Cleanup(func() {
		if t.Failed() {
			explain(t, up)
		}
	})
	t.Run("a jump over a minor version is refused", func(t *testing.T) { testMinorJump(t, up, file) })
	c := startClient(t, up.Hosts.Hosts...)
	// The pods go on answering for a while after they were told to go, and their budget leaves one of the two at any
	// moment: so none may be lost.
	whole := t
	noneLost := func(t *testing.T) {
		asked, lost := c.stop()
		t.Logf("%d requests, %d lost", asked, len(lost))
		require.Empty(t, lost)
		require.Greater(t, asked, 100)
		c = startClient(whole, up.Hosts.Hosts...)
	}
	for _, s := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"an upgrade that is killed after each of its steps continues", func(t *testing.T) {
			testKilledUpgrade(t, up, file)
			noneLost(t)
		}},
		{"everything is of the new version", func(t *testing.T) { requireRelease(t, up, up) }},
		{"one snapshot was made", func(t *testing.T) { testSnapshotOfUpgrade(t, up) }},
		{"a second upgrade has nothing to do", func(t *testing.T) {
			out, err := up.Run(t.Context(), upgradeRoot, upgradeArgs(up, file, up.ShopImage())...)
			require.NoError(t, err)
			require.Contains(t, out, "nothing to do")
		}},
		{"there is a way back to a patch release", func(t *testing.T) {
			testPatchBack(t, up, patch, file)
			noneLost(t)
		}},
		{"there is none over a minor version", func(t *testing.T) {
			for _, verb := range []string{"upgrade", "rollback"} {
				args := upgradeArgs(up, file, before.ShopImage())
				args[0] = verb
				_, err := up.Run(t.Context(), upgradeRoot, args...)
				require.ErrorContains(t, err, "newer than "+lab.PreviousVersion)
				require.ErrorContains(t, err, "sealer etcd restore")
				require.ErrorContains(t, err, "nothing was changed")
			}
			c.stop()
		}},
		{"etcd is saved and restored", func(t *testing.T) { testEtcd(t, up) }},
		{"what was saved before the upgrade is restored into a cluster made anew", func(t *testing.T) { testMadeAnew(t, up, before, file) }},
		{"the cluster can be deleted", func(t *testing.T) {
			_, err := up.Run(t.Context(), upgradeRoot, upgradedArgs(up, "delete", "--all", "--yes")...)
			require.NoError(t, err)
		}},
	} {
		if !t.Run(s.name, s.run) {
			t.FailNow() // the next one would begin with something else
		}
	}
}

// explain says how the lab's cluster is.
func explain(t *testing.T, l *lab.Lab) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
	defer cancel()
	for _, args := range []string{
		"get nodes -o wide", "get pods -A -o wide", "describe pods -n kube-system -l k8s-app=kube-dns", "get endpointslices -A",
		"logs -n kube-system -l k8s-app=kube-dns --prefix --tail 30", "logs -n kube-system -l k8s-app=kube-proxy --prefix --tail 30", "get events -A --sort-by lastTimestamp",
	} {
		out, err := l.Kubectl(ctx, strings.Fields(args)...)
		t.Log("kubectl "+args, "\n"+out, err)
	}
}

// upgradedArgs are those of a command on the cluster.
func upgradedArgs(l *lab.Lab, args ...string) []string {
	return append(args, "--name", upgradeName, "--pk", l.Hosts.KeyFile)
}

// buildSteadyShop builds the lab's workload so that a rolling drain need not lose a request: a pod that has to go answers
// until nobody sends it anything any more, and a budget keeps one of two.
func buildSteadyShop(t *testing.T, l *lab.Lab) {
	t.Helper()
	dir := filepath.Join(l.Dir, "steady-"+filepath.Base(l.Components))
	require.NoError(t, l.WriteShop(dir))
	manifest := filepath.Join(dir, "manifests", "hello.yaml")
	text, err := os.ReadFile(manifest)
	require.NoError(t, err)
	steady := strings.Replace(string(text), "          readinessProbe:\n", "          lifecycle: {preStop: {sleep: {seconds: 10}}}\n          readinessProbe:\n", 1)
	steady = strings.Replace(steady, "terminationGracePeriodSeconds: 5", "terminationGracePeriodSeconds: 30", 1)
	require.Contains(t, steady, "preStop")
	steady += "---\napiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: hello}\nspec:\n  minAvailable: 1\n  selector: {matchLabels: {app: hello}}\n"
	require.NoError(t, os.Remove(manifest)) // it may be a link to the components' own
	require.NoError(t, os.WriteFile(manifest, []byte(steady), 0o600))
	_, err = l.Run(t.Context(), upgradeRoot, "build", "-t", l.ShopImage(), dir)
	require.NoError(t, err)
}

func upgradeArgs(l *lab.Lab, file, image string, more ...string) []string {
	run := l.RunArgs(file)
	return append(append([]string{"upgrade", image, "--yes"}, run[2:]...), more...)
}

func testMinorJump(t *testing.T, l *lab.Lab, file string) {
	dir := filepath.Join(l.Dir, "jump")
	require.NoError(t, l.WriteBase(dir))
	list, err := os.ReadFile(filepath.Join(dir, "imageList"))
	require.NoError(t, err)
	const far = "v1.37.0"
	for line := range strings.Lines(string(list)) {
		if image := strings.TrimSpace(line); strings.HasSuffix(image, ":"+lab.KubernetesVersion) {
			from := l.Registry + "/" + image
			_, err := l.Run(t.Context(), upgradeRoot, "copy", from, strings.ReplaceAll(from, lab.KubernetesVersion, far), "--insecure-registry", l.Registry)
			require.NoError(t, err)
		}
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "imageList"), bytes.ReplaceAll(list, []byte(lab.KubernetesVersion), []byte(far)), 0o600))
	image := l.Registry + "/team/jump:v1"
	_, err = l.Run(t.Context(), upgradeRoot, "build", "-t", image, dir)
	require.NoError(t, err)
	_, err = l.Run(t.Context(), upgradeRoot, upgradeArgs(l, file, image)...)
	require.ErrorContains(t, err, "2 minor versions on")
	require.ErrorContains(t, err, "v1.36")
	require.ErrorContains(t, err, "nothing was changed")
}

// testKilledUpgrade kills the upgrade in the middle of kubeadm's work, then after each of its steps: of the control plane, and of workers.
// Between the two it pauses.
func testKilledUpgrade(t *testing.T, l *lab.Lab, file string) {
	args := append(upgradeArgs(l, file, l.ShopImage(), "--batch", "1"), "--progress", "none")
	began := time.Now()
	w, at := watched{l, upgradeRoot, upgradeName}, eachKind(l.Hosts.Hosts[1:]...)
	w.killInKubeadm(t, l.Hosts.Hosts[0], lab.KubernetesVersion, args...)
	kills := w.killedAtSteps(t, at, append(args, "--pause-after", "1")...)
	require.Equal(t, []string{lab.KubernetesVersion, lab.PreviousVersion}, kubeletVersions(t, l))
	kills += w.killedAtSteps(t, at, args...)
	require.Greater(t, kills, 15)
	t.Logf("upgraded in %s, killed %d times", time.Since(began).Round(time.Second), kills+1)
}

// killInKubeadm kills sealer when kubeadm has written the new manifest of the API server, which is to be started anew then.
func (w watched) killInKubeadm(t *testing.T, h hosts.Host, version string, args ...string) {
	t.Helper()
	killed := false
	stderr, err := w.watch(t, func(events []event, running *os.Process) {
		if running == nil || killed || !slices.ContainsFunc(events, func(e event) bool { return strings.HasPrefix(e.Step, "upgrading the control plane") }) {
			return
		}
		if _, err := h.Exec(t.Context(), "grep", "-q", "/kube-apiserver:"+version+"$", "/etc/kubernetes/manifests/kube-apiserver.yaml"); err == nil {
			killed = true
			require.NoError(t, running.Signal(syscall.SIGKILL))
		}
	}, args...)
	require.True(t, killed, "%v: %s", err, stderr)
}

// testPatchBack goes back to the patch release before.
func testPatchBack(t *testing.T, l, patch *lab.Lab, file string) {
	began := time.Now()
	args := upgradeArgs(l, file, patch.ShopImage())
	_, err := l.Run(t.Context(), upgradeRoot, args...)
	require.ErrorContains(t, err, "sealer rollback "+patch.ShopImage())
	require.ErrorContains(t, err, "nothing was changed")
	args[0] = "rollback"
	out, err := l.Run(t.Context(), upgradeRoot, args...)
	require.NoError(t, err)
	t.Logf("rolled back in %s", time.Since(began).Round(time.Second))
	require.Contains(t, out, "runs "+lab.PatchVersion+" on ")
	requireRelease(t, l, patch)
}

// kubeletVersions are those of the cluster's nodes, in the order of their names.
func kubeletVersions(t *testing.T, l *lab.Lab) []string {
	t.Helper()
	out, err := l.Kubectl(t.Context(), "get", "nodes", "-o", "jsonpath={.items[*].status.nodeInfo.kubeletVersion}")
	require.NoError(t, err)
	return strings.Fields(out)
}

// requireRelease requires of the lab's cluster that everything in it is of the release of another one.
func requireRelease(t *testing.T, l, release *lab.Lab) {
	t.Helper()
	for _, v := range kubeletVersions(t, l) {
		require.Equal(t, release.Version(), v)
	}
	out, err := l.Kubectl(t.Context(), "get", "--raw", "/version")
	require.NoError(t, err)
	require.Contains(t, out, `"gitVersion": "`+release.Version()+`"`)
	packed, err := os.ReadFile(filepath.Join(release.Components, "images.txt"))
	require.NoError(t, err)
	nodes, err := l.Kubectl(t.Context(), "get", "nodes", "-o", "name")
	require.NoError(t, err)
	count := len(strings.Fields(nodes))
	// The addons roll out by themselves.
	require.NoError(t, lab.Poll(t.Context(), 2*time.Minute, func(ctx context.Context) error {
		if ready, err := l.ReadyNodes(ctx); err != nil || len(ready) != count {
			return errors.Join(fmt.Errorf("%d of %d nodes are Ready", len(ready), count), err)
		}
		out, err := l.Kubectl(ctx, "get", "pods", "-n", "kube-system", "-o", `jsonpath={range .items[*]}{.metadata.name} {.spec.containers[0].image} {.status.phase}{"\n"}{end}`)
		if err != nil {
			return err
		}
		seen := 0
		for line := range strings.Lines(out) {
			words := strings.Fields(line)
			if len(words) != 3 || words[2] != "Running" {
				return fmt.Errorf("a pod does not run: %q", line)
			}
			if strings.HasPrefix(words[1], "registry.k8s.io/") {
				seen++
				if !strings.Contains(string(packed), words[1]+"\n") {
					return fmt.Errorf("a pod is of another version: %q", line)
				}
			}
		}
		if seen < 4+2+count { // the control plane, two CoreDNS, a kube-proxy on each host
			return fmt.Errorf("%d pods of Kubernetes", seen)
		}
		return nil
	}))
	out, err = l.Kubectl(t.Context(), "get", "nodes", "-o", "jsonpath={.items[*].spec.unschedulable}{.items[*].metadata.annotations.sealer\\.io/cordoned-by-upgrade}")
	require.NoError(t, err)
	require.Empty(t, out, "a node is still kept free of pods")
	programs, err := os.Stat(filepath.Join(release.Components, "bin", "containerd"))
	require.NoError(t, err)
	for name := range strings.FieldsSeq(nodes) {
		i := slices.IndexFunc(l.Hosts.Hosts, func(h hosts.Host) bool { return "node/"+h.Name == name })
		installed, err := l.Hosts.Hosts[i].Exec(t.Context(), "stat", "-c", "%s", "/usr/local/bin/containerd")
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(programs.Size()), strings.TrimSpace(string(installed)), "containerd of %s", name)
	}
}

func testSnapshotOfUpgrade(t *testing.T, l *lab.Lab) {
	control := l.Hosts.Hosts[0]
	mode, err := control.Exec(t.Context(), "sh", "-c", "stat -c %a /var/lib/sealer/snapshots/*")
	require.NoError(t, err)
	require.Equal(t, "600", strings.TrimSpace(string(mode)), "one snapshot was made, for all the runs")
	pinned, err := control.Exec(t.Context(), "cat", "/etc/containerd/config.toml")
	require.NoError(t, err)
	require.Contains(t, string(pinned), "registry.k8s.io/pause:3.10.2")
}

// testMadeAnew goes the way back over a minor version: a new cluster of the older image gets the data from before the upgrade.
func testMadeAnew(t *testing.T, l, before *lab.Lab, file string) {
	began := time.Now()
	control := l.Hosts.Hosts[0]
	there, err := control.Exec(t.Context(), "sh", "-c", "ls /var/lib/sealer/snapshots/before-"+lab.KubernetesVersion+"-*.db")
	require.NoError(t, err)
	saved := filepath.Join(l.Dir, "before.db")
	for _, args := range [][]string{
		upgradedArgs(l, "cp", control.Address.String()+":"+strings.TrimSpace(string(there)), saved),
		upgradedArgs(l, "delete", "--all", "--yes"),
		before.RunArgs(file),
		upgradedArgs(l, "etcd", "restore", saved, "--yes"),
	} {
		_, err := l.Run(t.Context(), upgradeRoot, args...)
		require.NoError(t, err)
		t.Logf("sealer %s: after %s", args[0], time.Since(began).Round(time.Second))
	}
	requireAnew(t, l, before, l.Hosts.Hosts[1])
}

// requireAnew requires of a cluster made anew that it has the data of the one before, and that all of it works: hosts join, too.
func requireAnew(t *testing.T, l, release *lab.Lab, worker hosts.Host) {
	t.Helper()
	_, err := l.Kubectl(t.Context(), "get", "configmap", "from-before")
	require.NoError(t, err)
	requireRelease(t, l, release)
	// Pods reach the API server by this cluster's authority, and new ones start and are served.
	_, err = l.Kubectl(t.Context(), "rollout", "restart", "deployment/hello")
	require.NoError(t, err)
	_, err = l.Kubectl(t.Context(), "rollout", "status", "deployment/hello", "--timeout", "180s")
	require.NoError(t, err)
	_, err = l.GetShop(t.Context(), time.Minute)
	require.NoError(t, err)
	for workload, pods := range map[string]string{"deployment/coredns": "k8s-app=kube-dns", "daemonset/kube-proxy": "k8s-app=kube-proxy", "daemonset/podnet": "app=podnet"} {
		// Not "kubectl wait pods": it waits for pods, too, that go meanwhile.
		_, err = l.Kubectl(t.Context(), "rollout", "status", workload, "-n", "kube-system", "--timeout", "120s")
		require.NoError(t, err)
		out, err := l.Kubectl(t.Context(), "logs", "-n", "kube-system", "-l", pods, "--tail", "20", "--since", "20s")
		require.NoError(t, err)
		require.NotContains(t, out, "x509")
	}
	// A host joins by what cluster-info says.
	for _, args := range [][]string{upgradedArgs(l, "delete", "--nodes", addresses(worker), "--yes"), upgradedArgs(l, "join", "--nodes", addresses(worker))} {
		_, err := l.Run(t.Context(), upgradeRoot, args...)
		require.NoError(t, err)
	}
	require.NoError(t, l.WaitForNodes(t.Context(), len(l.Hosts.Hosts), time.Minute))
}

func testEtcd(t *testing.T, l *lab.Lab) {
	args := append([]string{"--pk", l.Hosts.KeyFile}, "--name", upgradeName)
	_, err := l.Kubectl(t.Context(), "create", "configmap", "kept", "--from-literal", "a=b")
	require.NoError(t, err)
	saved := filepath.Join(l.Dir, "saved.db")
	out, err := l.Run(t.Context(), upgradeRoot, append([]string{"etcd", "snapshot", "-o", saved}, args...)...)
	require.NoError(t, err)
	require.Equal(t, saved, out)
	info, err := os.Stat(saved)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	_, err = l.Kubectl(t.Context(), "delete", "configmap", "kept")
	require.NoError(t, err)
	_, err = l.Kubectl(t.Context(), "create", "configmap", "later", "--from-literal", "a=b")
	require.NoError(t, err)

	damaged := filepath.Join(l.Dir, "damaged.db")
	data, err := os.ReadFile(saved)
	require.NoError(t, err)
	data[len(data)/2] ^= 0xff
	require.NoError(t, os.WriteFile(damaged, data, 0o600))
	_, err = l.Run(t.Context(), upgradeRoot, append([]string{"etcd", "restore", damaged, "--yes"}, args...)...)
	require.ErrorContains(t, err, "checking the snapshot")
	_, err = l.Kubectl(t.Context(), "get", "configmap", "later")
	require.NoError(t, err, "a damaged snapshot has changed the cluster")

	began := time.Now()
	_, err = l.Run(t.Context(), upgradeRoot, append([]string{"etcd", "restore", saved, "--yes"}, args...)...)
	require.NoError(t, err)
	t.Logf("restored in %s", time.Since(began).Round(time.Second))
	_, err = l.Kubectl(t.Context(), "get", "configmap", "kept")
	require.NoError(t, err)
	_, err = l.Kubectl(t.Context(), "get", "configmap", "later")
	require.Error(t, err)
	require.NoError(t, l.WaitForNodes(t.Context(), 2, 3*time.Minute))
	// What watches the API goes on: a new pod gets its address and is served.
	_, err = l.Kubectl(t.Context(), "rollout", "restart", "deployment/hello")
	require.NoError(t, err)
	_, err = l.Kubectl(t.Context(), "rollout", "status", "deployment/hello", "--timeout", "180s")
	require.NoError(t, err)
	_, err = l.GetShop(t.Context(), time.Minute)
	require.NoError(t, err)
}
