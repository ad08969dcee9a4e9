//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/hosts"
	"github.com/sealerio/sealer/test/lab"
)

// The whole way: build, push, pull into an empty store, run on hosts that reach
// nothing, look at the cluster from all sides, delete it.
func TestCluster(t *testing.T) {
	const operator, site = "operator", "site"
	dropAfter(t, operator, site, "stranger")
	_, err := shared.BuildBase(t.Context(), operator)
	require.NoError(t, err)
	built, err := shared.BuildApps(t.Context(), operator)
	require.NoError(t, err)
	require.Equal(t, built, sealer(t, operator, "push", shared.AppsImage()))
	require.Equal(t, built, sealer(t, site, "pull", shared.AppsImage()))
	requireSourceDigests(t, site, shared.AppsImage())

	file, err := shared.WriteClusterfile("e2e")
	require.NoError(t, err)
	before := snapshots(t)

	t.Run("an unknown host key stops it", func(t *testing.T) {
		_, err := shared.Run(t.Context(), "stranger", append(shared.RunImageArgs(shared.AppsImage(), file), "--progress", "none")...)
		require.ErrorContains(t, err, shared.Hosts.Hosts[0].Address.String())
		require.ErrorContains(t, err, "--accept-new-host-keys")
		unchanged(t, before, snapshots(t))
	})

	t.Run("an image for another Kubernetes is refused", func(t *testing.T) {
		require.NoError(t, shared.TrustHosts(operator))
		other := shared.Registry + "/team/apps:other"
		// A build compares KUBEVERSION with its base; who labels the image by hand is not asked.
		sealer(t, operator, "build", "-t", other, "--label", "app.alpha.sealer.io/supported-kube-version=<1.30",
			writeContext(t, map[string]string{"Kubefile": "FROM " + shared.AppsImage() + "\n"}))
		_, err := shared.Run(t.Context(), operator, append(shared.RunImageArgs(other, file), "--progress", "none")...)
		require.ErrorContains(t, err, "it is for Kubernetes <1.30, not for "+lab.KubernetesVersion)
		unchanged(t, before, snapshots(t))
	})

	require.NoError(t, shared.TrustHosts(site))
	watch := startWatch(t, shared.Hosts.Password)
	names := watchNames(t)

	t.Run("a run that is killed continues", func(t *testing.T) { testKilledRuns(t, site, file) })
	require.NoError(t, shared.WaitForNodes(t.Context(), 2, time.Minute))
	answers, err := shared.GetShop(t.Context(), time.Minute)
	require.NoError(t, err)
	require.Equal(t, []string{"hello from docker.io/sealer-test/hello:v1", "hello from docker.io/sealer-test/hello:v1"}, answers)

	t.Run("applications are launched", testApplications)
	t.Run("an application image is run, upgraded and deleted", func(t *testing.T) { testApplicationImages(t, site) })
	t.Run("a second run changes nothing", func(t *testing.T) {
		out := sealer(t, site, shared.RunImageArgs(shared.AppsImage(), file)...)
		require.Contains(t, out, "nothing")
	})
	t.Run("it is looked at and worked on", func(t *testing.T) { testOperate(t, site) })
	t.Run("images keep their domains and digests", testPulls)
	t.Run("an image that is not packed fails at once", testUnpacked)
	t.Run("logs are bundled", func(t *testing.T) { testBundle(t, site) })
	t.Run("no secret is seen", func(t *testing.T) { testSecrets(t, site, watch.stop()) })
	t.Run("no other registry is asked", func(t *testing.T) {
		for _, name := range names() {
			for _, domain := range lab.Domains() {
				require.NotContains(t, name, domain, "a host looked for an upstream registry")
			}
		}
	})
	t.Run("delete puts the hosts back", func(t *testing.T) {
		sealer(t, site, "delete", "--all", "--yes", "--name", "e2e", "--pk", shared.Hosts.KeyFile)
		unchanged(t, before, snapshots(t))
		sealer(t, site, "delete", "--all", "--yes", "-f", file, "--pk", shared.Hosts.KeyFile,
			"--masters", shared.Hosts.Hosts[0].Address.String(), "--nodes", shared.Hosts.Hosts[1].Address.String())
	})
}

// testApplications looks at what each application of the image has made, and how often it was started.
func testApplications(t *testing.T) {
	for _, h := range shared.Hosts.Hosts {
		answer, err := shared.Get(t.Context(), h, lab.ChartPort, time.Minute)
		require.NoError(t, err)
		require.Equal(t, "hello from docker.io/sealer-test/hello:v2", answer, "the chart's workload")
	}
	for what, want := range map[string]string{
		"configmap notes -n notes -o jsonpath={.data.author}":           "nobody",
		"configmap title -n notes -o jsonpath={.data.title}":            "of an application",
		"nodes -l example.com/marked=by-a-script -o name --no-headers":  "node/h1\nnode/h2",
		"secrets -l owner=helm -o jsonpath={.items[*].metadata.labels}": "",
	} {
		out, err := shared.Kubectl(t.Context(), append([]string{"get"}, strings.Fields(what)...)...)
		require.NoError(t, err)
		if want == "" {
			require.Contains(t, out, `"name":"shop"`, what)
			continue
		}
		require.Equal(t, want, out, what)
	}
}

// testKilledRuns kills the run at moments that nobody chose, and then lets it end.
func testKilledRuns(t *testing.T, site, file string) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, seed))
	args := passwordArgs(file)
	for range 3 {
		cmd := shared.Command(t.Context(), site, append(args, "--progress", "none")...)
		cmd.Env = append(cmd.Env, "SEALER_SSH_PASSWD="+shared.Hosts.Password)
		var messages bytes.Buffer
		cmd.Stderr = &messages
		require.NoError(t, cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		after := time.Duration(500+random.IntN(25000)) * time.Millisecond
		select {
		case err := <-ended:
			require.NoError(t, err, messages.String())
		case <-time.After(after):
			t.Logf("killing the run after %s", after)
			require.NoError(t, cmd.Process.Signal(syscall.SIGKILL))
			<-ended
		}
	}
	t.Setenv("SEALER_SSH_PASSWD", shared.Hosts.Password)
	sealer(t, site, args...)
}

// passwordArgs are RunArgs without the key: the password comes from the environment.
func passwordArgs(file string) []string {
	var args []string
	all := shared.RunImageArgs(shared.AppsImage(), file)
	for i := 0; i < len(all); i++ {
		if all[i] == "--pk" {
			i++
			continue
		}
		args = append(args, all[i])
	}
	return args
}

// testPulls pulls packed images by every kind of name, on the worker, with
// containerd's own client of the kubelet's interface.
func testPulls(t *testing.T) {
	worker := shared.Hosts.Hosts[1]
	index := registryDigest(t, "docker.io/sealer-test/multi:v1")
	manifest := registryDigest(t, "quay.io/sealer-test/hello:v1")
	for _, name := range []string{
		"docker.io/sealer-test/hello:v1",
		"quay.io/sealer-test/hello:v1",
		"docker.io/sealer-test/multi:v1",
		"docker.io/sealer-test/multi@" + index,
		"docker.io/sealer-test/multi:v1@" + index,
		"quay.io/sealer-test/hello@" + manifest,
	} {
		out, err := worker.Exec(t.Context(), "crictl", "pull", name)
		require.NoError(t, err, "%s: %s", name, out)
	}
	one := imageID(t, worker, "docker.io/sealer-test/hello:v1")
	other := imageID(t, worker, "quay.io/sealer-test/hello:v1")
	require.NotEqual(t, one, other, "two registries' images of one name became one")
}

func imageID(t *testing.T, h hosts.Host, name string) string {
	t.Helper()
	out, err := h.Exec(t.Context(), "crictl", "inspecti", "-o", "go-template", "--template", "{{.status.id}}", name)
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "sha256:")
	return strings.TrimSpace(string(out))
}

// testUnpacked starts a pod whose image is nowhere in the ClusterImage.
func testUnpacked(t *testing.T) {
	const image = "docker.io/library/not-packed:1"
	_, err := shared.Kubectl(t.Context(), "run", "stray", "--image", image, "--restart", "Never")
	require.NoError(t, err)
	began := time.Now()
	require.NoError(t, lab.Poll(t.Context(), 90*time.Second, func(ctx context.Context) error {
		out, err := shared.Kubectl(ctx, "get", "pod", "stray", "-o", "jsonpath={.status.containerStatuses[0].state.waiting.reason} {.status.containerStatuses[0].state.waiting.message}")
		if err != nil {
			return err
		}
		if !strings.Contains(out, image) || !strings.Contains(out, "not found") {
			return fmt.Errorf("the pod says %q", out)
		}
		return nil
	}))
	t.Logf("refused after %s", time.Since(began).Round(time.Millisecond))
	_, err = shared.Kubectl(t.Context(), "delete", "pod", "stray", "--now")
	require.NoError(t, err)
}

// testSecrets looks for everything that opens a door, wherever it must not be.
func testSecrets(t *testing.T, site string, seen []string) {
	require.Empty(t, seen, "the SSH password stood in the process list")
	control := shared.Hosts.Hosts[0]
	secrets := map[string]string{"SSH password": shared.Hosts.Password}
	out, err := control.Exec(t.Context(), "sh", "-c", `sed -n 's/.*Basic \([A-Za-z0-9+\/=]*\).*/\1/p' /etc/containerd/certs.d/_default/hosts.toml | head -n1 | base64 -d | cut -d: -f2-`)
	require.NoError(t, err)
	secrets["registry password"] = strings.TrimSpace(string(out))
	out, err = control.Exec(t.Context(), "sh", "-c", `kubeadm --kubeconfig /etc/kubernetes/admin.conf token list -o jsonpath='{.token}{"\n"}' | cut -d. -f2`)
	require.NoError(t, err)
	for i, token := range strings.Fields(string(out)) {
		secrets[fmt.Sprintf("bootstrap token %d", i)] = token
	}
	for what, secret := range secrets {
		require.GreaterOrEqual(t, len(secret), 6, what)
		requireNotBelow(t, filepath.Join(shared.Dir, site), what, secret)
		require.Empty(t, processesWith(secret), what)
		for _, h := range shared.Hosts.Hosts {
			out, err := h.Exec(t.Context(), "journalctl", "--no-pager", "-o", "cat")
			require.NoError(t, err)
			require.NotContains(t, string(out), secret, "%s in the journal of %s", what, h.Name)
			state, err := h.Exec(t.Context(), "cat", "/etc/sealer/state.json")
			require.NoError(t, err)
			require.NotContains(t, string(state), secret, "%s in the state of %s", what, h.Name)
		}
	}
	requireNotBelow(t, filepath.Join(shared.Dir, site), "a private key", "PRIVATE KEY-----")
}
