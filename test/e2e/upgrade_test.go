//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/hosts"
	"github.com/sealerio/sealer/test/lab"
)

const upgradeRoot, upgradeName = "upgrade", "upgraded"

// A real cluster of one Kubernetes minor version becomes one of the next, under a client that asks all the time.
func TestUpgrade(t *testing.T) {
	name := os.Getenv("SEALER_LAB")
	if name == "" {
		name = "lab"
	}
	up, err := lab.Open(t.Context(), lab.Options{Hosts: 3, Name: name + "-up", Out: os.Stderr})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, up.Close(context.WithoutCancel(t.Context()))) })
	before, err := up.Previous(t.Context())
	require.NoError(t, err)
	for _, l := range []*lab.Lab{before, up} {
		_, err := l.BuildBase(t.Context(), upgradeRoot)
		require.NoError(t, err)
		buildSteadyShop(t, l)
	}
	file, err := up.WriteClusterfile(upgradeName)
	require.NoError(t, err)
	require.NoError(t, up.TrustHosts(upgradeRoot))
	_, err = up.Run(t.Context(), upgradeRoot, before.RunArgs(file)...)
	require.NoError(t, err)
	require.NoError(t, up.WaitForNodes(t.Context(), 3, 2*time.Minute))
	_, err = up.GetShop(t.Context(), 2*time.Minute)
	require.NoError(t, err)
	require.Equal(t, []string{lab.PreviousVersion, lab.PreviousVersion, lab.PreviousVersion}, kubeletVersions(t, up))

	t.Run("a jump over a minor version is refused", func(t *testing.T) { testMinorJump(t, up, file) })
	c := startClient(t, up)
	t.Run("an upgrade that is killed continues", func(t *testing.T) { testKilledUpgrade(t, up, file) })
	asked, lost := c.stop()
	t.Logf("%d requests while the cluster was upgraded, %d lost", asked, len(lost))
	// The pods go on answering for a while after they were told to go, and their budget leaves one of the two at any
	// moment: so none may be lost.
	require.Empty(t, lost)
	require.Greater(t, asked, 100)

	t.Run("everything is of the new version", func(t *testing.T) { testUpgraded(t, up) })
	t.Run("a second upgrade has nothing to do", func(t *testing.T) {
		out, err := up.Run(t.Context(), upgradeRoot, upgradeArgs(up, file, up.ShopImage())...)
		require.NoError(t, err)
		require.Contains(t, out, "nothing to do")
	})
	t.Run("there is no way back over a minor version", func(t *testing.T) {
		for _, verb := range []string{"upgrade", "rollback"} {
			args := upgradeArgs(up, file, before.ShopImage())
			args[0] = verb
			_, err := up.Run(t.Context(), upgradeRoot, args...)
			require.ErrorContains(t, err, "newer than "+lab.PreviousVersion)
			require.ErrorContains(t, err, "sealer etcd restore")
		}
	})
	t.Run("etcd is saved and restored", func(t *testing.T) { testEtcd(t, up) })
	t.Run("the cluster can be deleted", func(t *testing.T) {
		_, err := up.Run(t.Context(), upgradeRoot, "delete", "--all", "--yes", "--name", upgradeName, "--pk", up.Hosts.KeyFile)
		require.NoError(t, err)
	})
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

// testKilledUpgrade kills the upgrade after two of its steps, pauses it once, and lets it end.
func testKilledUpgrade(t *testing.T, l *lab.Lab, file string) {
	args := upgradeArgs(l, file, l.ShopImage(), "--batch", "1")
	began := time.Now()
	w := watched{l, upgradeRoot, upgradeName}
	w.killWhen(t, "upgrading the control plane (kubeadm upgrade)", "done", append(args, "--progress", "none")...)
	out, err := l.Run(t.Context(), upgradeRoot, append(args, "--pause-after", "1")...)
	require.NoError(t, err)
	require.Contains(t, out, "1 node upgraded to "+lab.KubernetesVersion+", 2 to go")
	require.Equal(t, []string{lab.KubernetesVersion, lab.PreviousVersion, lab.PreviousVersion}, kubeletVersions(t, l))
	w.killWhen(t, "draining the node", "done", append(args, "--progress", "none")...)
	out, err = l.Run(t.Context(), upgradeRoot, args...)
	require.NoError(t, err)
	require.Contains(t, out, "runs "+lab.KubernetesVersion+" on 3 hosts")
	require.Contains(t, out, "/var/lib/sealer/snapshots/before-"+lab.KubernetesVersion)
	t.Logf("upgraded in %s", time.Since(began).Round(time.Second))
}

func kubeletVersions(t *testing.T, l *lab.Lab) []string {
	t.Helper()
	var versions []string
	for _, h := range l.Hosts.Hosts {
		out, err := l.Kubectl(t.Context(), "get", "node", h.Name, "-o", "jsonpath={.status.nodeInfo.kubeletVersion}")
		require.NoError(t, err)
		versions = append(versions, out)
	}
	return versions
}

func testUpgraded(t *testing.T, l *lab.Lab) {
	want := lab.KubernetesVersion
	require.Equal(t, []string{want, want, want}, kubeletVersions(t, l))
	ready, err := l.ReadyNodes(t.Context())
	require.NoError(t, err)
	require.Len(t, ready, 3)
	packed, err := os.ReadFile(filepath.Join(l.Components, "images.txt"))
	require.NoError(t, err)
	// The addons roll out by themselves.
	require.NoError(t, lab.Poll(t.Context(), 2*time.Minute, func(ctx context.Context) error {
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
		if seen < 4+2+3 { // the control plane, two CoreDNS, a kube-proxy on each host
			return fmt.Errorf("%d pods of Kubernetes", seen)
		}
		return nil
	}))
	out, err := l.Kubectl(t.Context(), "get", "nodes", "-o", "jsonpath={.items[*].spec.unschedulable}{.items[*].metadata.annotations.sealer\\.io/cordoned-by-upgrade}")
	require.NoError(t, err)
	require.Empty(t, out, "a node is still kept free of pods")
	programs, err := os.ReadFile(filepath.Join(l.Components, "bin", "containerd"))
	require.NoError(t, err)
	for _, h := range l.Hosts.Hosts {
		installed, err := h.Exec(t.Context(), "stat", "-c", "%s", "/usr/local/bin/containerd")
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(len(programs)), strings.TrimSpace(string(installed)), "containerd of %s", h.Name)
		mounted, err := h.Exec(t.Context(), "sh", "-c", "grep -c ' /var/lib/sealer/node/rootfs/\\| /run/sealer-node/' /proc/mounts || :")
		require.NoError(t, err)
		t.Logf("%s has %s mounts of rootfs", h.Name, strings.TrimSpace(string(mounted)))
	}
	control := l.Hosts.Hosts[0]
	mode, err := control.Exec(t.Context(), "sh", "-c", "stat -c %a /var/lib/sealer/snapshots/*.db")
	require.NoError(t, err)
	require.Equal(t, "600", strings.TrimSpace(string(mode)), "one snapshot was made, for all the runs")
	pinned, err := control.Exec(t.Context(), "cat", "/etc/containerd/config.toml")
	require.NoError(t, err)
	require.Contains(t, string(pinned), "registry.k8s.io/pause:3.10.2")
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
	require.NoError(t, l.WaitForNodes(t.Context(), 3, 3*time.Minute))
	// What watches the API goes on: a new pod gets its address and is served.
	_, err = l.Kubectl(t.Context(), "rollout", "restart", "deployment/hello")
	require.NoError(t, err)
	_, err = l.Kubectl(t.Context(), "rollout", "status", "deployment/hello", "--timeout", "180s")
	require.NoError(t, err)
	_, err = l.GetShop(t.Context(), time.Minute)
	require.NoError(t, err)
}

// client asks the workload through every host in turn, on a new connection each time.
type client struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	asked  int
	lost   []string
}

func startClient(t *testing.T, l *lab.Lab) *client {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &client{cancel: cancel}
	ask := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	c.done.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			h := l.Hosts.Hosts[i%len(l.Hosts.Hosts)]
			if err := getOnce(ctx, ask, h); err != nil && ctx.Err() == nil {
				c.lost = append(c.lost, fmt.Sprintf("%s %s: %v", time.Now().UTC().Format(time.StampMilli), h.Name, err))
			}
			c.asked++
		}
	})
	t.Cleanup(func() { cancel(); c.done.Wait() })
	return c
}

func getOnce(ctx context.Context, ask *http.Client, h hosts.Host) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+h.Address.String()+":30080/", nil)
	if err != nil {
		return err
	}
	resp, err := ask.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// stop ends it and tells how often it asked, and what went wrong.
func (c *client) stop() (asked int, lost []string) {
	c.cancel()
	c.done.Wait()
	return c.asked, c.lost
}
