// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime"
)

// upgradeBed is a bed whose cluster runs, and an image to upgrade it to.
type upgradeBed struct {
	*bed
	opts cluster.UpgradeOptions

	mu    sync.Mutex
	nodes map[string]*fakeNode
	log   []string // what was done, in order
	fail  string   // the entry of log that fails, once
}

type fakeNode struct {
	Version              string
	Ready, Unschedulable bool
	Annotations          map[string]string
}

const fourHosts = "spec:\n  hosts:\n  - {ips: [10.0.0.1, 10.0.0.2], roles: [master]}\n  - {ips: [10.0.0.3, 10.0.0.4], roles: [node]}\n"

// lasting is the distribution with certificates that are good for a year.
type lasting struct{ distribution }

func (lasting) Certificates(context.Context, *runtime.Cluster, *runtime.Host) ([]runtime.Certificate, error) {
	return []runtime.Certificate{{Name: "apiserver", NotAfter: time.Now().AddDate(1, 0, 0)}}, nil
}

// newUpgradeBed has run the image of v1.36.3; its nodes report what they are told here.
func newUpgradeBed(t *testing.T, to string) *upgradeBed {
	t.Helper()
	u := &upgradeBed{bed: newBed(t, fourHosts), nodes: map[string]*fakeNode{}}
	for i := range 4 {
		u.nodes[fmt.Sprintf("h%d", i+1)] = &fakeNode{Version: "v1.36.3", Ready: true, Annotations: map[string]string{}}
	}
	for _, m := range u.bed.opts.Clusterfile.Machines() {
		u.wire(u.hosts[m.String()])
	}
	require.NoError(t, u.run(t))
	u.opts = cluster.UpgradeOptions{RunOptions: u.bed.opts}
	u.opts.Distributions = runtime.Distributions{"fake": lasting{}}
	u.opts.Image, u.opts.ImageName = imageOf(t, u.bed.opts.Content.(content.Store), to), "registry.example.com/app:v2"
	u.log = nil
	return u
}

// imageOf is an image of a version of Kubernetes.
func imageOf(t *testing.T, cs content.Store, version string) *clusterimage.Image {
	t.Helper()
	amd64 := ocispec.Platform{OS: "linux", Architecture: "amd64"}
	config := ocispec.Image{Platform: amd64}
	ext := clusterimage.Extension{Type: clusterimage.KubeInstaller, Launch: clusterimage.Launch{Cmds: []string{"kubectl apply -f manifests"}}}
	config.Config.Labels = map[string]string{clusterimage.LabelClusterRuntime: "fake", clusterimage.LabelExtension: string(ext.Marshal())}
	rootfs := putImage(t, cs, config, "rootfs of "+version)
	rootfs.Platform = &amd64
	var packed []clusterimage.PackedImage
	for _, name := range []string{"registry.k8s.io/kube-apiserver:" + version, "docker.io/library/nginx:1.27"} {
		packed = append(packed, clusterimage.PackedImage{
			Name: name, Platform: "linux/amd64", Manifest: putImage(t, cs, ocispec.Image{Platform: amd64}, "layer of "+name), Size: 1000,
		})
	}
	desc, err := clusterimage.Compose(t.Context(), cs, clusterimage.Composition{Rootfs: []ocispec.Descriptor{rootfs}, Images: packed})
	require.NoError(t, err)
	img, err := clusterimage.Read(t.Context(), cs, desc)
	require.NoError(t, err)
	return img
}

// wire gives a host the part of the cluster that upgrades ask for and change.
func (u *upgradeBed) wire(h *fakeHost) {
	name := "h" + strings.TrimPrefix(h.String(), "10.0.0.")
	did := func(do func(c hosttest.Call)) hosttest.Answer {
		return hosttest.Answer{Do: func(_ context.Context, c hosttest.Call) hosttest.Answer {
			u.mu.Lock()
			defer u.mu.Unlock()
			entry := name + ": " + strings.Join(c.Argv, " ")
			u.log = append(u.log, entry)
			if u.fail != "" && strings.Contains(entry, u.fail) {
				u.fail = ""
				return hosttest.Answer{Stderr: "it fails", Code: 1}
			}
			do(c)
			return hosttest.Answer{}
		}}
	}
	h.On("^kubectl get nodes", hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
		u.mu.Lock()
		defer u.mu.Unlock()
		return hosttest.Answer{Stdout: u.nodesJSON()}
	}})
	h.On("^kubectl annotate node", did(func(c hosttest.Call) {
		key, value, set := strings.Cut(c.Argv[4], "=")
		if set {
			u.nodes[c.Argv[3]].Annotations[key] = value
			return
		}
		delete(u.nodes[c.Argv[3]].Annotations, strings.TrimSuffix(key, "-"))
	}))
	h.On("^kubectl drain", did(func(hosttest.Call) {}))
	h.On("^kubectl cordon", did(func(c hosttest.Call) { u.nodes[c.Argv[2]].Unschedulable = true }))
	h.On("^kubectl uncordon", did(func(c hosttest.Call) { u.nodes[c.Argv[2]].Unschedulable = false }))
	h.On("^dist .*upgrade-running|^dist .*snapshot", did(func(hosttest.Call) {}))
	h.On("^dist upgrade-drained", did(func(hosttest.Call) { u.nodes[name].Version = "v1.37.1" }))
	h.On("content prune|rootfs remove|registry publish|content share", hosttest.Answer{Do: func(_ context.Context, c hosttest.Call) hosttest.Answer {
		u.mu.Lock()
		u.log = append(u.log, name+": sealer-node "+strings.Join(c.Argv[1:3], " "))
		u.mu.Unlock()
		return hosttest.Answer{}
	}})
}

func (u *upgradeBed) nodesJSON() string {
	type object = map[string]any
	var items []object
	for _, name := range []string{"h1", "h2", "h3", "h4", "other"} {
		n := u.nodes[name]
		if n == nil {
			continue
		}
		status := map[bool]string{true: "True", false: "False"}[n.Ready]
		items = append(items, object{
			"metadata": object{"name": name, "annotations": n.Annotations}, "spec": object{"unschedulable": n.Unschedulable},
			"status": object{"conditions": []object{{"type": "Ready", "status": status, "message": "it is off"}}, "nodeInfo": object{"kubeletVersion": n.Version}},
		})
	}
	text, err := json.Marshal(object{"items": items})
	if err != nil {
		panic(err)
	}
	return string(text)
}

func (u *upgradeBed) upgrade(t *testing.T) error {
	t.Helper()
	u.out.Reset()
	u.log = nil
	return cluster.Upgrade(t.Context(), u.opts)
}

// nodesDone are the nodes that were drained, and those that were given pods again.
func (u *upgradeBed) of(verb string) []string {
	var list []string
	for _, entry := range u.log {
		if _, args, ok := strings.Cut(entry, ": "+verb+" "); ok {
			list = append(list, strings.Fields(args)[0])
		}
	}
	return list
}

// plain is the log without what changes from run to run.
func (u *upgradeBed) plain() string {
	var b strings.Builder
	for _, entry := range u.log {
		if i := strings.Index(entry, cluster.SnapshotDir); i >= 0 {
			entry = entry[:i] + cluster.SnapshotDir + "/FILE"
		}
		b.WriteString(entry + "\n")
	}
	return b.String()
}

func TestUpgrade(t *testing.T) {
	u := newUpgradeBed(t, "v1.37.1")
	u.opts.Batch, u.opts.DryRun = "1", true
	require.NoError(t, u.upgrade(t))
	require.Empty(t, u.log, "a dry run changes nothing")
	text := u.out.String()
	i := strings.Index(text, "/before-v1.37.1-")
	require.Positive(t, i)
	golden(t, "testdata/upgrade-plan.txt", strings.ReplaceAll(text, text[i:i+len("/before-v1.37.1-20060102T150405Z.db")], "/FILE"))

	u.opts.DryRun = false
	asked := 0
	u.opts.Confirm = func(plan string) error {
		asked++
		require.Contains(t, plan, "draining the node")
		return nil
	}
	require.NoError(t, u.upgrade(t))
	require.Equal(t, 1, asked)
	require.Contains(t, u.out.String(), `cluster "prod" runs v1.37.1 on 4 hosts`)
	require.Contains(t, u.out.String(), "10.0.0.1:/var/lib/sealer/snapshots/before-v1.37.1-")
	// What goes on at once may be told in any order.
	lines := strings.SplitAfter(u.plain(), "\n")
	begun := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "upgrade-running") })
	ended := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "rootfs remove") })
	slices.Sort(lines[:begun])
	slices.Sort(lines[ended:])
	golden(t, "testdata/upgrade-log.txt", strings.Join(lines, ""))
	for name, n := range u.nodes {
		require.False(t, n.Unschedulable, name)
		require.Empty(t, n.Annotations, name)
	}

	require.NoError(t, u.upgrade(t))
	require.Contains(t, u.out.String(), "nothing to do")
	require.Empty(t, u.log)
	require.Equal(t, 1, asked)
}

// Whatever step fails, the same call goes on from there: nothing is done twice to a node that is through, and the data
// is saved once.
func TestUpgrade_Continues(t *testing.T) {
	for _, fail := range []string{
		"dist snapshot", "h1: dist upgrade-running", "drain h1", "h1: dist upgrade-drained", "h3: dist upgrade-running", "drain h4",
	} {
		t.Run(fail, func(t *testing.T) {
			u := newUpgradeBed(t, "v1.37.1")
			u.opts.Batch, u.fail = "1", fail
			err := u.upgrade(t)
			require.Error(t, err)
			first := u.log
			if fail != "dist snapshot" {
				require.ErrorContains(t, err, "/var/lib/sealer/snapshots/before-v1.37.1-")
			}
			through := u.of("kubectl uncordon")
			require.NoError(t, u.upgrade(t))
			for _, node := range through {
				if !strings.HasSuffix(fail, node) {
					require.NotContains(t, u.of("kubectl drain"), node, "it was through")
				}
			}
			saved := 0
			for _, entry := range append(first, u.log...) {
				if strings.Contains(entry, "dist snapshot") {
					saved++
				}
			}
			require.Equal(t, map[bool]int{false: 1, true: 2}[fail == "dist snapshot"], saved)
			for name, n := range u.nodes {
				require.Equal(t, "v1.37.1", n.Version, name)
				require.False(t, n.Unschedulable, name)
				require.Empty(t, n.Annotations, name)
			}
			require.NoError(t, u.upgrade(t))
			require.Contains(t, u.out.String(), "nothing to do")
		})
	}
}

// keyless is the distribution that cannot tell whether its data is saved.
type keyless struct{ lasting }

func (d keyless) Snapshot(c *runtime.Cluster, h *runtime.Host, file string) []runtime.Step {
	steps := d.lasting.Snapshot(c, h, file)
	for i := range steps {
		steps[i].Name, steps[i].Key, steps[i].Done = "saving", "", nil
	}
	return steps
}

// What was saved before the upgrade is not saved over when it goes on.
func TestUpgrade_SavesOnce(t *testing.T) {
	for _, fail := range []string{"h1: dist upgrade-running", "h1: dist upgrade-drained", "h2: dist upgrade-running"} {
		u := newUpgradeBed(t, "v1.37.1")
		u.opts.Distributions = runtime.Distributions{"fake": keyless{}}
		u.fail = fail
		require.ErrorContains(t, u.upgrade(t), "/var/lib/sealer/snapshots/before-v1.37.1-")
		require.Contains(t, strings.Join(u.log, "\n"), "dist snapshot")
		require.NoError(t, u.upgrade(t))
		require.NotContains(t, strings.Join(u.log, "\n"), "dist snapshot", fail)
		require.Contains(t, u.out.String(), "its data from before the upgrade is in 10.0.0.1:/var/lib/sealer/snapshots/before-v1.37.1-")
	}
}

// An API server that is only being started anew is waited for.
func TestUpgrade_AsksAgain(t *testing.T) {
	for _, fail := range []string{"annotate node h1", "uncordon h2", "cordoned-by-upgrade-"} {
		t.Run(fail, func(t *testing.T) {
			u := newUpgradeBed(t, "v1.37.1")
			u.fail = fail
			require.NoError(t, u.upgrade(t))
			require.Empty(t, u.fail)
			for name, n := range u.nodes {
				require.False(t, n.Unschedulable, name)
				require.Empty(t, n.Annotations, name)
			}
		})
	}
}

// Where an upgrade was cut while the API servers were being replaced, its continuation waits for one.
func TestUpgrade_WaitsForWhatItHasStarted(t *testing.T) {
	u := newUpgradeBed(t, "v1.37.1")
	silent := func(times int) {
		for _, h := range u.hosts {
			h.On("get --raw /readyz", hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
				u.mu.Lock()
				defer u.mu.Unlock()
				times--
				return hosttest.Answer{Code: map[bool]int{true: 1}[times >= 0]}
			}})
		}
	}
	silent(1000)
	require.ErrorContains(t, u.upgrade(t), "no control plane of the cluster", "nothing is under way")
	require.Empty(t, u.log)
	silent(0)
	u.fail = "h1: dist upgrade-running"
	require.Error(t, u.upgrade(t))
	silent(10)
	require.NoError(t, u.upgrade(t))
	require.Contains(t, u.out.String(), "runs v1.37.1 on 4 hosts")
}

func TestUpgrade_Pauses(t *testing.T) {
	u := newUpgradeBed(t, "v1.37.1")
	u.opts.PauseAfter = 3
	require.NoError(t, u.upgrade(t))
	require.Contains(t, u.out.String(), "3 nodes upgraded to v1.37.1, 1 to go")
	require.Equal(t, "v1.36.3", u.nodes["h4"].Version)
	require.NotContains(t, strings.Join(u.log, "\n"), "prune")
	require.NoError(t, u.upgrade(t))
	require.Equal(t, []string{"h4"}, u.of("kubectl drain"))
	require.Contains(t, u.out.String(), "runs v1.37.1 on 4 hosts")
}

// A node that its owner keeps pods off stays so.
func TestUpgrade_LeavesCordons(t *testing.T) {
	u := newUpgradeBed(t, "v1.37.1")
	u.nodes["h3"].Unschedulable = true
	require.NoError(t, u.upgrade(t))
	require.Equal(t, "v1.37.1", u.nodes["h3"].Version)
	require.True(t, u.nodes["h3"].Unschedulable)
}

// picky is the distribution that takes no image.
type picky struct{ lasting }

func (picky) Check(*runtime.Cluster) []runtime.Problem {
	return []runtime.Problem{{Check: "version", What: "this version is not known", Fix: "use another"}}
}

// What is wrong with the image, and with the way to it, is told together.
func TestUpgrade_RefusedForAllReasons(t *testing.T) {
	u := newUpgradeBed(t, "v1.38.0")
	u.opts.Distributions = runtime.Distributions{"fake": picky{}}
	err := u.upgrade(t)
	require.ErrorContains(t, err, "this version is not known")
	require.ErrorContains(t, err, "2 minor versions on")
	u = newUpgradeBed(t, "v1.37.1")
	u.opts.Distributions = runtime.Distributions{"fake": picky{}}
	require.ErrorContains(t, u.upgrade(t), "this version is not known")
	require.Empty(t, u.log)
}

func TestUpgrade_Refused(t *testing.T) {
	for name, c := range map[string]struct {
		to          string
		setup       func(u *upgradeBed)
		want, wants string // in the error, in the hint
	}{
		"two minor versions": {"v1.38.0", nil, "2 minor versions on", "first to an image of v1.37"},
		"an older minor":     {"v1.35.9", nil, "newer than v1.35.9", "sealer etcd restore"},
		"an older patch":     {"v1.36.1", nil, "newer than v1.36.1", "sealer rollback"},
		"back over a minor":  {"v1.35.9", func(u *upgradeBed) { u.opts.Back = true }, "newer than v1.35.9", "sealer etcd restore"},
		"back to a newer":    {"v1.37.1", func(u *upgradeBed) { u.opts.Back = true }, "no way back", "sealer upgrade"},
		"a node left out, and far behind": {"v1.37.1", func(u *upgradeBed) {
			u.nodes["h4"].Version, u.opts.Skip = "v1.33.9", []string{"10.0.0.4", "h4"}
		}, "h4: it runs v1.33.9, and v1.37.1 of the image is 4 minor versions on", "first to an image of v1.34"},
		"no version":                {"v1.37.1", func(u *upgradeBed) { u.nodes["h4"].Version = "a fork" }, `"a fork" of the node and "v1.37.1" of the image cannot be compared`, "says its version"},
		"back from a third version": {"v1.36.1", func(u *upgradeBed) { u.opts.Back, u.nodes["h4"].Version = true, "v1.35.2" }, "that is no way back", "sealer upgrade"},
		"a third version":           {"v1.37.1", func(u *upgradeBed) { u.nodes["h4"].Version = "v1.35.2" }, "10.0.0.4: it runs v1.35.2", "first to an image of v1.36"},
		"a node is off":             {"v1.37.1", func(u *upgradeBed) { u.nodes["h4"].Ready = false }, "10.0.0.4: its node is not Ready: it is off", "--skip 10.0.0.4"},
		"no node":                   {"v1.37.1", func(u *upgradeBed) { delete(u.nodes, "h4") }, "10.0.0.4: it is no node of the cluster", "join"},
		"an unknown node":           {"v1.37.1", func(u *upgradeBed) { u.nodes["other"] = &fakeNode{Version: "v1.36.3", Ready: true} }, "the node other is none", "--skip other"},
		"a skipped control plane":   {"v1.37.1", func(u *upgradeBed) { u.opts.Skip = []string{"10.0.0.2"} }, "cannot be left out", "sealer delete --masters 10.0.0.2"},
		"a batch that is none":      {"v1.37.1", func(u *upgradeBed) { u.opts.Batch = "half" }, `"half" is no number`, "10%"},
		"a certificate ends": {"v1.37.1", func(u *upgradeBed) {
			u.opts.Distributions = u.bed.opts.Distributions
			u.hosts["10.0.0.1"].On("^dist certificates", hosttest.Answer{Stdout: "ended.crt\n"})
		}, "valid until 1970", "sealer cert renew"},
		"another cluster": {"v1.37.1", func(u *upgradeBed) {
			u.hosts["10.0.0.3"].Put(runtime.StateFile, `{"schemaVersion":"v1","cluster":"test","role":"node","runtime":"fake"}`, 0o644)
		}, `belongs to the cluster "test"`, "sealer delete"},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUpgradeBed(t, c.to)
			if c.setup != nil {
				c.setup(u)
			}
			err := u.upgrade(t)
			require.ErrorContains(t, err, c.want)
			var hint interface{ Hint() string }
			require.ErrorAs(t, err, &hint)
			require.Contains(t, hint.Hint(), c.wants)
			require.Empty(t, u.log, "nothing was changed")
		})
	}
}

// Workers that are left out, and nodes of others, may be a little behind.
func TestUpgrade_Skips(t *testing.T) {
	u := newUpgradeBed(t, "v1.37.1")
	u.nodes["h4"].Ready = false
	u.nodes["other"] = &fakeNode{Version: "v1.34.0"}
	u.opts.Skip = []string{"10.0.0.4", "h4", "other"}
	require.NoError(t, u.upgrade(t))
	require.Equal(t, []string{"h1", "h2", "h3"}, u.of("kubectl drain"))
}

func TestRollback_WithinAMinorVersion(t *testing.T) {
	u := newUpgradeBed(t, "v1.36.1")
	u.opts.Back = true
	for _, h := range u.hosts {
		name := "h" + strings.TrimPrefix(h.String(), "10.0.0.")
		h.On("^dist upgrade-drained", hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.nodes[name].Version = "v1.36.1"
			return hosttest.Answer{}
		}})
	}
	require.NoError(t, u.upgrade(t))
	require.Contains(t, u.out.String(), "runs v1.36.1 on 4 hosts")
}

// The Clusterfile's scripts for an upgrade are run once for each, on the cluster and on every host.
func TestUpgrade_Plugins(t *testing.T) {
	u := newUpgradeBed(t, "v1.36.4")
	u.opts.Clusterfile.Plugins = []clusterfile.Plugin{
		{Name: "a", Type: clusterfile.Shell, Phases: []clusterfile.Phase{clusterfile.OnUpgrade, clusterfile.OnUpgradeHost}, Data: "a"},
		{Name: "b", Type: clusterfile.Shell, Phases: []clusterfile.Phase{clusterfile.OnRollback}, Data: "b"},
	}
	scripts := func() int {
		n := 0
		for _, h := range u.hosts {
			for _, c := range h.Calls() {
				if strings.Contains(c.String(), "exec bash") {
					n++
				}
			}
		}
		return n
	}
	for _, h := range u.hosts {
		name := "h" + strings.TrimPrefix(h.String(), "10.0.0.")
		h.On("^dist upgrade-drained", hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.nodes[name].Version = "v1.36.4"
			return hosttest.Answer{}
		}})
	}
	require.NoError(t, u.upgrade(t))
	require.Equal(t, 5, scripts(), "one for each host, and one for the cluster")
	require.NoError(t, u.upgrade(t))
	require.Equal(t, 5, scripts())
}
