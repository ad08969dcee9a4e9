// SPDX-License-Identifier: Apache-2.0

// Package node does a kubelet's part: it registers the node, keeps its lease, fetches images and reports pods.
// Containers are not run: a pod whose images are there counts as running.
package node

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"runtime"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sealerio/sealer/test/components/programs/doubles/client"
)

// Config says which node to be.
type Config struct {
	Name        string
	Version     string // kubeletVersion
	Runtime     string // containerRuntimeVersion
	Addresses   []string
	External    []string
	Labels      map[string]string
	Annotations map[string]string
	Taints      []string // key=value:Effect, given to the node when it is made
	Client      *client.Client
	Images      *Images
	// Needed are the images without which no pod starts: the node is not Ready before they are there.
	Needed func() []string
	Log    *slog.Logger
}

const (
	period    = 2 * time.Second
	nodesPath = "/api/v1/nodes"
	leasePath = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
)

// Node is a running kubelet.
type Node struct {
	config Config
	ready  string // empty once the node is, else why not
}

// Run is the node until ctx ends. An error that will not go away ends it, too.
func Run(ctx context.Context, c Config) error {
	n := &Node{config: c, ready: "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized"}
	tick := time.NewTicker(period)
	defer tick.Stop()
	for registered := false; ; {
		if err := n.round(ctx, &registered); err != nil && ctx.Err() == nil {
			c.Log.Warn("the node's round failed", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (n *Node) round(ctx context.Context, registered *bool) error {
	if !*registered {
		if err := n.register(ctx); err != nil {
			return err
		}
		*registered = true
	}
	if err := n.lease(ctx); err != nil {
		return err
	}
	if err := n.images(ctx); err != nil {
		n.config.Log.Warn("images are missing", "error", err)
	}
	if err := n.report(ctx); apierrors.IsNotFound(err) {
		*registered = false // deleted while it runs: a kubelet makes itself anew
		return nil
	} else if err != nil {
		return err
	}
	return n.pods(ctx)
}

func taints(list []string) []any {
	out := make([]any, 0, len(list))
	for _, t := range list {
		kv, effect, _ := strings.Cut(t, ":")
		k, v, _ := strings.Cut(kv, "=")
		one := map[string]any{"key": k, "effect": effect}
		if v != "" {
			one["value"] = v
		}
		out = append(out, one)
	}
	return out
}

func (n *Node) register(ctx context.Context) error {
	c := n.config
	labels := map[string]any{"kubernetes.io/hostname": c.Name, "kubernetes.io/os": "linux", "kubernetes.io/arch": runtime.GOARCH,
		"beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": runtime.GOARCH}
	for k, v := range c.Labels {
		labels[k] = v
	}
	annotations := map[string]any{}
	for k, v := range c.Annotations {
		annotations[k] = v
	}
	meta := map[string]any{"name": c.Name, "labels": labels, "annotations": annotations}
	spec := map[string]any{}
	if len(c.Taints) > 0 {
		spec["taints"] = taints(c.Taints)
	}
	_, err := c.Client.Create(ctx, nodesPath, map[string]any{"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": spec})
	if apierrors.IsAlreadyExists(err) { // its taints are the cluster's business now
		return c.Client.Merge(ctx, nodesPath+"/"+c.Name, map[string]any{"metadata": map[string]any{"labels": labels, "annotations": annotations}})
	}
	return err
}

func (n *Node) lease(ctx context.Context) error {
	return n.config.Client.Ensure(ctx, leasePath, n.config.Name, map[string]any{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
		"metadata": map[string]any{"name": n.config.Name, "namespace": "kube-node-lease"},
		"spec":     map[string]any{"holderIdentity": n.config.Name, "leaseDurationSeconds": 40, "renewTime": time.Now().UTC().Format("2006-01-02T15:04:05.000000Z")}})
}

func (n *Node) images(ctx context.Context) error {
	if n.ready == "" {
		return nil
	}
	if err := n.config.Images.Import(); err != nil {
		return err
	}
	for _, image := range n.config.Needed() {
		if err := n.config.Images.Ensure(ctx, image, false); err != nil {
			n.ready = fmt.Sprintf("container runtime network not ready: NetworkReady=false: %q: %v", image, err)
			return err
		}
	}
	n.ready = ""
	return nil
}

func (n *Node) report(ctx context.Context) error {
	now := time.Now().UTC().Format(time.RFC3339)
	condition := func(kind, status, reason, message string) map[string]any {
		return map[string]any{"type": kind, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": now, "lastTransitionTime": now}
	}
	ready := condition("Ready", "True", "KubeletReady", "kubelet is posting ready status")
	if n.ready != "" {
		ready = condition("Ready", "False", "KubeletNotReady", n.ready)
	}
	var addresses []any
	for _, a := range n.config.Addresses {
		addresses = append(addresses, map[string]any{"type": "InternalIP", "address": a})
	}
	for _, a := range n.config.External {
		addresses = append(addresses, map[string]any{"type": "ExternalIP", "address": a})
	}
	addresses = append(addresses, map[string]any{"type": "Hostname", "address": n.config.Name})
	machine, _ := os.ReadFile("/etc/machine-id")
	capacity := map[string]any{"cpu": fmt.Sprint(runtime.NumCPU()), "memory": "4Gi", "pods": "110"}
	status := map[string]any{
		"addresses": addresses, "capacity": capacity, "allocatable": maps.Clone(capacity),
		"conditions": []any{condition("MemoryPressure", "False", "KubeletHasSufficientMemory", ""), condition("DiskPressure", "False", "KubeletHasNoDiskPressure", ""), ready},
		"nodeInfo": map[string]any{"kubeletVersion": n.config.Version, "kubeProxyVersion": n.config.Version, "containerRuntimeVersion": n.config.Runtime,
			"operatingSystem": "linux", "architecture": runtime.GOARCH, "osImage": "test host", "kernelVersion": "6.1", "machineID": strings.TrimSpace(string(machine)),
			"systemUUID": "", "bootID": ""},
	}
	return n.config.Client.Merge(ctx, nodesPath+"/"+n.config.Name+"/status", map[string]any{"status": status})
}

// pods fetches the images of the node's pods and reports what became of them.
func (n *Node) pods(ctx context.Context) error {
	list, err := n.config.Client.List(ctx, "/api/v1/pods?fieldSelector=spec.nodeName%3D"+n.config.Name)
	if err != nil {
		return err
	}
	for _, p := range list {
		phase, _, _ := unstructured.NestedString(p.Object, "status", "phase")
		if phase == "Running" || phase == "Succeeded" || p.GetDeletionTimestamp() != nil {
			continue
		}
		path := "/api/v1/namespaces/" + p.GetNamespace() + "/pods/" + p.GetName() + "/status"
		if err := n.config.Client.Merge(ctx, path, map[string]any{"status": n.start(ctx, &p)}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// start is the status of a pod after its images were asked for.
func (n *Node) start(ctx context.Context, p *client.Object) map[string]any {
	if n.ready != "" {
		return map[string]any{"phase": "Pending", "conditions": []any{map[string]any{"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": n.ready}}}
	}
	var states []any
	ok := true
	containers, _, _ := unstructured.NestedSlice(p.Object, "spec", "containers")
	early, _, _ := unstructured.NestedSlice(p.Object, "spec", "initContainers")
	for _, c := range append(early, containers...) {
		m, _ := c.(map[string]any)
		image, _, _ := unstructured.NestedString(m, "image")
		policy, _, _ := unstructured.NestedString(m, "imagePullPolicy")
		state := map[string]any{"name": m["name"], "image": image, "restartCount": 0}
		if err := n.pull(ctx, image, policy); err != nil {
			ok = false
			reason := "ErrImagePull"
			if policy == "Never" {
				reason = "ErrImageNeverPull"
			}
			state["state"] = map[string]any{"waiting": map[string]any{"reason": reason, "message": err.Error()}}
			state["ready"] = false
		} else {
			state["state"] = map[string]any{"running": map[string]any{"startedAt": time.Now().UTC().Format(time.RFC3339)}}
			state["ready"] = true
		}
		states = append(states, state)
	}
	status := map[string]any{"phase": "Running", "containerStatuses": states, "hostIP": first(n.config.Addresses), "podIP": "10.42.0.2", "startTime": time.Now().UTC().Format(time.RFC3339)}
	yes := "True"
	if !ok {
		status["phase"], yes = "Pending", "False"
	}
	if restart, _, _ := unstructured.NestedString(p.Object, "spec", "restartPolicy"); ok && restart != "Always" && restart != "" {
		status["phase"], yes = "Succeeded", "False" // what is to end has ended
	}
	status["conditions"] = []any{map[string]any{"type": "PodScheduled", "status": "True"}, map[string]any{"type": "Initialized", "status": "True"},
		map[string]any{"type": "ContainersReady", "status": yes}, map[string]any{"type": "Ready", "status": yes}}
	return status
}

func (n *Node) pull(ctx context.Context, image, policy string) error {
	if policy == "Never" {
		there, err := n.config.Images.there(ctx, image)
		if err == nil && !there {
			err = fmt.Errorf("container image %q is not present with pull policy of Never", image)
		}
		return err
	}
	return n.config.Images.Ensure(ctx, image, policy == "Always")
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
