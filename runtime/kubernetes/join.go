// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
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

// Join makes the host a node.
func (d Distribution) Join(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	steps := []runtime.Step{{
		Name: "joining the cluster (kubeadm join)",
		Key:  c.KubeVersion(),
		Done: func(ctx context.Context) (bool, error) { return joined(ctx, c, h) },
		Do:   func(ctx context.Context, log io.Writer) error { return join(ctx, c, h, log) },
	}}
	if h.Spec.Role == clusterfile.ControlPlane {
		steps = append(steps, ownServerStep(c, h)...)
		steps = append(steps, runtime.RootKubeconfig(h, keptDir, adminConf))
	}
	return steps
}

// joined: the host has the kubelet's credentials, and the cluster has the node.
func joined(ctx context.Context, c *runtime.Cluster, h *runtime.Host) (bool, error) {
	there, err := succeeds(ctx, h.Runner, "test", "-e", "/etc/kubernetes/kubelet.conf")
	if err != nil || !there {
		return false, err
	}
	return hasNode(ctx, c, h)
}

// cameThrough: a join of a run that was cut has come to its end all the same. The last that kubeadm does for a control plane is to mark its
// node: one that is not marked may lack its member of etcd, too, although it is a node. A kubeadm that goes on without its operator is waited for.
func cameThrough(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer) (bool, error) {
	if err := run(ctx, h, log, "flock", "--timeout", "900", lockFile, "true"); err != nil {
		return false, err
	}
	done, err := joined(ctx, c, h)
	if err != nil || !done || h.Spec.Role != clusterfile.ControlPlane || h.Facts.State.WasComplete() {
		return done, err
	}
	out, err := host.Output(ctx, c.Server().Runner, Distribution{}.Kubectl().Command(
		"get", "nodes", "--selector", controlPlaneLabel, "--output", "name", "--request-timeout", "20s"))
	return slices.Contains(strings.Fields(string(out)), "node/"+h.Facts.NodeName()), err
}

const controlPlaneLabel = "node-role.kubernetes.io/control-plane"

func hasNode(ctx context.Context, c *runtime.Cluster, h *runtime.Host) (bool, error) {
	out, err := host.Output(ctx, c.Server().Runner, Distribution{}.Kubectl().Command(
		"get", "node", h.Facts.NodeName(), "--ignore-not-found", "--output", "name", "--request-timeout", "20s"))
	return strings.TrimSpace(string(out)) != "", err
}

func join(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer) error {
	if done, err := cameThrough(ctx, c, h, log); err != nil || done {
		return err
	}
	if err := clearHalf(ctx, c, h, log); err != nil {
		return err
	}
	controlPlane := h.Spec.Role == clusterfile.ControlPlane
	s, err := newSecrets(ctx, c, h, controlPlane, log)
	if err != nil {
		return err
	}
	config, err := joinConfig(c, h, s)
	if err != nil {
		return err
	}
	if err := host.WriteFile(ctx, h.Runner, joinFile, config, 0o600); err != nil {
		return err
	}
	err = run(ctx, h, log, oneAtATime("join", "--config", joinFile)...)
	return errors.Join(err, remove(ctx, h, joinFile), forget(ctx, c, s))
}

// clearHalf takes away what a join that was cut, or an earlier life of the host, has left: first its member of etcd, which would not start again
// without its data, and which kubeadm reset leaves where it finds no node; then what is on the host, and the node.
func clearHalf(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer) error {
	for _, s := range (Distribution{}).Leave(c, h) {
		if err := s.Do(ctx, log); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	begun, err := succeeds(ctx, h.Runner, "sh", "-c",
		`[ -e /etc/kubernetes/kubelet.conf ] || [ -e /etc/kubernetes/bootstrap-kubelet.conf ] || [ -e /etc/kubernetes/pki/ca.crt ]`)
	if err != nil {
		return err
	}
	if begun {
		_, _ = fmt.Fprintln(log, "an earlier join was cut: resetting")
		clear := reset
		if h.Spec.Role == clusterfile.ControlPlane {
			clear = func(ctx context.Context, h *runtime.Host, log io.Writer) error { return resetAll(ctx, c, h, log) }
		}
		if err := clear(ctx, h, log); err != nil {
			return err
		}
	}
	there, err := hasNode(ctx, c, h)
	if err != nil || !there {
		return err
	}
	return deleteNode(ctx, c, h, log)
}

// forget deletes the token: its id is not secret, and it has no more use.
func forget(ctx context.Context, c *runtime.Cluster, s secrets) error {
	id, _, _ := strings.Cut(s.token.Reveal(), ".")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	return c.Server().Runner.Run(ctx, host.Command{Argv: []string{kubeadmBin, "token", "delete", id, "--kubeconfig", adminConf}, Mutates: true})
}

// Reset takes Kubernetes and containerd off a host, when the whole cluster goes.
func (d Distribution) Reset(_ *runtime.Cluster, h *runtime.Host) []runtime.Step {
	return []runtime.Step{
		{
			Name: "stopping Kubernetes (kubeadm reset)",
			Do: func(ctx context.Context, log io.Writer) error {
				if err := runtime.ForgetRootKubeconfig(ctx, h, keptDir, log); err != nil {
					return err
				}
				there, err := succeeds(ctx, h.Runner, "test", "-x", kubeadmBin)
				if err != nil || !there {
					return err
				}
				return reset(ctx, h, log)
			},
		},
		{Name: "putting the host back", Do: kept(h, "clean-kube.sh")},
		{Name: "removing containerd", Do: kept(h, "uninstall-containerd.sh")},
	}
}

// kept runs a script that the installing scripts have left on the host; where it is missing nothing was installed.
func kept(h *runtime.Host, name string) func(context.Context, io.Writer) error {
	return func(ctx context.Context, log io.Writer) error {
		file := keptDir + "/scripts/" + name
		there, err := succeeds(ctx, h.Runner, "test", "-x", file)
		if err != nil || !there {
			return err
		}
		return run(ctx, h, log, file)
	}
}
