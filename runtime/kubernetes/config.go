// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

const (
	kubeadmAPI   = "kubeadm.k8s.io/v1beta4"
	kubeletAPI   = "kubelet.config.k8s.io/v1beta1"
	kubeProxyAPI = "kubeproxy.config.k8s.io/v1alpha1"

	criSocket  = "unix:///run/containerd/containerd.sock"
	apiPort    = 6443
	podCIDR    = "10.244.0.0/16"
	podCIDR6   = "fd00:10:244::/56"
	svcCIDR    = "10.96.0.0/12"
	svcCIDR6   = "fd00:10:96::/112"
	bootstrap  = "15m0s" // life of the token that kubeadm init makes, which nobody uses
	envPodCIDR = "PodCIDR"
	envSvcCIDR = "SvcCIDR"
)

type object = map[string]any

// initConfig is the file for kubeadm init: our defaults, the Clusterfile's
// documents over them, and what only sealer can know over those.
// certificateKey is for the upload of certificates alone; empty otherwise.
func initConfig(c *runtime.Cluster, h *runtime.Host, certificateKey host.Secret) ([]byte, error) {
	init := document(c, kubeadmAPI, "InitConfiguration", object{
		"bootstrapTokens":  []any{object{"ttl": bootstrap}},
		"localAPIEndpoint": object{"bindPort": apiPort},
		"nodeRegistration": object{"imagePullPolicy": "IfNotPresent", "imagePullSerial": false},
	})
	setNode(init, c, h)
	child(init, "localAPIEndpoint")["advertiseAddress"] = h.IP()
	if certificateKey != "" {
		init["certificateKey"] = certificateKey.Reveal()
	}
	docs := []object{init, clusterConfig(c)}
	docs = append(docs, document(c, kubeletAPI, "KubeletConfiguration", object{"cgroupDriver": "systemd"}))
	if c.File.Kubeadm["KubeProxyConfiguration"] != nil || c.File.Endpoint.IPVS {
		docs = append(docs, proxyConfig(c))
	}
	return marshal(docs)
}

func clusterConfig(c *runtime.Cluster) object {
	n := networks(c)
	config := document(c, kubeadmAPI, "ClusterConfiguration", object{
		"clusterName":          c.File.Name,
		"controlPlaneEndpoint": defaultEndpoint(c),
		"networking":           object{"dnsDomain": "cluster.local", "podSubnet": n.Pods, "serviceSubnet": n.Services},
	})
	config["kubernetesVersion"] = c.KubeVersion()
	names := []any{runtime.APIServerName, "127.0.0.1"}
	if own := c.First().Loopback(); own != "127.0.0.1" {
		names = append(names, own)
	}
	for _, h := range c.ControlPlanes() {
		for _, ip := range c.NodeIPs(h, n) {
			names = append(names, ip)
		}
	}
	api := child(config, "apiServer")
	own, _ := api["certSANs"].([]any)
	own = slices.Clone(own)
	for _, name := range slices.Concat(c.EndpointNames(), c.FurtherNames()) {
		own = append(own, name)
	}
	for _, name := range own {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	api["certSANs"] = names
	return config
}

// networks are as the Clusterfile's document says, or the environment, or else of the family of the hosts' addresses. Services have
// those of the pods' families.
func networks(c *runtime.Cluster) runtime.Networks {
	said, _ := c.File.Kubeadm["ClusterConfiguration"]["networking"].(object)
	env := c.HostEnv(c.First())
	text := func(key, name string) string {
		s, _ := said[key].(string)
		return cmp.Or(s, env[name])
	}
	pods := cmp.Or(text("podSubnet", envPodCIDR), runtime.SameFamilies(c.First().IP(), podCIDR, podCIDR6))
	return runtime.Networks{Pods: pods, Services: cmp.Or(text("serviceSubnet", envSvcCIDR), runtime.SameFamilies(pods, svcCIDR, svcCIDR6))}
}

// ServiceIPs are where kubeadm puts them.
func (Distribution) ServiceIPs(c *runtime.Cluster) (api, dns string) {
	return networks(c).ServiceIPs()
}

// nodeMask6 is what a node gets of the pods' network of IPv6: /64 by itself.
func nodeMask6(c *runtime.Cluster) int {
	manager, _ := c.File.Kubeadm["ClusterConfiguration"]["controllerManager"].(object)
	list, _ := manager["extraArgs"].([]any)
	var args []string
	for _, a := range list {
		o, _ := a.(object)
		args = append(args, fmt.Sprintf("%v=%v", o["name"], o["value"]))
	}
	return runtime.NodeMask6(64, args)
}

// secrets are what a host needs to join; they live for minutes, in files of mode 0600.
type secrets struct {
	token          host.Secret
	caHash         string      // "sha256:…" of the CA's public key
	certificateKey host.Secret // for control planes
}

// joinConfig is the file for kubeadm join. It holds secrets.
func joinConfig(c *runtime.Cluster, h *runtime.Host, s secrets) ([]byte, error) {
	join := document(c, kubeadmAPI, "JoinConfiguration", object{
		"nodeRegistration": object{"imagePullPolicy": "IfNotPresent", "imagePullSerial": false},
	})
	setNode(join, c, h)
	join["discovery"] = object{"bootstrapToken": object{
		"apiServerEndpoint": endpoint(c),
		"token":             s.token.Reveal(),
		"caCertHashes":      []any{s.caHash},
	}}
	if s.certificateKey != "" {
		control := child(join, "controlPlane")
		control["certificateKey"] = s.certificateKey.Reveal()
		control["localAPIEndpoint"] = object{"advertiseAddress": h.IP(), "bindPort": port(c)}
	} else {
		delete(join, "controlPlane")
	}
	return marshal([]object{join})
}

// document is our defaults with the Clusterfile's document of that kind over them.
func document(c *runtime.Cluster, version, kind string, defaults object) object {
	merged := merge(defaults, c.File.Kubeadm[kind])
	merged["apiVersion"], merged["kind"] = version, kind
	return merged
}

// merge lays over upon base: mappings field by field, all else whole. Neither is changed.
func merge(base, over object) object {
	out := maps.Clone(base)
	if out == nil {
		out = object{}
	}
	for k, v := range over {
		if a, ok := out[k].(object); ok {
			if b, ok := v.(object); ok {
				out[k] = merge(a, b)
				continue
			}
		}
		out[k] = v
	}
	return out
}

// child is a mapping of o that may be changed, made where it is missing.
func child(o object, key string) object {
	c, _ := o[key].(object)
	c = maps.Clone(c)
	if c == nil {
		c = object{}
	}
	o[key] = c
	return c
}

// setNode fills in what identifies the node: the name, the address and the container runtime are sealer's to say.
func setNode(o object, c *runtime.Cluster, h *runtime.Host) {
	node := child(o, "nodeRegistration")
	node["name"] = h.Facts.NodeName()
	node["criSocket"] = criSocket
	// Where there are no workers, the control planes run the workload: an empty list keeps kubeadm's taint away.
	if _, said := node["taints"]; !said && len(c.Workers()) == 0 {
		node["taints"] = []any{}
	}
	args, _ := node["kubeletExtraArgs"].([]any)
	args = slices.DeleteFunc(slices.Clone(args), func(a any) bool { o, _ := a.(object); return o["name"] == "node-ip" })
	node["kubeletExtraArgs"] = append(args, object{"name": "node-ip", "value": strings.Join(c.NodeIPs(h, networks(c)), ",")})
}

// port is the API server's, 6443 unless the InitConfiguration says otherwise.
func port(c *runtime.Cluster) int {
	local, _ := c.File.Kubeadm["InitConfiguration"]["localAPIEndpoint"].(object)
	if p, ok := local["bindPort"].(int64); ok {
		return int(p)
	}
	return apiPort
}

// endpoint is where nodes reach the API server.
func endpoint(c *runtime.Cluster) string {
	if e, ok := c.File.Kubeadm["ClusterConfiguration"]["controlPlaneEndpoint"].(string); ok && e != "" {
		if _, _, err := net.SplitHostPort(e); err == nil {
			return e
		}
		return net.JoinHostPort(e, strconv.Itoa(port(c)))
	}
	return defaultEndpoint(c)
}

// defaultEndpoint is where nodes find the API servers: a balancer of the user's, or the name that stands in /etc/hosts.
func defaultEndpoint(c *runtime.Cluster) string {
	if e := c.File.Endpoint; e.External != "" {
		return e.HostPort(port(c))
	}
	return local(c)
}

// local is the name that leads control planes to themselves.
func local(c *runtime.Cluster) string {
	return net.JoinHostPort(runtime.APIServerName, strconv.Itoa(port(c)))
}

func marshal(docs []object) ([]byte, error) {
	var out bytes.Buffer
	for i, d := range docs {
		data, err := yaml.Marshal(d)
		if err != nil {
			return nil, fmt.Errorf("writing a %s: %w", d["kind"], err)
		}
		if i > 0 {
			out.WriteString("---\n")
		}
		out.Write(data)
	}
	return out.Bytes(), nil
}
