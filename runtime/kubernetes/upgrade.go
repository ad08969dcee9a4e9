// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

const upgradeFile = "/etc/kubernetes/kubeadm-upgrade.yaml"

// KubeletVersion is the version of Kubernetes.
func (Distribution) KubeletVersion(c *runtime.Cluster) string { return c.KubeVersion() }

// Service is the kubelet.
func (Distribution) Service(h *runtime.Host) runtime.Service {
	return runtime.Service{Host: h, Name: "kubelet"}
}

// Upgrade is kubeadm's order of things: https://kubernetes.io/docs/tasks/administer-cluster/kubeadm/kubeadm-upgrade.
// While pods are in place, kubeadm of the new image, run from its rootfs, upgrades the control plane and the kubelet's
// configuration. Once they are gone the programs are replaced, containerd's and the kubelet's among them.
func (d Distribution) Upgrade(c *runtime.Cluster, h *runtime.Host) (running, drained []runtime.Step) {
	step := runtime.Step{
		Name: "upgrading the kubelet's configuration (kubeadm upgrade node)",
		Key:  c.KubeVersion(),
		Do:   func(ctx context.Context, log io.Writer) error { return upgrade(ctx, c, h, log, false) },
	}
	if h.Spec.Role == clusterfile.ControlPlane {
		step.Name = "upgrading the control plane (kubeadm upgrade)"
		step.Done = func(ctx context.Context) (bool, error) { return upgraded(ctx, c, h) }
		step.Do = func(ctx context.Context, log io.Writer) error {
			if err := leftAlone(ctx, h, log); err != nil {
				return err
			}
			apply, err := applies(ctx, c, h)
			if err != nil {
				return err
			}
			return upgrade(ctx, c, h, log, apply)
		}
	}
	running = append(running, step)
	if h.Spec.Role == clusterfile.ControlPlane {
		running = append(running, runtime.FreshRootKubeconfig(h, keptDir, adminConf), runtime.Step{
			Name: "waiting until kube-proxy is replaced on every node",
			Done: func(ctx context.Context) (bool, error) {
				_, replaced, err := proxies(ctx, h)
				return replaced, err
			},
			Do: func(ctx context.Context, log io.Writer) error { return waitProxies(ctx, h, log) },
		})
	}
	drained = append(d.Install(c, h), runtime.Step{
		Name: "restarting the kubelet",
		Key:  c.RootfsKey(h),
		Done: func(ctx context.Context) (bool, error) { return succeeds(ctx, h.Runner, "sh", "-c", kubeletIsNew) },
		Do: func(ctx context.Context, log io.Writer) error {
			return run(ctx, h, log, "sh", "-c", "systemctl daemon-reload && systemctl restart kubelet")
		},
	})
	return running, drained
}

// kubeletIsNew: what runs was started from the program that is there now.
const kubeletIsNew = `pid=$(systemctl show --property=MainPID --value kubelet) && [ "${pid:-0}" != 0 ] &&
	[ "$(stat -L -c %d:%i "/proc/$pid/exe")" = "$(stat -L -c %d:%i /usr/local/bin/kubelet)" ]`

// controlPlaneIs: the manifests are those of version $1. Their images may come from any repository.
const controlPlaneIs = `for name in kube-apiserver kube-controller-manager kube-scheduler; do
	grep -q "^ *image: .*/$name:$1\$" "/etc/kubernetes/manifests/$name.yaml" || exit 1
done`

// upgraded: kubelet has the manifests of the new version, their API server answers, and the cluster is of that version.
func upgraded(ctx context.Context, c *runtime.Cluster, h *runtime.Host) (bool, error) {
	same, err := succeeds(ctx, h.Runner, "sh", "-c", controlPlaneIs, "sh", c.KubeVersion())
	if err != nil || !same {
		return false, err
	}
	ready, err := apiReady(ctx, h)
	if err != nil || !ready {
		return false, err
	}
	version, err := clusterVersion(ctx, h)
	return version == c.KubeVersion(), err
}

// clusterVersion is what the cluster's own configuration says, as kubeadm has uploaded it.
func clusterVersion(ctx context.Context, h *runtime.Host) (string, error) {
	out, err := host.Output(ctx, h.Runner, Distribution{}.Kubectl().Command(
		"--namespace", "kube-system", "get", "configmap", "kubeadm-config", "--output", "jsonpath={.data.ClusterConfiguration}", "--request-timeout", "30s"))
	if err != nil {
		return "", err
	}
	var config struct {
		KubernetesVersion string `json:"kubernetesVersion"`
	}
	if err := yaml.Unmarshal(out, &config); err != nil {
		return "", fmt.Errorf("%s: reading the ClusterConfiguration in kube-system/kubeadm-config: %w", h, err)
	}
	return config.KubernetesVersion, nil
}

// leftAlone waits for a kubeadm that goes on though its operator is gone, and for an API server that it has replaced.
func leftAlone(ctx context.Context, h *runtime.Host, log io.Writer) error {
	if err := run(ctx, h, log, "flock", "--timeout", "900", lockFile, "true"); err != nil {
		return err
	}
	err := eventually(ctx, apiTimeout, func(ctx context.Context) (bool, error) { return apiReady(ctx, h) })
	if errors.Is(err, errLate) { // kubeadm knows what is in the way
		_, _ = fmt.Fprintln(log, "its API server is not ready")
		err = nil
	}
	return err
}

// applies: the first control plane to be upgraded takes the cluster's configuration along, and takes it up again where
// it was cut in the middle of that; the others follow the configuration.
func applies(ctx context.Context, c *runtime.Cluster, h *runtime.Host) (bool, error) {
	version, err := clusterVersion(ctx, h)
	return version != c.KubeVersion() || h == c.First(), err
}

func upgrade(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer, apply bool) error {
	config, err := upgradeConfig(c, h)
	if err != nil {
		return err
	}
	if err := host.WriteFile(ctx, h.Runner, upgradeFile, config, 0o600); err != nil {
		return err
	}
	argv := []string{"flock", "--timeout", "900", lockFile, path.Join(h.Rootfs, "bin", "kubeadm"), "upgrade"}
	if apply {
		argv = append(argv, "apply", c.KubeVersion(), "--config", upgradeFile, "--yes")
	} else {
		argv = append(argv, "node", "--config", upgradeFile)
	}
	return errors.Join(checked(ctx, h, log, argv), remove(ctx, h, upgradeFile))
}

// kubeadm asks the cluster to run a Job within 15 seconds, before it changes anything. Where an upgrade was cut right after the
// scheduler was replaced, no pod is placed until the lease of the one before has run out, after 15 seconds, too.
const (
	jobFailed = "[ERROR CreateJob]"
	jobTries  = 3
	jobPause  = 20 * time.Second
)

// checked runs kubeadm, again where only the cluster was not ready for it yet.
func checked(ctx context.Context, h *runtime.Host, log io.Writer, argv []string) error {
	for try := 1; ; try++ {
		var said bytes.Buffer
		err := run(ctx, h, io.MultiWriter(log, &said), argv...)
		if err == nil || try == jobTries || !bytes.Contains(said.Bytes(), []byte(jobFailed)) {
			return err
		}
		_, _ = fmt.Fprintf(log, "asking again in %s\n", jobPause)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(jobPause):
		}
	}
}

// proxyStall is how long nothing may happen to kube-proxy before an upgrade goes on: a node may be away.
const proxyStall = 2 * time.Minute

// waitProxies: kubeadm has given kube-proxy its new image, and the nodes' are replaced one by one. A node that is without one at that
// moment does not hear which pods a drain takes away, and sends requests where nobody is any more.
func waitProxies(ctx context.Context, h *runtime.Host, log io.Writer) error {
	seen, replaced := "", false
	for !replaced {
		err := eventually(ctx, proxyStall, func(ctx context.Context) (bool, error) {
			status, all, err := proxies(ctx, h)
			if err != nil || status == seen && !all {
				return false, err
			}
			seen, replaced = status, all
			return true, nil
		})
		if errors.Is(err, errLate) {
			_, _ = fmt.Fprintln(log, "going on, though nothing has moved for", proxyStall)
			return nil
		}
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintln(log, seen)
	}
	return nil
}

// proxies says how far the replacement of kube-proxy has come. A cluster may have none: then nothing is replaced.
func proxies(ctx context.Context, h *runtime.Host) (status string, replaced bool, err error) {
	text, err := host.Output(ctx, h.Runner, ask("get", "daemonset", "kube-proxy", "--namespace", "kube-system", "--ignore-not-found", "--output", "json"))
	if err != nil || len(text) == 0 {
		return "", err == nil, err
	}
	var set struct {
		Metadata struct{ Generation int64 }
		Status   struct {
			ObservedGeneration                                              int64
			DesiredNumberScheduled, UpdatedNumberScheduled, NumberAvailable int
		}
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return "", false, fmt.Errorf("%s: reading the DaemonSet kube-system/kube-proxy: %w", h, err)
	}
	s := set.Status
	if s.ObservedGeneration < set.Metadata.Generation {
		return "nothing is replaced yet", false, nil
	}
	replaced = s.UpdatedNumberScheduled >= s.DesiredNumberScheduled && s.NumberAvailable >= s.DesiredNumberScheduled
	return fmt.Sprintf("%d of %d are replaced, %d run", s.UpdatedNumberScheduled, s.DesiredNumberScheduled, s.NumberAvailable), replaced, nil
}

// upgradeConfig passes over the checks that the node was made without.
func upgradeConfig(c *runtime.Cluster, h *runtime.Host) ([]byte, error) {
	var ignored []any
	for _, kind := range []string{"InitConfiguration", "JoinConfiguration"} {
		node, _ := c.File.Kubeadm[kind]["nodeRegistration"].(object)
		list, _ := node["ignorePreflightErrors"].([]any)
		if (kind == "InitConfiguration") == (h == c.First()) {
			ignored = slices.Clone(list)
		}
	}
	half := func() object {
		o := object{"imagePullPolicy": "IfNotPresent", "imagePullSerial": false}
		if len(ignored) > 0 {
			o["ignorePreflightErrors"] = ignored
		}
		return o
	}
	return marshal([]object{{"apiVersion": kubeadmAPI, "kind": "UpgradeConfiguration", "apply": half(), "node": half()}})
}
