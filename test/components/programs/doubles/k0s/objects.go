// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/sealerio/sealer/test/components/programs/doubles/pki"
)

const manifest = `apiVersion: apps/v1
kind: %[1]s
metadata:
  name: %[2]s
  namespace: kube-system
spec:
  selector:
    matchLabels: {k8s-app: %[2]s}
  template:
    metadata:
      labels: {k8s-app: %[2]s}
    spec:
      tolerations:
      - {operator: Exists}
      containers:
      - name: %[2]s
        image: %[3]s
        imagePullPolicy: %[4]s
`

// writeManifests puts the manifests of what is not disabled into the folder that is applied.
func (c *controller) writeManifests() error {
	images, err := c.images(c.config)
	if err != nil {
		return err
	}
	policy := "IfNotPresent"
	if i := c.config.Spec.Images; i != nil && i.DefaultPullPolicy != "" {
		policy = i.DefaultPullPolicy
	}
	node, _ := used(c.config)
	for _, m := range []struct {
		component, kind, name, role string
		wanted                      bool
	}{
		{"coredns", "Deployment", "coredns", "coredns", true},
		{"metrics-server", "Deployment", "metrics-server", "metricsserver", true},
		{"konnectivity-server", "DaemonSet", "konnectivity-agent", "konnectivity", !yes(c.cmd, "single")},
		{"kube-proxy", "DaemonSet", "kube-proxy", "kubeproxy", slices.Contains(node, "kubeproxy")},
		{"network-provider", "DaemonSet", "kube-router", "kuberouter", slices.Contains(node, "kuberouter")},
		{"network-provider", "DaemonSet", "calico-node", "caliconode", slices.Contains(node, "caliconode")},
		{"network-provider", "Deployment", "calico-kube-controllers", "calicocontrollers", slices.Contains(node, "caliconode")},
	} {
		path := c.at("manifests", m.name, m.name+".yaml")
		if !m.wanted || slices.Contains(c.off, m.component) {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			continue
		}
		if err := pki.WriteFile(path, fmt.Appendf(nil, manifest, m.kind, m.name, images[m.role], policy), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// profile is what a worker takes from the cluster: the real one's holds more.
type profile struct {
	Needed       []string // images without which no pod starts
	FailCgroupV1 bool
	LoadBalanced bool // workers reach all controllers, and not the one of their token alone
}

// profileName of the worker configuration that nodes of a minor version ask for.
func profileName(name string, minor int) string {
	return fmt.Sprintf("worker-config-%s-1.%d", name, minor)
}

// writeObjects makes the objects by which workers and installers know this controller.
func (c *controller) writeObjects(ctx context.Context) error {
	images, err := c.images(c.config)
	if err != nil {
		return err
	}
	node, _ := used(c.config)
	base := profile{FailCgroupV1: c.stamp.Minor() >= 35, LoadBalanced: c.config.nllb()}
	for _, role := range node {
		base.Needed = append(base.Needed, images[role])
	}
	profiles := map[string]profile{"default": base, "default-windows": base}
	for _, w := range c.config.Spec.WorkerProfiles {
		own := base
		if v, ok := w.Values["failCgroupV1"].(bool); ok {
			own.FailCgroupV1 = v
		}
		profiles[w.Name] = own
	}
	for name, pr := range profiles {
		content, err := json.Marshal(pr)
		if err != nil {
			return err
		}
		if err := c.plane.Apply(ctx, map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "data": map[string]any{"profile": string(content)},
			"metadata": map[string]any{"name": profileName(name, c.stamp.Minor()), "namespace": "kube-system"}}); err != nil {
			return err
		}
	}
	return c.plane.Apply(ctx, map[string]any{"apiVersion": "autopilot.k0sproject.io/v1beta2", "kind": "ControlNode", "metadata": map[string]any{"name": c.name},
		"status": map[string]any{"addresses": []any{map[string]any{"type": "InternalIP", "address": c.config.Spec.API.Address}, map[string]any{"type": "Hostname", "address": c.name}}}})
}
