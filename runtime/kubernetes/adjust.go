// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

var _ runtime.Adjuster = Distribution{}

const adjustFile = "/etc/kubernetes/kubeadm-adjust.yaml"

// Fixed follows https://kubernetes.io/docs/tasks/administer-cluster/kubeadm/kubeadm-reconfigure: what kubeadm can bring to a
// cluster that runs, with its phases.
func (Distribution) Fixed(path ...string) string {
	if len(path) < 2 {
		return ""
	}
	switch kind, key := path[0], path[1]; kind {
	case "ClusterConfiguration":
		if !slices.Contains([]string{"apiServer", "controllerManager", "scheduler"}, key) {
			return "the cluster was made with it"
		}
	case "InitConfiguration":
		if !slices.Contains([]string{"skipPhases", "timeouts", "patches"}, key) && path[len(path)-1] != "ignorePreflightErrors" {
			return "the first control plane was made with it"
		}
	case "KubeletConfiguration":
		switch key {
		case "clusterDomain", "clusterDNS":
			return "pods were told of it"
		case "cgroupDriver", "containerRuntimeEndpoint", "staticPodPath":
			return "pods run under it"
		}
	case "KubeProxyConfiguration":
		switch key {
		case "clusterCIDR":
			return "addresses were given out by it"
		case "mode":
			return "what the old mode has written on hosts would stay there"
		}
	}
	return ""
}

// Adjust brings changed documents to a host: the cluster's configuration once, by the control plane that is asked, then the
// manifests of each control plane and the configuration of each kubelet. JoinConfiguration is for hosts that join.
func (d Distribution) Adjust(c *runtime.Cluster, h *runtime.Host, paths [][]string) []runtime.Step {
	paths = slices.Clone(paths)
	for i, p := range paths {
		if p[0] == clusterfile.EnvCertSANs { // it stands for our own setting
			paths[i] = []string{"ClusterConfiguration", "apiServer", "certSANs"}
		}
	}
	changed := func(kind string, below ...string) bool {
		return slices.ContainsFunc(paths, func(p []string) bool {
			return p[0] == kind && (len(below) == 0 || len(p) > 1 && slices.Contains(below, p[1]))
		})
	}
	var steps []runtime.Step
	add := func(name, kind string, do func(context.Context, io.Writer) error) {
		steps = append(steps, runtime.Step{Name: name, Key: documentKey(c, kind), Do: do})
	}
	if h.Spec.Role == clusterfile.ControlPlane && changed("ClusterConfiguration", "apiServer", "controllerManager", "scheduler") {
		if changedAt(paths, "ClusterConfiguration", "apiServer", "certSANs") {
			steps = append(steps, d.ServerNames(c, h)...)
		}
		add("writing the control plane's manifests (kubeadm init phase control-plane)", "ClusterConfiguration",
			func(ctx context.Context, log io.Writer) error { return remanifest(ctx, c, h, log) })
	}
	// The cluster keeps them once a control plane has come up with them.
	if h == c.Server() && (changed("ClusterConfiguration") || changed("KubeletConfiguration")) {
		steps = append(steps, runtime.Step{
			Name: "keeping the new settings in the cluster (kubeadm init phase upload-config)",
			Key:  documentKey(c, "ClusterConfiguration") + documentKey(c, "KubeletConfiguration"),
			Do:   func(ctx context.Context, log io.Writer) error { return phase(ctx, c, h, log, "upload-config", "all") },
		})
	}
	if h == c.Server() && changed("KubeProxyConfiguration") {
		add("configuring kube-proxy (kubeadm init phase addon)", "KubeProxyConfiguration", func(ctx context.Context, log io.Writer) error {
			if err := phase(ctx, c, h, log, "addon", "kube-proxy"); err != nil {
				return err
			}
			k := d.Kubectl().Command("--namespace", "kube-system", "rollout", "restart", "daemonset/kube-proxy")
			k.Stdout, k.Stderr, k.Mutates = log, log, true
			return h.Runner.Run(ctx, k)
		})
	}
	if changed("KubeletConfiguration") {
		add("configuring the kubelet (kubeadm upgrade node phase kubelet-config)", "KubeletConfiguration", func(ctx context.Context, log io.Writer) error {
			if err := run(ctx, h, log, oneAtATime("upgrade", "node", "phase", "kubelet-config")...); err != nil {
				return err
			}
			return run(ctx, h, log, "systemctl", "restart", "kubelet")
		})
	}
	return steps
}

// The manifests that a control plane runs from are kept until it has come up with others: one that does not gets the old ones back,
// or else nothing could be asked of it any more. Copies are made where the kubelet does not look, and moved in.
const (
	keepManifests = `set -eu; umask 077; cd /etc/kubernetes/manifests
images() { grep -h " image: " "$1"/kube-*.yaml; }
[ -d "$1" ] && [ "$(images "$1")" = "$(images .)" ] && exit 0 # an adjustment that was cut has kept them
rm -rf "$1" "$1.new"; mkdir -p "$1.new"; cp -p kube-*.yaml "$1.new"; mv "$1.new" "$1"`
	backManifests = `set -eu; for f in "$1"/*.yaml; do cp -p "$f" /etc/kubernetes/sealer-manifest; mv -f /etc/kubernetes/sealer-manifest "/etc/kubernetes/manifests/${f##*/}"; done`
	dropManifests = `rm -rf "$1"`
	manifestsDir  = keptDir + "/manifests-before"
)

// remanifest writes the manifests anew, and waits until the control plane runs from them.
func remanifest(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer) error {
	if err := run(ctx, h, log, "sh", "-c", keepManifests, "sh", manifestsDir); err != nil {
		return err
	}
	err := phase(ctx, c, h, log, "control-plane", "all")
	if err == nil {
		err = settle(ctx, h)
	}
	if err != nil && !errors.Is(err, errUnsettled) {
		return err // the same call goes on
	}
	if err != nil {
		_, _ = fmt.Fprintln(log, err.Error()+": going back")
		if back := run(ctx, h, log, "sh", "-c", backManifests, "sh", manifestsDir); back != nil {
			return errors.Join(err, back)
		}
		if back := settle(ctx, h); back != nil {
			return fmt.Errorf("%w; nor does it come up again with its old ones", err)
		}
		err = fmt.Errorf("%w; it has its old settings back", err)
	}
	return errors.Join(err, run(ctx, h, log, "sh", "-c", dropManifests, "sh", manifestsDir))
}

func changedAt(paths [][]string, want ...string) bool {
	return slices.ContainsFunc(paths, func(p []string) bool { return len(p) >= len(want) && slices.Equal(p[:len(want)], want) })
}

// documentKey stands for what the Clusterfile says in a document, or beside it.
func documentKey(c *runtime.Cluster, kind string) string {
	data, err := json.Marshal(c.File.Kubeadm[kind])
	if err != nil {
		return "" // the step is then done each time
	}
	if kind == "ClusterConfiguration" {
		data = append(data, strings.Join(c.FurtherNames(), ",")...)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// phase runs a phase of kubeadm init with the configuration as it is to be, and takes that away: others would find it later.
func phase(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer, words ...string) error {
	config, err := initConfig(c, h, "")
	if err != nil {
		return err
	}
	if err := host.WriteFile(ctx, h.Runner, adjustFile, config, 0o600); err != nil {
		return err
	}
	argv := append([]string{"init", "phase"}, words...)
	err = run(ctx, h, log, oneAtATime(append(argv, "--config", adjustFile)...)...)
	return errors.Join(err, remove(ctx, h, adjustFile))
}

// settleTime is how long the kubelet may take until a control plane runs from new manifests, and settledTimes how often in a
// row its API server has to answer: the old one may go on doing so for some seconds.
const (
	settleTime   = 4 * time.Minute
	settledTimes = 8
)

// settle waits until the control plane runs from the manifests that it has: the flags of each are those of its process.
func settle(ctx context.Context, h *runtime.Host) error {
	ctx, cancel := context.WithTimeoutCause(ctx, settleTime, errUnsettled)
	defer cancel()
	tick := time.NewTicker(apiInterval)
	defer tick.Stop()
	for well := 0; ; {
		ready, err := apiReady(ctx, h)
		if err == nil && ready {
			ready, err = running(ctx, h)
		}
		switch {
		case err != nil && ctx.Err() == nil:
			return err
		case err == nil && ready:
			if well++; well == settledTimes {
				return nil
			}
		default:
			well = 0
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", h, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

var errUnsettled = errors.New("the control plane does not run with its new settings in time (crictl ps -a, crictl logs)")

// runsManifests: each program of the control plane was started with all the flags of its manifest.
const runsManifests = `for name in kube-apiserver kube-controller-manager kube-scheduler; do
	pid=
	for p in /proc/[0-9]*; do
		program=$(tr '\0' '\n' <"$p/cmdline" 2>/dev/null | head -n 1)
		[ "${program##*/}" != "$name" ] || pid=$p
	done
	[ -n "$pid" ] || exit 1
	sed -n "s/^ *- [\"']\{0,1\}\(--.*[^\"']\)[\"']\{0,1\}\$/\1/p" "/etc/kubernetes/manifests/$name.yaml" | while IFS= read -r flag; do
		tr '\0' '\n' <"$pid/cmdline" | grep -qxF -e "$flag" || exit 1
	done || exit 1
done`

func running(ctx context.Context, h *runtime.Host) (bool, error) {
	return succeeds(ctx, h.Runner, "sh", "-c", runsManifests)
}
