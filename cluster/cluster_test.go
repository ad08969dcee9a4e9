// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime"
)

const three = `spec:
  env: [PLACE=here]
  hosts:
  - {ips: [10.0.0.1, 10.0.0.2], roles: [master]}
  - {ips: [10.0.0.3-10.0.0.4], roles: [node, db], labels: {zone: a}, taints: ["gpu=yes:NoSchedule"], env: [PLACE=there]}
---
apiVersion: sealer.io/v1
kind: Config
metadata: {name: c}
spec: {path: etc/x.toml.tmpl, data: "v = 1\n"}
`

var digests = regexp.MustCompile(`sha256:[0-9a-f]{64}`)

func TestRun_Plan(t *testing.T) {
	b := newBed(t, three)
	b.opts.DryRun = true
	require.NoError(t, b.run(t))
	golden(t, "testdata/plan.txt", b.out.String())
	for _, h := range b.hosts {
		require.Empty(t, h.did(), "a dry run changes nothing")
	}
	_, err := os.Stat(filepath.Join(b.opts.StateDir, "prod"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// What each host is asked to do, in order.
func TestRun(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	require.Equal(t, "cluster \"prod\" runs on 4 hosts\n", b.out.String())
	var all strings.Builder
	for _, name := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"} {
		all.WriteString("== " + name + "\n" + strings.Join(b.hosts[name].did(), "\n") + "\n")
	}
	golden(t, "testdata/run.txt", digests.ReplaceAllString(all.String(), "sha256:…"))

	first, worker := b.hosts["10.0.0.1"], b.hosts["10.0.0.3"]
	require.Len(t, worker.blobs, 4, "index, rootfs manifest, config and layer")
	require.Greater(t, len(first.blobs), 10, "control planes also have the packed images")
	require.Equal(t, first.blobs, b.hosts["10.0.0.2"].blobs)
	require.Contains(t, string(worker.Files()["/etc/hosts"].Data), "10.0.0.1 apiserver.cluster.local\n10.0.0.2 sea.hub\n10.0.0.1 sea.hub\n")
	require.Contains(t, string(b.hosts["10.0.0.2"].Files()["/etc/hosts"].Data), "10.0.0.2 apiserver.cluster.local\n10.0.0.2 sea.hub\n10.0.0.1 sea.hub\n")
	require.Equal(t, "v = 1\n", string(worker.Files()["/var/lib/sealer/node/rootfs/x/etc/x.toml.tmpl"].Data))

	var state runtime.HostState
	require.NoError(t, json.Unmarshal(worker.Files()[runtime.StateFile].Data, &state))
	require.True(t, state.Complete)
	require.Equal(t, "worker", state.Role)

	for _, c := range first.Calls() {
		if strings.HasSuffix(c.String(), "export PATH; echo done'") {
			require.Subset(t, c.Env, []string{"HostIPFamily=IPv4", "ContainerRuntime=containerd", "LocalRegistryURL=sea.hub:5000", "KubeSvcIP=10.96.0.1", "DNSSvcIP=10.96.0.10"},
				"scripts for older sealers have them")
			for _, kv := range c.Env {
				name, _, _ := strings.Cut(kv, "=")
				if _, own := b.opts.Clusterfile.Env[name]; !own && !slices.Contains([]string{"KUBECONFIG", "GREETING", "PLACE"}, name) {
					require.Error(t, b.opts.Clusterfile.CheckEnv(name, "other"), "a Clusterfile that says %s would not be heard", name)
				}
			}
			require.Equal(t, "/var/lib/sealer/node/rootfs/x", c.Dir)
			require.Subset(t, c.Env, []string{"KUBECONFIG=/admin.conf", "GREETING=hello", "PLACE=here", "ClusterName=prod",
				"RegistryURL=sea.hub:5000", "PauseImage=registry.k8s.io/pause:3.10.2", "HostIP=10.0.0.1"})
		}
		if strings.Contains(c.String(), "render") {
			require.Contains(t, string(c.Stdin), `"KubeVersion":"v1.36.3"`)
		}
	}
	for _, c := range worker.Calls() {
		if strings.Contains(c.String(), "render") {
			require.Contains(t, string(c.Stdin), `"PLACE":"there"`)
		}
	}
}

// On a finished cluster the same command changes nothing, and says so.
func TestRun_Again(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	before := map[string][]string{}
	files := map[string]map[string]hosttest.File{}
	for name, h := range b.hosts {
		before[name], files[name] = h.did(), h.Files()
		h.On(`^kubectl get node h`, hosttest.Answer{Do: func(_ context.Context, c hosttest.Call) hosttest.Answer {
			return hosttest.Answer{Stdout: fmt.Sprintf(`{"metadata":{"name":%q,"labels":{"zone":"a","node-role.kubernetes.io/db":""}},
				"spec":{"taints":[{"key":"gpu","value":"yes","effect":"NoSchedule"}]}}`, c.Argv[3])}
		}})
	}
	require.NoError(t, b.run(t))
	require.Equal(t, "cluster \"prod\" is complete on 4 hosts: nothing to change\n", b.out.String())
	harmless := regexp.MustCompile(`rootfs mount|sealer-cluster-node \[redacted\]`) // they tell what is there
	for name, h := range b.hosts {
		var new []string
		for _, line := range h.did()[len(before[name]):] {
			if !harmless.MatchString(line) {
				new = append(new, line)
			}
		}
		require.Empty(t, new, name)
		require.Equal(t, files[name], h.Files())
	}
}

// A step that fails is named with host, command, output and log; the other hosts of the phase finish, the next run goes on.
func TestRun_FailsAndContinues(t *testing.T) {
	b := newBed(t, three)
	b.hosts["10.0.0.3"].On("^dist install$", hosttest.Answer{Stdout: "unpacking\n", Stderr: "disk full\n", Code: 5, Times: 1})
	err := b.run(t)
	require.EqualError(t, err, `installing fake: install: 10.0.0.3: running dist install: exit status 5
unpacking
disk full
the full log is in /var/log/run.log`)
	var failed *cluster.FailedError
	require.ErrorAs(t, err, &failed)
	require.Contains(t, failed.Hint(), "run the same command again")
	var exit *host.ExitError
	require.ErrorAs(t, err, &exit)
	require.Contains(t, b.hosts["10.0.0.4"].did(), "dist install")
	require.NotContains(t, b.hosts["10.0.0.1"].did(), "dist init")

	require.NoError(t, b.run(t))
	count := func(name, line string) int {
		n := 0
		for _, l := range b.hosts[name].did() {
			if l == line {
				n++
			}
		}
		return n
	}
	require.Equal(t, 2, count("10.0.0.3", "dist install"))
	require.Equal(t, 1, count("10.0.0.4", "dist install"))
	require.Equal(t, 1, count("10.0.0.1", "dist init"))
	require.Equal(t, 1, count("10.0.0.3", "dist join"))
}

// After the join of one control plane fails, the next one is not begun.
func TestRun_ControlPlanesJoinOneByOne(t *testing.T) {
	b := newBed(t, "spec: {hosts: [{ips: [10.0.0.1-10.0.0.3], roles: [master]}]}\n")
	b.hosts["10.0.0.2"].On("^dist join$", hosttest.Answer{Code: 1})
	require.ErrorContains(t, b.run(t), "joining control planes: join: 10.0.0.2")
	require.NotContains(t, b.hosts["10.0.0.3"].did(), "dist join")
}

func TestRun_ReportsAllHosts(t *testing.T) {
	b := newBed(t, three)
	for _, name := range []string{"10.0.0.2", "10.0.0.4"} {
		b.hosts[name].unreachable = &host.UnreachableError{Host: name, Err: errors.New("no route to host")}
	}
	err := b.run(t)
	require.EqualError(t, err, "connecting to the hosts: 2 failed, nothing was changed\n"+
		"  10.0.0.2: connecting: no route to host\n  10.0.0.4: connecting: no route to host")
	var unreachable *host.UnreachableError
	require.ErrorAs(t, err, &unreachable)
	require.Empty(t, b.hosts["10.0.0.1"].did())
}

func TestRun_PreflightChangesNothing(t *testing.T) {
	b := newBed(t, three)
	b.hosts["10.0.0.4"].On("^sh -s -- ", hosttest.Answer{Stdout: fmt.Sprintf("time=%d\nuid=0\narch=riscv64\nhostname=h1\ninit=systemd\nend=1\n", time.Now().Add(time.Hour).Unix())})
	err := b.run(t)
	var problems *runtime.PreflightError
	require.ErrorAs(t, err, &problems)
	var checks []string
	for _, p := range problems.Problems {
		checks = append(checks, p.Check)
	}
	require.Subset(t, checks, []string{"platform", "hostname", "machine-id", "address", "clock"})
	for _, h := range b.hosts {
		require.Empty(t, h.did())
	}
}

func TestRun_UnpackedImage(t *testing.T) {
	b := newBed(t, three)
	b.hosts["10.0.0.1"].pods = `{"items":[
	  {"metadata":{"name":"ok","namespace":"default"},"status":{"containerStatuses":[{"image":"nginx:1.27","state":{"waiting":{"reason":"ImagePullBackOff"}}}]}},
	  {"metadata":{"name":"web","namespace":"shop"},"status":{"containerStatuses":[{"image":"redis","state":{"waiting":{"reason":"ErrImagePull"}}}]}}]}`
	err := b.run(t)
	var unpacked *cluster.UnpackedImageError
	require.ErrorAs(t, err, &unpacked)
	require.Equal(t, cluster.UnpackedImageError{Pod: "shop/web", Image: "docker.io/library/redis:latest"}, *unpacked)
}

func TestRun_NotReady(t *testing.T) {
	b := newBed(t, three)
	b.opts.ReadyTimeout = 10 * time.Millisecond // it never becomes Ready, however long one waits
	b.hosts["10.0.0.1"].ready = false
	var notReady *cluster.NotReadyError
	require.ErrorAs(t, b.run(t), &notReady)

	b.hosts["10.0.0.1"].ready = true
	b.opts.ReadyTimeout = time.Minute
	require.NoError(t, b.run(t))
}

// The image's CMD gives way to the Clusterfile's.
func TestRun_Commands(t *testing.T) {
	b := newBed(t, "spec: {cmd: [\"echo mine\"], hosts: [{ips: [10.0.0.1], roles: [master]}]}\n")
	require.NoError(t, b.run(t))
	require.Contains(t, b.hosts["10.0.0.1"].did(), inRootfs+"echo mine")
	require.NotContains(t, b.hosts["10.0.0.1"].did(), inRootfs+"echo done")

	b = newBed(t, "spec: {cmd: [], hosts: [{ips: [10.0.0.1], roles: [master]}]}\n")
	require.NoError(t, b.run(t))
	require.NotContains(t, b.hosts["10.0.0.1"].did(), inRootfs+"echo done")
}

// Without hosts the cluster is this machine.
func TestRun_ThisMachine(t *testing.T) {
	b := newBed(t, "spec: {}\n")
	require.NoError(t, b.run(t))
	require.Contains(t, b.hosts["localhost"].did(), "dist init")
	require.Contains(t, string(b.hosts["localhost"].Files()["/etc/hosts"].Data), "192.168.0.5 apiserver.cluster.local")
}

func TestRun_Labels(t *testing.T) {
	b := newBed(t, "spec: {cmd: [], hosts: [{ips: [10.0.0.1], roles: [master], taints: [\"node-role.kubernetes.io/control-plane:NoSchedule-\", \"gone:NoExecute-\"]}]}\n")
	require.NoError(t, b.run(t))
	require.Contains(t, b.hosts["10.0.0.1"].did(), "kubectl taint node h1 --overwrite node-role.kubernetes.io/control-plane:NoSchedule-",
		"a taint that is not there is not removed")
}

// A second operator is told who is at work, and since when.
func TestRun_Busy(t *testing.T) {
	b := newBed(t, three)
	var second error
	b.hosts["10.0.0.1"].On("^dist init$", hosttest.Answer{Do: func(ctx context.Context, _ hosttest.Call) hosttest.Answer {
		second = cluster.Run(ctx, b.opts)
		return hosttest.Answer{}
	}})
	require.NoError(t, b.run(t))
	var busy *cluster.BusyError
	require.ErrorAs(t, second, &busy)
	require.Equal(t, os.Getpid(), busy.Holder.PID)
	require.WithinDuration(t, time.Now(), busy.Holder.Since, time.Minute)
	require.ErrorContains(t, second, `the cluster "prod" is being worked on by`)
}

// An operator on another machine holds a host: who it is, nothing is changed, and the others are let go.
func TestRun_Held(t *testing.T) {
	b := newBed(t, three)
	b.hosts["10.0.0.3"].On(`/run/lock/sealer-operator \w+ .* 60$`, hosttest.Answer{
		Stdout: `{"pid":7,"machine":"desk","user":"ada","command":"sealer run","since":"2026-01-02T03:04:05Z"}`, Code: 75,
	})
	err := b.run(t)
	var held *cluster.HeldError
	require.ErrorAs(t, err, &held)
	require.Equal(t, "10.0.0.3", held.Host)
	require.ErrorContains(t, err, "10.0.0.3: it is being worked on by ada on desk (process 7, sealer run), since ")
	for name, h := range b.hosts {
		require.Empty(t, h.did(), name)
		calls := h.Commands()
		require.Regexp(t, `^sh -c 'set -eu; exec 9>>.*/run/lock/sealer-operator \w+$`, strings.ReplaceAll(calls[len(calls)-1], "\n", " "), name)
	}
	require.NoDirExists(t, filepath.Join(b.opts.StateDir, "prod"))
}

// Who forgets a cluster, or is killed as soon as it is forgotten, is the same operator to its hosts as before.
func TestRun_SameOperator(t *testing.T) {
	b := newBed(t, three)
	taken := func() string {
		var who string
		for _, c := range b.hosts["10.0.0.1"].Calls() {
			if n := len(c.Argv); n > 4 && c.Argv[n-4] == "/run/lock/sealer-operator" {
				who = c.Argv[n-3]
			}
		}
		return who
	}
	require.NoError(t, b.run(t))
	first := taken()
	require.Regexp(t, `^\w{32}$`, first)
	require.NoError(t, os.RemoveAll(filepath.Join(b.opts.StateDir, "prod")))
	require.NoError(t, b.run(t))
	require.Equal(t, first, taken())
}

// No password is in what is kept, printed or run.
func TestRun_KeepsSecrets(t *testing.T) {
	b := newBed(t, "spec: {ssh: {passwd: hunter2}, hosts: [{ips: [10.0.0.1], roles: [master]}, {ips: [10.0.0.2], roles: [node]}]}\n")
	require.NoError(t, b.run(t))
	var all strings.Builder
	require.NoError(t, filepath.WalkDir(b.opts.StateDir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		all.Write(data)
		return err
	}))
	for _, h := range b.hosts {
		all.WriteString(strings.Join(h.Commands(), "\n"))
		for _, f := range h.Files() {
			all.Write(f.Data)
		}
	}
	require.NotContains(t, all.String(), "hunter2")
	require.NotContains(t, all.String(), "very-secret")
	kept, err := os.ReadFile(cluster.ClusterfilePath(b.opts.StateDir, "prod"))
	require.NoError(t, err)
	again, err := clusterfile.Parse("kept", kept)
	require.NoError(t, err)
	require.Len(t, again.Machines(), 2)
}

func TestRun_Refuses(t *testing.T) {
	b := newBed(t, three)
	b.opts.Distributions = runtime.Distributions{"k3s": distribution{}}
	require.EqualError(t, b.run(t), `the image "registry.example.com/app:v1": it holds the cluster runtime "fake"; this sealer installs k3s`)
	require.ErrorContains(t, cluster.Run(t.Context(), cluster.RunOptions{}), "Clusterfile: it is missing")
}

func TestDelete(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	n := map[string]int{}
	for name, h := range b.hosts {
		n[name] = len(h.did())
	}
	require.NoError(t, cluster.Delete(t.Context(), b.deleteOptions()))
	golden(t, "testdata/delete.txt", strings.Join(b.hosts["10.0.0.3"].did()[n["10.0.0.3"]:], "\n")+"\n")
	for _, h := range b.hosts {
		require.Equal(t, "127.0.0.1 localhost\n", string(h.Files()["/etc/hosts"].Data))
	}
	_, err := os.Stat(filepath.Join(b.opts.StateDir, "prod"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// Hosts on which sealer never was are left alone; so are those of other clusters.
func TestDelete_OnlyOurs(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, cluster.Delete(t.Context(), b.deleteOptions()))
	for _, h := range b.hosts {
		require.Empty(t, h.did())
	}
	b.hosts["10.0.0.1"].Put(runtime.StateFile, `{"schemaVersion":"v1","cluster":"other","runtime":"fake"}`, 0o644)
	var other *cluster.OtherClusterError
	require.ErrorAs(t, cluster.Delete(t.Context(), b.deleteOptions()), &other)
	require.Empty(t, b.hosts["10.0.0.1"].did())
}

// All of a cluster is all of its hosts, also of those that joined later, and its own scripts are run on them.
func TestDelete_Part(t *testing.T) {
	const plugin = "---\napiVersion: sealer.io/v1\nkind: Plugin\nmetadata: {name: bye}\nspec: {type: SHELL, action: pre-clean-host, data: \"echo bye\"}\n"
	b := newBed(t, three+plugin)
	require.NoError(t, b.run(t))
	o := b.deleteOptions()
	some, err := clusterfile.Parse("some.yaml", []byte("apiVersion: sealer.io/v2\nkind: Cluster\nmetadata: {name: prod}\nspec: {hosts: [{ips: [10.0.0.1-10.0.0.2], roles: [master]}]}\n"))
	require.NoError(t, err)
	o.Clusterfile = some
	did := b.newly()
	for _, elsewhere := range []bool{false, true} {
		if elsewhere { // the control planes know it, too
			o.StateDir = t.TempDir()
		}
		var part *cluster.PartError
		require.ErrorAs(t, cluster.Delete(t.Context(), o), &part)
		require.Equal(t, []string{"10.0.0.3", "10.0.0.4"}, part.Others)
	}
	o.StateDir, o.DryRun = b.opts.StateDir, true
	o.Clusterfile = b.opts.Clusterfile
	b.out.Reset()
	require.NoError(t, cluster.Delete(t.Context(), o))
	require.Contains(t, b.out.String(), "deleting cluster \"prod\"")
	for name, calls := range did() {
		require.Empty(t, calls, name)
	}

	o.DryRun, o.Force = false, true
	o.Clusterfile = some
	require.NoError(t, cluster.Delete(t.Context(), o))
	now := did()
	require.Contains(t, now["10.0.0.1"], "plugin-bye")
	require.Contains(t, now["10.0.0.2"], "dist reset")
	require.NotContains(t, now["10.0.0.3"], "dist reset")
	o.Clusterfile, o.Force = b.opts.Clusterfile, false
	require.NoError(t, cluster.Delete(t.Context(), o), "the rest is still known")
	require.Contains(t, did()["10.0.0.3"], "dist reset")
}

// A registry that has lost what it served gets it again from the same run.
func TestRun_RegistryLost(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	b.hosts["10.0.0.1"].On("registry lacks", hosttest.Answer{Stdout: `["quay.io/a/b:2"]`})
	did := b.newly()
	require.NoError(t, b.run(t))
	now := did()
	require.Contains(t, now["10.0.0.1"], "registry publish")
	require.NotContains(t, now["10.0.0.2"], "registry publish")
}

// Clusters may have the same name. One that this machine has not made is not deleted for it, and neither is one that is named beside another.
func TestDelete_Namesake(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	o := b.deleteOptions()
	o.StateDir = t.TempDir()
	dir := filepath.Join(o.StateDir, "prod")
	know := func() { // a folder without a Clusterfile goes when it is closed
		require.NoError(t, os.MkdirAll(dir, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "id"), []byte("00000000000000000000000000000000\n"), 0o600))
	}
	know()
	did := b.newly()
	var other *cluster.OtherClusterError
	err := cluster.Delete(t.Context(), o)
	require.ErrorAs(t, err, &other)
	require.ErrorContains(t, err, `another cluster named "prod"`)
	know()
	_, err = cluster.Open(t.Context(), cluster.ViewOptions{Clusterfile: o.Clusterfile, StateDir: o.StateDir, Dial: o.Dial, Distributions: o.Distributions})
	require.ErrorAs(t, err, &other)

	require.NoError(t, os.Remove(filepath.Join(dir, "id")))
	h := b.hosts["10.0.0.3"]
	state := strings.ReplaceAll(string(h.Files()[runtime.StateFile].Data), `"clusterID": "`, `"clusterID": "f`)
	h.Put(runtime.StateFile, state, 0o644)
	err = cluster.Delete(t.Context(), o)
	require.ErrorAs(t, err, &other)
	require.Equal(t, "10.0.0.3", other.Host)
	for name, calls := range did() {
		require.NotContains(t, calls, "dist reset", name)
	}
}

func TestDelete_Unreachable(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	b.hosts["10.0.0.4"].unreachable = &host.UnreachableError{Host: "10.0.0.4", Err: errors.New("no route to host")}
	var unreachable *cluster.UnreachableError
	require.False(t, errors.As(cluster.Delete(t.Context(), b.deleteOptions()), &unreachable))
	require.False(t, slices.Contains(b.hosts["10.0.0.3"].did(), "dist reset"), "without Force nothing is touched")

	o := b.deleteOptions()
	o.Force = true
	require.ErrorAs(t, cluster.Delete(t.Context(), o), &unreachable)
	require.Contains(t, b.hosts["10.0.0.3"].did(), "dist reset")
	require.FileExists(t, cluster.ClusterfilePath(b.opts.StateDir, "prod"), "it is still needed for the host that is left")

	b.hosts["10.0.0.4"].unreachable = nil
	did := b.newly()
	require.NoError(t, cluster.Delete(t.Context(), b.deleteOptions()), "the same command, and needs no force")
	require.Contains(t, did()["10.0.0.4"], "dist reset")
	require.Empty(t, did()["10.0.0.3"])
	require.NoFileExists(t, cluster.ClusterfilePath(b.opts.StateDir, "prod"))
}
