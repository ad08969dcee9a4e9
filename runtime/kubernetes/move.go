// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

var _ runtime.Mover = Distribution{}

// Stuck is never: kubeadm's phases and three of its ConfigMaps are all that holds the endpoint.
func (Distribution) Stuck(*runtime.Cluster, clusterfile.Endpoint, clusterfile.Endpoint) string {
	return ""
}

// keepers are where kubeadm keeps the endpoint in the cluster: for control planes that join, for tokens of those that join, and for kube-proxy
// (https://kubernetes.io/docs/reference/setup-tools/kubeadm/implementation-details).
func keepers(c *runtime.Cluster) []keeper {
	return []keeper{
		{"kube-system", "kubeadm-config", "ClusterConfiguration", func(o object) { o["controlPlaneEndpoint"] = endpoint(c) }},
		{"kube-public", "cluster-info", "kubeconfig", func(o object) { setServer(o, "https://"+endpoint(c)) }},
		{"kube-system", "kube-proxy", "kubeconfig.conf", func(o object) { setServer(o, "https://"+endpoint(c)) }},
	}
}

// keeper is a document in a ConfigMap.
type keeper struct {
	namespace, name, key string
	set                  func(object)
}

// setServer has a kubeconfig ask another server.
func setServer(kubeconfig object, server string) {
	list, _ := kubeconfig["clusters"].([]any)
	for _, v := range list {
		entry, _ := v.(object)
		if about, ok := entry["cluster"].(object); ok {
			about["server"] = server
		}
	}
}

// TellEndpoint has kubeadm's ConfigMaps name the endpoint.
func (d Distribution) TellEndpoint(c *runtime.Cluster, h *runtime.Host, from clusterfile.Endpoint) []runtime.Step {
	if !renamed(c, from) {
		return nil
	}
	return []runtime.Step{{
		Name: "naming the endpoint in the cluster's configuration",
		Do: func(ctx context.Context, log io.Writer) error {
			for _, k := range keepers(c) {
				if err := d.keep(ctx, h, k, log); err != nil {
					return err
				}
			}
			return nil
		},
	}}
}

// renamed: nodes know the API servers by another name than before.
func renamed(c *runtime.Cluster, from clusterfile.Endpoint) bool {
	return from.External != c.File.Endpoint.External
}

// keep changes one document. One that is not there is of a cluster without that program.
func (d Distribution) keep(ctx context.Context, h *runtime.Host, k keeper, log io.Writer) error {
	out, err := host.Output(ctx, h.Runner, d.Kubectl().Command(
		"--namespace", k.namespace, "get", "configmap", k.name, "--ignore-not-found", "--output", "json", "--request-timeout", "30s"))
	if err != nil || len(bytes.TrimSpace(out)) == 0 {
		return err
	}
	unreadable := func(err error) error {
		return fmt.Errorf("%s: reading %s in %s/%s: %w", h, k.key, k.namespace, k.name, err)
	}
	var all object
	if err := json.Unmarshal(out, &all); err != nil {
		return unreadable(err)
	}
	data := child(all, "data")
	text, _ := data[k.key].(string)
	var doc object
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return unreadable(err)
	}
	if doc == nil {
		return unreadable(errors.New("it is empty"))
	}
	k.set(doc)
	now, err := yaml.Marshal(doc)
	if err != nil {
		return unreadable(err)
	}
	data[k.key] = string(now)
	in, err := json.Marshal(all) // with its resourceVersion: what somebody changes meanwhile is not lost
	if err != nil {
		return err
	}
	replace := d.Kubectl().Command("replace", "--filename", "-", "--request-timeout", "30s")
	replace.Stdin, replace.Stdout, replace.Stderr, replace.Mutates = bytes.NewReader(in), log, log, true
	return h.Runner.Run(ctx, replace)
}

// The kubelet's kubeconfig is kubeadm's, and no command of kubeadm's changes its server. On control planes it may name the host itself. A kubelet
// that runs has been started with the file that is there.
const (
	kubeletServer = `set -eu
f=/etc/kubernetes/kubelet.conf
systemctl stop kubelet
if ! grep -qxF -e "    server: $1" -e "    server: ${2:-$1}" "$f"; then
	(umask 077; sed "s|^    server: .*|    server: $1|" "$f" >/etc/kubernetes/.sealer-kubeconfig)
	mv -f /etc/kubernetes/.sealer-kubeconfig "$f"
fi
systemctl start kubelet`
	isKubeletServer = `grep -qxF -e "    server: $1" -e "    server: ${2:-$1}" /etc/kubernetes/kubelet.conf && systemctl is-active --quiet kubelet`
)

// FollowEndpoint has the kubelet and kube-proxy of a host find the API servers anew. Both look up the name only when they connect, and kube-proxy
// in the /etc/hosts with which its pod was made: so both are started anew, while pods go on running.
func (d Distribution) FollowEndpoint(c *runtime.Cluster, h *runtime.Host, from clusterfile.Endpoint) []runtime.Step {
	controlPlane := h.Spec.Role == clusterfile.ControlPlane
	if controlPlane && !renamed(c, from) { // the name leads it to itself, as before
		return nil
	}
	key := runtime.MoveKey(from, c.File.Endpoint)
	kubelet, argv := key, []string{"sh", "https://" + endpoint(c)}
	if controlPlane { // whose kubelet is started anew only where it asks others
		kubelet, argv = "", []string{"sh", "https://" + local(c), "https://" + net.JoinHostPort(h.IP(), strconv.Itoa(port(c)))}
	}
	return []runtime.Step{
		{
			Name: "having the kubelet ask " + argv[1], Key: kubelet,
			Done: func(ctx context.Context) (bool, error) {
				return succeeds(ctx, h.Runner, append([]string{"sh", "-c", isKubeletServer}, argv...)...)
			},
			Do: func(ctx context.Context, log io.Writer) error {
				return run(ctx, h, log, append([]string{"sh", "-c", kubeletServer}, argv...)...)
			},
		},
		{
			Name: "starting kube-proxy anew", Key: key,
			Do: func(ctx context.Context, log io.Writer) error { return d.newProxy(ctx, c, h, log) },
		},
	}
}

// proxies are the pods of kube-proxy on the host; a cluster may have none.
func (d Distribution) proxies(ctx context.Context, c *runtime.Cluster, h *runtime.Host) (ready map[string]bool, err error) {
	out, err := host.Output(ctx, c.Server().Runner, d.Kubectl().Command(
		"--namespace", "kube-system", "get", "pods", "--selector", "k8s-app=kube-proxy", "--field-selector", "spec.nodeName="+h.Facts.NodeName(),
		"--output", "json", "--request-timeout", "30s"))
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Metadata struct {
				Name              string
				DeletionTimestamp string
			}
			Status struct {
				Conditions []struct{ Type, Status string }
			}
		}
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, fmt.Errorf("reading the list of pods: %w", err)
	}
	ready = map[string]bool{}
	for _, p := range list.Items {
		ready[p.Metadata.Name] = false
		for _, cond := range p.Status.Conditions {
			if cond.Type == "Ready" && cond.Status == "True" && p.Metadata.DeletionTimestamp == "" {
				ready[p.Metadata.Name] = true
			}
		}
	}
	return ready, nil
}

// newProxy deletes the pod, which its DaemonSet makes anew, and waits for the new one.
func (d Distribution) newProxy(ctx context.Context, c *runtime.Cluster, h *runtime.Host, log io.Writer) error {
	before, err := d.proxies(ctx, c, h)
	if err != nil || len(before) == 0 {
		return err
	}
	for name := range before {
		del := d.Kubectl().Command("--namespace", "kube-system", "delete", "pod", name, "--ignore-not-found", "--wait=false", "--request-timeout", "30s")
		del.Stdout, del.Stderr, del.Mutates = log, log, true
		if err := c.Server().Runner.Run(ctx, del); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, podTimeout, &StuckPodError{Host: h.String(), Pod: "kube-proxy"})
	defer cancel()
	tick := time.NewTicker(podInterval)
	defer tick.Stop()
	for {
		now, err := d.proxies(ctx, c, h)
		if err != nil && ctx.Err() == nil {
			return err
		}
		for name, ready := range now {
			if _, old := before[name]; ready && !old {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
