//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
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

// The suite with a real Kubernetes by kubeadm.
func TestNodes(t *testing.T) {
	const site = "site"
	dropAfter(t, site)
	l := fiveHosts(t)
	_, err := l.BuildBase(t.Context(), site)
	require.NoError(t, err)
	_, err = l.BuildShop(t.Context(), site)
	require.NoError(t, err)
	require.NoError(t, l.TrustHosts(site))
	b := &bed{
		lab: l, name: "kubernetes", site: site, h: l.Hosts.Hosts,
		versions: []release{{l.ShopImage(), lab.KubernetesVersion, lab.KubernetesVersion}},
		kubectl:  []string{"kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf"},
		peers:    etcdPeers("/etc/kubernetes/pki/etcd", "ca.crt", "healthcheck-client.crt", "healthcheck-client.key"),
	}
	b.file, err = l.WriteClusterfile(b.name)
	require.NoError(t, err)
	b.live(t)
}

// beforeLoss begins to look at what must go on while the first control plane, h1, is gone; the function that it returns is called
// when it is, and the one that that returns when it is back.
func (b *bed) beforeLoss(t *testing.T) func() (back func()) {
	t.Helper()
	if b.name != "kubernetes" { // the others run no containers here
		return func() func() { return func() {} }
	}
	second, worker := b.h[1], b.h[3]
	// Pods of a node that is gone start elsewhere after minutes: what is looked at runs on a worker.
	b.on(t, second, "patch", "deployment", "hello", "--patch", `{"spec":{"template":{"spec":{"nodeName":"`+worker.Name+`"}}}}`)
	b.on(t, second, "rollout", "status", "deployment/hello", "--timeout", "120s")
	// The worker's balancer has heard from the cluster itself which API servers there are.
	require.NoError(t, lab.Poll(t.Context(), 2*time.Minute, func(ctx context.Context) error {
		out, err := worker.Exec(ctx, "cat", "/var/lib/sealer/node/endpoint/followed.json")
		for _, h := range b.h[:3] {
			if err == nil && !strings.Contains(string(out), h.Address.String()+":6443") {
				err = fmt.Errorf("%s is not in %s", h, out)
			}
		}
		return err
	}))
	asked := b.askFrom(t, worker, 40)
	return func() func() {
		answers, failed := asked()
		t.Logf("a worker asked the API server %d times while its first control plane was killed, %d without success", answers, failed)
		require.LessOrEqual(t, failed, 2, "a connection that was open may be lost")
		b.pulls(t, worker)
		b.pulls(t, second)
		b.push(t, second, "team/meanwhile:v1")
		_, err := b.lab.GetShopOn(t.Context(), worker, time.Minute)
		require.NoError(t, err)
		return func() {
			b.has(t, b.h[0], "team/pushed:v1")
			b.has(t, b.h[0], "team/meanwhile:v1")
		}
	}
}

// pulls removes a packed image from the host and pulls it again.
func (b *bed) pulls(t *testing.T, h hosts.Host) {
	t.Helper()
	const image = "docker.io/sealer-test/multi:v1"
	_, _ = h.Exec(t.Context(), "crictl", "rmi", image) // it may not be there yet
	began := time.Now()
	b.exec(t, h, "crictl", "pull", image)
	t.Logf("%s pulled after %s", h.Name, time.Since(began).Round(10*time.Millisecond))
}

// askFrom has a worker ask the API server again and again, as its kubelet does, until it has done so n times.
func (b *bed) askFrom(t *testing.T, h hosts.Host, n int) func() (answers, failed int) {
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

// testPushed pushes an image to one control plane, and looks for it on another one.
func testPushed(t *testing.T, b *bed) {
	const image = "team/pushed:v1"
	b.push(t, b.h[0], image)
	b.has(t, b.h[2], image)
	for _, h := range b.h {
		b.exec(t, h, "crictl", "pull", "sea.hub:5000/"+image)
	}
}

// testRegistryLogin gives the registries another login, killed after each step, while a control plane and a worker pull.
func testRegistryLogin(t *testing.T, b *bed) {
	const login = "    localRegistry: {username: site, password: \"env:SITE_REGISTRY_PASSWORD\"}\n"
	t.Setenv("SITE_REGISTRY_PASSWORD", "of this site alone")
	text, err := os.ReadFile(b.file)
	require.NoError(t, err)
	before := b.file
	defer func() { b.file = before }()
	b.file = filepath.Join(t.TempDir(), "Clusterfile")
	changed := strings.Replace(string(text), "\nspec:\n", "\nspec:\n  registry:\n"+login, 1)
	require.NotEqual(t, string(text), changed)
	require.NoError(t, os.WriteFile(b.file, []byte(changed), 0o600))

	pulls := b.pullsUntil
	if b.name != "kubernetes" { // the container runtimes of k3s and k0s start anew with them: their kubelets know when
		pulls = b.podsUntil
	}
	ends := []func() (pulls, failed int){pulls(t, b.h[1]), pulls(t, b.h[3])}
	args := b.runArgs(b.versions[0].image, b.h[:3], b.h[3:], "--progress", "none")
	require.Greater(t, b.watched().killedAtSteps(t, eachName(), args...), 3)
	for _, end := range ends {
		pulls, failed := end()
		t.Logf("%d pulls, %d failed", pulls, failed)
		require.Greater(t, pulls, 5)
		require.Zero(t, failed)
	}
	require.Contains(t, b.exec(t, b.h[2], "cat", "/var/lib/sealer/node/registry/credentials.json"), `"site"`)
	require.Contains(t, b.sealer(t, args...), "nothing to change")
	b.push(t, b.h[1], "team/after:v1")
	b.has(t, b.h[0], "team/after:v1")
}

// pullsUntil has a host pull a packed image, which it has not, again and again, until the function that it returns is called.
func (b *bed) pullsUntil(t *testing.T, h hosts.Host) func() (pulls, failed int) {
	t.Helper()
	const script = `touch /run/pulling
while [ -e /run/pulling ]; do
	crictl rmi "$1" >/dev/null 2>&1
	if crictl pull "$1" >/run/pulled 2>&1; then echo yes; else echo no; cat /run/pulled; fi
	sleep 0.2
done`
	var out bytes.Buffer
	done := make(chan error, 1)
	go func() {
		done <- h.Pipe(t.Context(), strings.NewReader(""), &out, &out, "sh", "-c", script, "sh", "docker.io/sealer-test/multi:v1")
	}()
	return func() (pulls, failed int) {
		b.exec(t, h, "rm", "-f", "/run/pulling")
		require.NoError(t, <-done, out.String())
		return counted(t, out.String())
	}
}

// podsUntil has a host's kubelet pull an image for one pod after the other, until the function that it returns is called.
func (b *bed) podsUntil(t *testing.T, h hosts.Host) func() (pulls, failed int) {
	t.Helper()
	image := b.on(t, b.h[0], "get", "pods", "--all-namespaces", "-o", "jsonpath={.items[0].spec.containers[0].image}")
	require.NotEmpty(t, image)
	const script = `name=$1 image=$2 file=/run/pulling-$1; shift 2
touch "$file"
while [ -e "$file" ]; do
	pod=asks-$name-$(date +%s%N)
	"$@" run "$pod" --image="$image" --image-pull-policy=Always --overrides='{"spec":{"nodeName":"'"$name"'"}}' >/dev/null 2>&1 || continue
	for i in $(seq 100); do
		state=$("$@" get pod "$pod" -o 'jsonpath={.status.phase} {.status.containerStatuses[0].state.waiting}' 2>/dev/null)
		case $state in
		*ErrImagePull*|*ImagePullBackOff*) echo no; echo "$state"; break;;
		Running*|Succeeded*) echo yes; break;;
		esac
		sleep 0.2
	done
	"$@" delete pod "$pod" --now >/dev/null 2>&1
done`
	var out bytes.Buffer
	done := make(chan error, 1)
	go func() {
		done <- b.h[0].Pipe(t.Context(), strings.NewReader(""), &out, &out, append([]string{"sh", "-c", script, "sh", h.Name, image}, b.kubectl...)...)
	}()
	return func() (pulls, failed int) {
		b.exec(t, b.h[0], "rm", "-f", "/run/pulling-"+h.Name)
		require.NoError(t, <-done, out.String())
		return counted(t, out.String())
	}
}

// counted counts the lines that say yes or no.
func counted(t *testing.T, text string) (all, failed int) {
	t.Helper()
	for line := range strings.Lines(text) {
		switch strings.TrimSpace(line) {
		case "yes":
			all++
		case "no":
			all, failed = all+1, failed+1
		}
	}
	if failed > 0 {
		t.Log(text)
	}
	return all, failed
}

// push has skopeo push an image to the cluster's registry on a control plane.
func (b *bed) push(t *testing.T, to hosts.Host, image string) {
	t.Helper()
	var access struct{ Username, Password string }
	require.NoError(t, json.Unmarshal([]byte(b.exec(t, to, "cat", "/var/lib/sealer/node/registry/credentials.json")), &access))
	certs := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(certs, "ca.crt"), []byte(b.exec(t, to, "cat", "/var/lib/sealer/node/registry/ca.crt")+"\n"), 0o600))
	auth := filepath.Join(t.TempDir(), "auth.json")
	login := exec.CommandContext(t.Context(), "skopeo", "login", "--authfile", auth, "--cert-dir", certs, "--username", access.Username, "--password-stdin", to.Address.String()+":5000")
	login.Stdin = strings.NewReader(access.Password)
	out, err := login.CombinedOutput()
	require.NoError(t, err, string(out))
	out, err = exec.CommandContext(t.Context(), "skopeo", "copy", "--src-tls-verify=false", "--authfile", auth, "--dest-cert-dir", certs,
		"docker://"+b.lab.Registry+"/docker.io/sealer-test/hello:v1", "docker://"+to.Address.String()+":5000/"+image).CombinedOutput()
	require.NoError(t, err, string(out))
}

// has: the registry's folder of a control plane has the tag.
func (b *bed) has(t *testing.T, h hosts.Host, image string) {
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

// testBudget tries to take out a worker with a pod that may not leave.
func testBudget(t *testing.T, b *bed) {
	control, worker := b.h[0], b.h[4]
	var out strings.Builder
	require.NoError(t, control.Pipe(t.Context(), strings.NewReader(fmt.Sprintf(budgetManifest, worker.Name)), &out, &out,
		"kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "apply", "-f", "-"), out.String())
	b.on(t, control, "rollout", "status", "deployment/stay", "--timeout", "120s")
	b.refused(t, b.args("delete", "--nodes", addresses(worker), "--yes", "--timeout", "5s"),
		"which the disruption budget stay protects", "default/stay-")
	b.on(t, control, "delete", "deployment/stay", "pdb/stay")
	b.on(t, control, "uncordon", worker.Name)
}
