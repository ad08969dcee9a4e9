// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime"
)

// adjustable is a distribution whose settings can be changed, but for its networks.
type adjustable struct{ lasting }

func (adjustable) Fixed(path ...string) string {
	if len(path) > 1 && path[1] == "networking" {
		return "addresses were given out by it"
	}
	return ""
}

func (adjustable) Adjust(_ *runtime.Cluster, h *runtime.Host, paths [][]string) []runtime.Step {
	var list []string
	for _, p := range paths {
		list = append(list, strings.Join(p, "."))
	}
	return verb(h, "adjust "+strings.Join(list, ","))
}

// world is a bed whose hosts share one cluster: its nodes come, change and go as they are told.
type world struct {
	*bed
	t    *testing.T
	opts cluster.ApplyOptions
	plan *cluster.ApplyPlan

	mu    sync.Mutex
	nodes map[string]*worldNode
	log   []string // what was done, in order
	fail  string   // the entry of log that fails, once
}

type worldNode struct {
	Version     string
	Labels      map[string]string
	Taints      map[string]string // key:effect → value
	Off         bool
	Annotations map[string]string
}

func newWorld(t *testing.T, text string) *world {
	t.Helper()
	w := &world{bed: newBed(t, text), t: t, nodes: map[string]*worldNode{}}
	w.opts = cluster.ApplyOptions{RunOptions: w.bed.opts}
	w.opts.Distributions = runtime.Distributions{"fake": adjustable{}}
	w.opts.Show = func(p *cluster.ApplyPlan) error { w.plan = p; return nil }
	w.opts.FindImage = func(_ context.Context, digest, name string) (*clusterimage.Image, string, error) {
		require.Equal(t, w.bed.opts.Image.Descriptor.Digest.String(), digest)
		return w.bed.opts.Image, name, nil
	}
	for name := range w.hosts {
		delete(w.hosts, name)
	}
	w.want(text)
	return w
}

// want is the Clusterfile that is applied next.
func (w *world) want(text string) {
	w.t.Helper()
	f, err := clusterfile.Parse("Clusterfile", []byte("apiVersion: sealer.io/v2\nkind: Cluster\nmetadata: {name: prod}\n"+text))
	require.NoError(w.t, err)
	w.opts.Clusterfile = f
	for _, m := range f.Machines() {
		if w.hosts[m.String()] == nil {
			w.hosts[m.String()] = newFakeHost(m, nameOf(m.Address))
			w.wire(w.hosts[m.String()])
		}
	}
}

func nameOf(address string) string {
	if i := strings.LastIndexByte(address, '.'); i >= 0 {
		return "h" + address[i+1:]
	}
	return "h1" // this machine
}

func (w *world) apply() error {
	w.t.Helper()
	w.out.Reset()
	w.log, w.plan = nil, nil
	return cluster.Apply(w.t.Context(), w.opts)
}

// wire gives a host its part of the cluster.
func (w *world) wire(h *fakeHost) {
	name := nameOf(h.String())
	w.api.answer(h)
	did := func(do func(args []string)) hosttest.Answer {
		return hosttest.Answer{Do: func(_ context.Context, c hosttest.Call) hosttest.Answer {
			w.mu.Lock()
			defer w.mu.Unlock()
			entry := name + ": " + strings.Join(c.Argv, " ")
			w.log = append(w.log, entry)
			if w.fail != "" && strings.Contains(entry, w.fail) {
				w.fail = ""
				return hosttest.Answer{Stderr: "it fails", Code: 1}
			}
			do(c.Argv)
			return hosttest.Answer{}
		}}
	}
	start := func([]string) {
		if w.nodes[name] == nil {
			w.nodes[name] = &worldNode{Version: "v1.36.3", Labels: map[string]string{"mine": "yes"}, Taints: map[string]string{}, Annotations: map[string]string{}}
		}
	}
	h.On("^dist ", did(func([]string) {}))
	h.On("^dist init|^dist join", did(start))
	h.On("^dist forget", did(func(a []string) { delete(w.nodes, a[2]) }))
	h.On("^dist upgrade-drained", did(func([]string) { w.nodes[name].Version = "v1.37.1" }))
	h.On("^dist healthy$", hosttest.Answer{})
	h.On("^kubectl drain", did(func([]string) {}))
	h.On("^kubectl cordon", did(func(a []string) { w.nodes[a[2]].Off = true }))
	h.On("^kubectl uncordon", did(func(a []string) { w.nodes[a[2]].Off = false }))
	h.On("^kubectl annotate node", did(func(a []string) { change(w.nodes[a[3]].Annotations, a[4:]) }))
	h.On("^kubectl label node", did(func(a []string) { change(w.nodes[a[3]].Labels, a[5:]) }))
	h.On("^kubectl taint node", did(func(a []string) {
		for _, text := range a[5:] {
			taint, err := clusterfile.ParseTaint(text)
			require.NoError(w.t, err)
			key := taint.Key + ":" + taint.Effect
			if delete(w.nodes[a[3]].Taints, key); !taint.Remove {
				w.nodes[a[3]].Taints[key] = taint.Value
			}
		}
	}))
	h.On("^kubectl get nodes", hosttest.Answer{Do: func(context.Context, hosttest.Call) hosttest.Answer {
		w.mu.Lock()
		defer w.mu.Unlock()
		var items []any
		for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
			items = append(items, w.object(name))
		}
		return answerJSON(map[string]any{"items": items})
	}})
	h.On("^kubectl get node h", hosttest.Answer{Do: func(_ context.Context, c hosttest.Call) hosttest.Answer {
		w.mu.Lock()
		defer w.mu.Unlock()
		return answerJSON(w.object(c.Argv[3]))
	}})
}

func change(m map[string]string, words []string) {
	for _, word := range words {
		if key, value, set := strings.Cut(word, "="); set {
			m[key] = value
		} else if key, off := strings.CutSuffix(word, "-"); off && !strings.HasPrefix(word, "--") {
			delete(m, key)
		}
	}
}

func answerJSON(v any) hosttest.Answer {
	data, err := json.Marshal(v)
	return hosttest.Answer{Stdout: string(data), Err: err}
}

func (w *world) object(name string) any {
	type object = map[string]any
	n := w.nodes[name]
	var taints []object
	for _, key := range slices.Sorted(maps.Keys(n.Taints)) {
		k, effect, _ := strings.Cut(key, ":")
		taints = append(taints, object{"key": k, "value": n.Taints[key], "effect": effect})
	}
	return object{
		"metadata": object{"name": name, "labels": n.Labels, "annotations": n.Annotations}, "spec": object{"unschedulable": n.Off, "taints": taints},
		"status": object{
			"conditions": []object{{"type": "Ready", "status": "True"}}, "nodeInfo": object{"kubeletVersion": n.Version},
			"addresses": []object{{"type": "InternalIP", "address": "10.0.0." + strings.TrimPrefix(name, "h")}},
		},
	}
}

// touched tells whether anything was changed on any host since before.
func (w *world) touched(before func() map[string]string) []string {
	var all []string
	for name, lines := range before() {
		for line := range strings.SplitSeq(lines, "\n") {
			if line != "" {
				all = append(all, name+": "+line)
			}
		}
	}
	return all
}

const small = `spec:
  env: [PLACE=here]
  hosts:
  - {ips: [10.0.0.1], roles: [master]}
  - {ips: [10.0.0.3, 10.0.0.4], roles: [node, db], labels: {zone: a}, taints: ["gpu=yes:NoSchedule"]}
`

const smallConfig = `---
apiVersion: sealer.io/v1
kind: Config
metadata: {name: c}
spec: {path: etc/x.yaml, data: "v: 1\n"}
`

const kubelet = "---\napiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: %d\n"

// Each row is a cluster and what it is to be: the plan, what was done for it in order, and then there is nothing to do.
func TestApply(t *testing.T) {
	hosts := func(masters, nodes string) string {
		text := "spec:\n  env: [PLACE=here]\n  hosts:\n  - {ips: [" + masters + "], roles: [master]}\n"
		if nodes != "" {
			text += "  - {ips: [" + nodes + "], roles: [node, db], labels: {zone: a}, taints: [\"gpu=yes:NoSchedule\"]}\n"
		}
		return text
	}
	for _, test := range []struct {
		name, from, to string
		image          string // the version that it is upgraded to
		drift          func(*world)
	}{
		{name: "nothing", from: small, to: small},
		{name: "labels", from: small, to: strings.Replace(small, "labels: {zone: a}, taints: [\"gpu=yes:NoSchedule\"]", "labels: {zone: b, rack: r1}, taints: [\"ssd=yes:NoExecute\", \"gpu:NoSchedule-\"]", 1)},
		{name: "labels-go", from: small, to: strings.Replace(small, "[node, db], labels: {zone: a}, taints: [\"gpu=yes:NoSchedule\"]", "[node]", 1)},
		{name: "drift", from: small, to: small, drift: func(w *world) {
			delete(w.nodes["h3"].Labels, "zone")
			w.nodes["h4"].Labels["zone"] = "z"
			clear(w.nodes["h3"].Taints)
		}},
		{name: "worker-comes", from: small, to: hosts("10.0.0.1", "10.0.0.3, 10.0.0.4, 10.0.0.5")},
		{name: "worker-goes", from: small, to: hosts("10.0.0.1", "10.0.0.3")},
		{name: "control-plane-replaced", from: small, to: hosts("10.0.0.2", "10.0.0.3, 10.0.0.4")},
		{name: "all-at-once", from: small, to: hosts("10.0.0.1, 10.0.0.2", "10.0.0.3, 10.0.0.5"), image: "v1.37.1"},
		{name: "upgrade", from: small, to: small, image: "v1.37.1"},
		{name: "config", from: small + smallConfig, to: small + strings.Replace(smallConfig, "v: 1", "v: 2", 1)},
		{name: "config-goes", from: small + smallConfig, to: small},
		{name: "env", from: small, to: strings.Replace(small, "PLACE=here", "PLACE=there, MORE=1", 1)},
		{name: "env-names", from: small, to: strings.Replace(small, "PLACE=here", "PLACE=here, CertSANs=a.example.com", 1)},
		{name: "setting", from: small, to: small + fmt.Sprintf(kubelet, 200)},
		{name: "setting-changes", from: small + fmt.Sprintf(kubelet, 200), to: small + fmt.Sprintf(kubelet, 250)},
		{name: "registry", from: small, to: strings.Replace(small, "  env:", "  registry: {localRegistry: {domain: hub.example.com, port: 5443}}\n  env:", 1)},
		{name: "registry-external", from: small, to: strings.Replace(small, "  env:", elsewhereRegistry+"  env:", 1)},
		{name: "registry-back", from: strings.Replace(small, "  env:", elsewhereRegistry+"  env:", 1), to: small},
		{name: "registry-other", from: strings.Replace(small, "  env:", elsewhereRegistry+"  env:", 1), to: strings.Replace(small, "  env:", strings.Replace(elsewhereRegistry, "mirror", "other", 1)+"  env:", 1)},
		{name: "registry-login", from: strings.Replace(small, "  env:", elsewhereRegistry+"  env:", 1), to: strings.Replace(small, "  env:", strings.Replace(elsewhereRegistry, "robot", "team", 1)+"  env:", 1)},
		{name: "registry-own-login", from: small, to: strings.Replace(small, "  env:", "  registry: {localRegistry: {username: team, password: very-new}}\n  env:", 1)},
		{name: "registry-own-login-upgrade", from: small, to: strings.Replace(small, "  env:", "  registry: {localRegistry: {username: team, password: very-new}}\n  env:", 1), image: "v1.37.1"},
		{name: "cmd", from: small, to: strings.Replace(small, "  env:", "  cmd: [echo other]\n  env:", 1)},
		{name: "plugin", from: small, to: small + "---\napiVersion: sealer.io/v1\nkind: Plugin\nmetadata: {name: p}\nspec: {type: SHELL, action: post-install, data: \"echo p\"}\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, test.from)
			w.opts.Pusher = &pusher{}
			for _, h := range w.hosts {
				h.On("registry push --to hub.corp.example --prefix mirror$", hosttest.Answer{Stdout: `{"images":3,"others":1}`})
			}
			require.NoError(t, w.apply())
			require.Equal(t, "cluster \"prod\" is as the Clusterfile says, on 3 hosts\n", w.out.String())
			require.True(t, strings.HasPrefix(w.plan.String(), "cluster \"prod\" of registry.example.com/app:v1 (v1.36.3): 4 to add\n 1. making the cluster\n"), w.plan.String())
			if test.drift != nil {
				test.drift(w)
			}
			if test.image != "" {
				w.opts.Image, w.opts.ImageName = imageOf(t, w.bed.opts.Content.(content.Store), test.image), "registry.example.com/app:v2"
			}
			w.want(test.to)

			before := w.newly()
			w.opts.DryRun = true
			require.NoError(t, w.apply())
			planned := w.plan.String()
			require.Empty(t, w.touched(before), "a dry run changes nothing")
			w.opts.DryRun = false
			require.NoError(t, w.apply())
			require.Equal(t, planned, w.plan.String())
			log := slices.Clone(w.log)
			for i, line := range log {
				if folder, _, ok := strings.Cut(line, "/before-"); ok {
					log[i] = folder + "/FILE"
				}
			}
			golden(t, "testdata/apply/"+test.name+".txt", planned+strings.Join(inAnyOrder(log), "\n")+"\n")

			before = w.newly()
			require.NoError(t, w.apply())
			require.Contains(t, w.plan.String(), ": nothing to do\n")
			require.Empty(t, w.plan.Stages)
			require.Empty(t, w.touched(before), "what is as it should be is not touched")
			for name, n := range w.nodes {
				require.Equal(t, "yes", n.Labels["mine"], "%s: labels of others stay", name)
				require.False(t, n.Off, name)
			}
		})
	}
}

// inAnyOrder sorts what is done on several hosts at once: neighbours of the same words.
func inAnyOrder(log []string) []string {
	verb := func(line string) string {
		_, command, _ := strings.Cut(line, ": ")
		command = strings.Replace(command, "kubectl taint", "kubectl label", 1)
		fields := strings.Fields(command)
		return strings.Join(fields[:min(2, len(fields))], " ")
	}
	for i := 0; i < len(log); {
		j := i + 1
		for j < len(log) && verb(log[j]) == verb(log[i]) {
			j++
		}
		slices.Sort(log[i:j])
		i = j
	}
	return log
}

// What a cluster that runs cannot do is refused, all of it at once, and nothing is touched.
func TestApply_Refuses(t *testing.T) {
	w := newWorld(t, small)
	require.NoError(t, w.apply())
	before := w.newly()

	w.want(strings.Replace(small, "PLACE=here", "PodCIDR=10.9.0.0/16", 1) +
		"---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nnetworking: {podSubnet: 10.9.0.0/16}\n")
	err := w.apply()
	var refused *cluster.RefusedError
	require.ErrorAs(t, err, &refused)
	require.EqualError(t, err, "the cluster \"prod\" runs, and this cannot be changed any more; nothing was touched:\n"+
		"  env PodCIDR: addresses were given out by it\n"+
		"  ClusterConfiguration.networking.podSubnet: addresses were given out by it")
	require.NotEmpty(t, refused.Hint())

	w.want("spec:\n  hosts:\n  - {ips: [10.0.0.1, 10.0.0.3], roles: [master]}\n  - {ips: [10.0.0.4], roles: [node]}\n")
	var role *cluster.RoleError
	require.ErrorAs(t, w.apply(), &role)

	w.want(strings.Replace(small, "10.0.0.3, 10.0.0.4", "10.0.0.3", 1))
	w.hosts["10.0.0.4"].unreachable = errors.New("no route to host")
	var gone *cluster.GoneError
	require.ErrorAs(t, w.apply(), &gone)
	w.hosts["10.0.0.4"].unreachable = nil

	w.want("spec: {image: x}\n")
	var local *cluster.LocalError
	require.ErrorAs(t, w.apply(), &local)
	w.want(strings.Replace(small, "10.0.0.4", "10.0.0.9", 1))
	w.hosts["10.0.0.9"].unreachable = errors.New("no route to host")
	require.ErrorContains(t, w.apply(), "nothing was changed", "a host that is to join must answer")
	w.want(small)
	w.hosts["10.0.0.1"].On("^kubectl get --raw /readyz", hosttest.Answer{Code: 1, Times: 2})
	var contact *cluster.NoContactError
	require.ErrorAs(t, w.apply(), &contact)
	require.Empty(t, w.touched(before))
}

// Wherever it is cut, the same call goes on, and at the end there is nothing to do.
func TestApply_Continues(t *testing.T) {
	to := strings.NewReplacer("10.0.0.3, 10.0.0.4", "10.0.0.3, 10.0.0.5", "zone: a", "zone: b", "[10.0.0.1]", "[10.0.0.2]").Replace(small) + fmt.Sprintf(kubelet, 200)
	for _, at := range []string{
		"h1: dist adjust", "h3: dist adjust", "h2: dist join", "h5: dist join", "label node h3", "dist leave h4", "h4: dist reset", "dist forget h4",
		"dist leave h1", "dist forget h1",
	} {
		t.Run(at, func(t *testing.T) {
			w := newWorld(t, small)
			require.NoError(t, w.apply())
			w.want(to)
			w.fail = at
			require.ErrorContains(t, w.apply(), "it fails")
			require.Empty(t, w.fail, "it has come so far")
			require.NoError(t, w.apply())
			require.Equal(t, []string{"h2", "h3", "h5"}, slices.Sorted(maps.Keys(w.nodes)))
			require.Equal(t, "b", w.nodes["h3"].Labels["zone"])
			require.NoError(t, w.apply())
			require.True(t, w.plan.Nothing(), w.plan.String())
			require.Equal(t, []string{"10.0.0.2", "10.0.0.3", "10.0.0.5"}, w.kept(t))
		})
	}
}

// An upgrade by apply that was cut is continued as what it is, and nothing is installed from the new image beside it.
func TestApply_ContinuesUpgrade(t *testing.T) {
	for _, at := range []string{"h1: dist upgrade-running", "h1: kubectl drain", "h1: dist upgrade-drained", "h3: dist upgrade-drained", "snapshot"} {
		t.Run(at, func(t *testing.T) {
			w := newWorld(t, small)
			require.NoError(t, w.apply())
			w.opts.Image, w.opts.ImageName = imageOf(t, w.bed.opts.Content.(content.Store), "v1.37.1"), "registry.example.com/app:v2"
			w.fail = at
			require.ErrorContains(t, w.apply(), "it fails")
			var upgrading *cluster.UpgradingError
			require.ErrorAs(t, w.run(t), &upgrading)
			require.Contains(t, upgrading.Hint(), "sealer upgrade registry.example.com/app:v2")
			w.log = nil
			require.NoError(t, w.apply())
			require.Contains(t, w.plan.String(), "the upgrade has not come to its end")
			require.Contains(t, w.log, "h4: dist upgrade-drained")
			for _, did := range w.log {
				require.NotContains(t, did, "dist install")
			}
			require.NoError(t, w.apply())
			require.True(t, w.plan.Nothing(), w.plan.String())
		})
	}
}

// A cluster is known to its own hosts: another machine may change it.
func TestApply_ElsewhereAndAsked(t *testing.T) {
	w := newWorld(t, small)
	require.NoError(t, w.apply())
	w.opts.StateDir = t.TempDir()
	w.opts.Image = nil // as the cluster runs it
	w.want(strings.Replace(small, "10.0.0.3, 10.0.0.4", "10.0.0.3", 1))
	w.opts.Confirm = func() error { return errors.New("no") }
	before := w.newly()
	require.EqualError(t, w.apply(), "no")
	require.Empty(t, w.touched(before))
	require.Equal(t, "cluster \"prod\" of registry.example.com/app:v1 (v1.36.3): 1 to remove\n 1. hosts that leave\n"+
		"    - 10.0.0.4: worker (its pods leave, and it is put back as it was before)\n", w.plan.String())

	// Meanwhile someone else does it.
	w.opts.Confirm = func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.nodes["h3"].Labels["zone"] = "c"
		return nil
	}
	var changed *cluster.ChangedError
	require.ErrorAs(t, w.apply(), &changed)
	w.opts.Confirm = func() error { return nil }
	require.NoError(t, w.apply())
	require.Equal(t, []string{"h1", "h3"}, slices.Sorted(maps.Keys(w.nodes)))

	data, err := json.Marshal(w.plan)
	require.NoError(t, err)
	require.True(t, bytes.Contains(data, []byte(`{"op":"remove","about":"host","host":"10.0.0.4","from":"worker"`)), string(data))
}

// Status finds the same differences, and says them in sentences.
func TestStatus_Drift(t *testing.T) {
	w := newWorld(t, small)
	require.NoError(t, w.apply())
	here := w.opts.Image
	var unreadable error
	status := func(desired bool) []string {
		t.Helper()
		v, err := cluster.Open(t.Context(), cluster.ViewOptions{
			Clusterfile: w.opts.Clusterfile, Dial: w.opts.Dial, Distributions: w.opts.Distributions, Desired: desired,
			FindImage: func(_ context.Context, digest, name string) (*clusterimage.Image, error) {
				require.True(t, (digest == "") == (name != ""), "by one of them")
				return here, unreadable
			},
		})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, v.Close()) })
		s, err := v.Status(t.Context())
		require.NoError(t, err)
		require.Empty(t, s.Unwell)
		switch {
		case !desired || here != nil && unreadable == nil:
			require.Empty(t, s.NotCompared)
		case unreadable != nil:
			require.Contains(t, s.NotCompared, "cannot be read on this machine: "+unreadable.Error())
		default:
			require.Contains(t, s.NotCompared, "is not on this machine (sealer pull registry.example.com/app:v1)")
		}
		return s.Drift
	}
	require.Empty(t, status(false))
	require.Empty(t, status(true))
	w.nodes["h3"].Labels["zone"] = "z"
	w.nodes["h4"].Version = "v1.35.1"
	clear(w.nodes["h4"].Taints)
	found := []string{
		"10.0.0.4: the version of the kubelet is v1.35.1, not v1.36.3", "10.0.0.3: the label zone is z, not a",
		"10.0.0.4: the taint gpu=yes:NoSchedule is missing",
	}
	require.Equal(t, found, status(false))
	require.Equal(t, found, status(true))

	w.want("spec:\n  image: registry.example.com/app:v9\n  registry: {localRegistry: {domain: hub.example.com}}\n  hosts:\n" +
		"  - {ips: [10.0.0.1], roles: [master]}\n  - {ips: [10.0.0.3, 10.0.0.5], roles: [node]}\n")
	require.Equal(t, []string{
		"10.0.0.5: it is in the Clusterfile, and nothing of the cluster is on it",
		"10.0.0.4: it is a host of the cluster, and the Clusterfile does not name it",
		"10.0.0.1: the image is registry.example.com/app:v1, not registry.example.com/app:v9",
		"10.0.0.3: the image is registry.example.com/app:v1, not registry.example.com/app:v9",
		"10.0.0.1: the registry is sea.hub:5000, not hub.example.com:5000",
		"the environment PLACE is there, and not in the Clusterfile",
		"10.0.0.3: the label node-role.kubernetes.io/db is there, and not in the Clusterfile",
		"10.0.0.3: the taint gpu=yes:NoSchedule is there, and not in the Clusterfile",
	}, slices.DeleteFunc(status(true), func(line string) bool { return strings.Contains(line, "none of the hosts") }))

	// Settings are compared where the image's own are known.
	w = newWorld(t, "spec: {env: [A=1, B=1]}\n")
	require.NoError(t, w.apply())
	here = w.opts.Image
	w.want("spec: {env: [A=2]}\n---\napiVersion: sealer.io/v1\nkind: Config\nmetadata: {name: c}\nspec: {path: etc/c, data: d}\n")
	require.Equal(t, []string{"the environment A is another", "the environment B is there, and not in the Clusterfile", "the Config c (etc/c) is missing"}, status(true))
	require.Empty(t, status(false))
	here = nil
	require.Empty(t, status(true))
	unreadable = errors.New("the store is broken")
	require.Empty(t, status(true))
}

// What an apply refuses differs all the same, and where nobody says what the cluster was made from, that is said.
func TestStatus_DriftAsApply(t *testing.T) {
	w := newWorld(t, small)
	require.NoError(t, w.apply())
	status := func() *cluster.Status {
		t.Helper()
		v, err := cluster.Open(t.Context(), cluster.ViewOptions{
			Clusterfile: w.opts.Clusterfile, Dial: w.opts.Dial, Distributions: w.opts.Distributions, Desired: true,
			FindImage: func(context.Context, string, string) (*clusterimage.Image, error) { return w.opts.Image, nil },
		})
		require.NoError(t, err)
		defer func() { require.NoError(t, v.Close()) }()
		s, err := v.Status(t.Context())
		require.NoError(t, err)
		return s
	}
	w.want(small + "---\napiVersion: sealer.io/v1\nkind: Plugin\nmetadata: {name: names}\nspec: {type: HOSTNAME, data: \"10.0.0.1 other\"}\n")
	var refused *cluster.RefusedError
	require.ErrorAs(t, w.apply(), &refused)
	require.Equal(t, []string{"10.0.0.1: the setting hostname is another"}, status().Drift)

	w.hosts["10.0.0.1"].unreachable = errors.New("no route to host")
	require.Equal(t, "settings, environment, configs and plugins: no control plane that was reached keeps what the cluster was made from", status().NotCompared)
}

// This machine is a cluster, too.
func TestApply_Local(t *testing.T) {
	w := newWorld(t, "spec: {env: [A=1]}\n")
	require.NoError(t, w.apply())
	require.Equal(t, []string{"h1"}, slices.Sorted(maps.Keys(w.nodes)))
	require.NoError(t, w.apply())
	require.True(t, w.plan.Nothing(), w.plan.String())
	w.want("spec: {env: [A=2]}\n")
	require.NoError(t, w.apply())
	require.Contains(t, w.plan.String(), "~ environment A\n")
	require.NotContains(t, w.plan.String(), "environment A:", "values may be secret")
	w.want(small)
	var local *cluster.LocalError
	require.ErrorAs(t, w.apply(), &local)
}

// An older image of the same minor version is gone back to, and the plan says so.
func TestApply_Back(t *testing.T) {
	w := newWorld(t, small)
	require.NoError(t, w.apply())
	w.opts.Image, w.opts.ImageName = imageOf(t, w.bed.opts.Content.(content.Store), "v1.36.1"), "registry.example.com/app:v0"
	for _, n := range w.nodes {
		n.Version = "v1.36.3"
	}
	w.opts.DryRun = true
	require.NoError(t, w.apply())
	require.Contains(t, w.plan.String(), "~ 10.0.0.1: image: registry.example.com/app:v1 → registry.example.com/app:v0 (back: v1.36.3 → v1.36.1)")
	w.opts.Image = imageOf(t, w.bed.opts.Content.(content.Store), "v1.35.4")
	require.ErrorContains(t, w.apply(), "which is newer than v1.35.4 of the image")
}

// A setting that has brought all control planes down is put right by the next apply; nothing else is then.
func TestApply_WithoutAnswer(t *testing.T) {
	w := newWorld(t, small+fmt.Sprintf(kubelet, 1))
	require.NoError(t, w.apply())
	w.hosts["10.0.0.1"].On("^kubectl get --raw /readyz", hosttest.Answer{Code: 1})
	var none *cluster.NoContactError
	require.ErrorAs(t, w.apply(), &none)
	w.want(strings.Replace(small, "10.0.0.3, 10.0.0.4", "10.0.0.3", 1) + fmt.Sprintf(kubelet, 110))
	require.ErrorAs(t, w.apply(), &none, "a host cannot leave")
	w.want(small + fmt.Sprintf(kubelet, 110))
	require.NoError(t, w.apply())
	require.Equal(t, "cluster \"prod\" of registry.example.com/app:v1 (v1.36.3): 1 to change\n 1. changing settings\n"+
		"    ~ setting KubeletConfiguration.maxPods: 1 → 110\n", w.plan.String())
	require.Contains(t, w.log, "h1: dist adjust KubeletConfiguration.maxPods")
}

// A worker that was away while the control planes were replaced finds none of them, until it is told.
func TestApply_BalancerOfBefore(t *testing.T) {
	const file = "/var/lib/sealer/node/endpoint/config.json"
	w := newWorld(t, small)
	w.opts.Distributions = runtime.Distributions{"fake": balanced{}}
	for _, h := range w.hosts {
		h.On("endpoint install", hosttest.Answer{Do: func(_ context.Context, c hosttest.Call) hosttest.Answer {
			h.Put(file, string(c.Stdin), 0o600)
			return hosttest.Answer{}
		}})
	}
	status := func() []string {
		v, err := cluster.Open(t.Context(), cluster.ViewOptions{Clusterfile: w.opts.Clusterfile, Dial: w.opts.Dial, Distributions: w.opts.Distributions})
		require.NoError(t, err)
		defer func() { require.NoError(t, v.Close()) }()
		s, err := v.Status(t.Context())
		require.NoError(t, err)
		return s.Unwell
	}
	require.NoError(t, w.apply())
	require.NoError(t, w.apply())
	require.True(t, w.plan.Nothing(), w.plan.String())
	require.Empty(t, status())

	told := string(w.hosts["10.0.0.3"].Files()[file].Data)
	w.hosts["10.0.0.3"].Put(file, strings.Replace(told, "10.0.0.1", "10.0.0.9", 1), 0o600)
	require.Equal(t, []string{"10.0.0.3: its balancer does not run, or does not lead to all control planes (sealer apply -f, or sealer run once more)"}, status())
	require.NoError(t, w.apply())
	require.Contains(t, w.plan.String(), "~ 10.0.0.3: balancing the API servers\n")
	require.Equal(t, told, string(w.hosts["10.0.0.3"].Files()[file].Data))
	require.NoError(t, w.apply())
	require.True(t, w.plan.Nothing(), w.plan.String())
}

// A host that is gone for good is named in the plan and in the end, with what cleans it when it is back after all.
func TestApply_TakesOutLost(t *testing.T) {
	w := newWorld(t, small)
	require.NoError(t, w.apply())
	w.want(strings.Replace(small, "10.0.0.3, 10.0.0.4", "10.0.0.3", 1))
	w.hosts["10.0.0.4"].unreachable = errors.New("no route to host")
	w.opts.Force = true
	require.NoError(t, w.apply())
	const later = "when it is back: sealer delete --name prod --nodes 10.0.0.4"
	require.Contains(t, w.plan.String(), "it cannot be reached, and is taken out as it is; "+later)
	require.Equal(t, "10.0.0.4 was not reached and is as it was; "+later+"\ncluster \"prod\" is as the Clusterfile says, on 2 hosts\n", w.out.String())
	require.NotContains(t, w.nodes, "h4")

	w.hosts["10.0.0.4"].unreachable = nil
	require.NoError(t, w.remove(t, w.more(clusterfile.Worker, "10.0.0.4")))
	require.Contains(t, w.log, "h4: dist reset")
}
