// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/sealerio/sealer/runtime"
)

const (
	configAPI = "k0s.k0sproject.io/v1beta1"

	apiPort       = 6443
	joinPort      = 9443
	agentPort     = 8132
	defaultPods   = "10.244.0.0/16"
	defaultPods6  = "fd00:10:244::/104" // of which k0s gives nodes a /117 each
	defaultSvc    = "10.96.0.0/12"
	defaultSvc6   = "fd00:10:96::/112"
	envPodCIDR    = "PodCIDR"
	envSvcCIDR    = "SvcCIDR"
	ignoreChecks  = "sealer.io/ignore-pre-flight-checks" // annotation of the Clusterfile's ClusterConfig
	typeEtcd      = "etcd"
	typeKine      = "kine"
	typeEnvoy     = "EnvoyProxy"
	typeTraefik   = "Traefik"
	typeKeepalive = "Keepalived"
)

type object = map[string]any

// config is k0s.yaml: our defaults, the Clusterfile's document over them, and what only sealer can know over those.
// balance says whether nodes reach the API servers through a load balancer of their own.
// kept are the API server's names that the host's k0s.yaml has already: they may have come by sealer cert.
func config(c *runtime.Cluster, h *runtime.Host, balance bool, kept []any) ([]byte, error) {
	o := merge(defaults(c), c.File.K0s)
	o["apiVersion"], o["kind"] = configAPI, "ClusterConfig"
	o["metadata"] = object{"name": "k0s"}
	spec := child(o, "spec")
	api := child(spec, "api")
	api["address"] = h.IP()
	api["sans"] = names(c, api, kept)
	storage := child(spec, "storage")
	if storage["type"] == typeEtcd {
		if etcd := child(storage, "etcd"); etcd["externalCluster"] == nil {
			etcd["peerAddress"] = h.IP()
		}
	}
	network := child(spec, "network")
	balancer := child(network, "nodeLocalLoadBalancing")
	if _, said := balancer["enabled"]; !said {
		balancer["enabled"] = balance
	}
	if keepalived(c) != nil {
		setPeers(network, h)
	}
	data, err := yaml.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("writing k0s.yaml: %w", err)
	}
	return data, nil
}

func defaults(c *runtime.Cluster) object {
	api, network := object{}, defaultNetwork(c)
	endpointDefaults(c, api, network)
	spec := object{
		"images":    object{"default_pull_policy": "IfNotPresent"},
		"network":   network,
		"storage":   object{"type": typeEtcd},
		"telemetry": object{"enabled": false},
	}
	if len(api) > 0 {
		spec["api"] = api
	}
	return object{"spec": spec}
}

// defaultNetwork is as the environment says, or else of the family of the hosts' addresses. k0s has a section of its own for a second
// family, which is always IPv6: the address of the API server tells it which one goes first.
func defaultNetwork(c *runtime.Cluster) object {
	env := c.HostEnv(c.First())
	pods := cmp.Or(env[envPodCIDR], runtime.SameFamilies(c.First().IP(), defaultPods, defaultPods6))
	services := cmp.Or(env[envSvcCIDR], runtime.SameFamilies(pods, defaultSvc, defaultSvc6))
	if !(runtime.Networks{Pods: pods}).Dual() {
		return object{"podCIDR": pods, "serviceCIDR": services}
	}
	pods4, pods6 := byFamily(pods)
	services4, services6 := byFamily(services)
	return object{
		"podCIDR": pods4, "serviceCIDR": services4,
		"dualStack": object{"enabled": true, "IPv6podCIDR": pods6, "IPv6serviceCIDR": services6},
	}
}

// byFamily takes a list of two networks apart.
func byFamily(list string) (network4, network6 string) {
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); runtime.IsIPv6(part) {
			network6 = part
		} else {
			network4 = part
		}
	}
	return network4, network6
}

// networks are those of the Clusterfile's document over our defaults, the family of the hosts' addresses first.
func networks(c *runtime.Cluster) runtime.Networks {
	n := runtime.Networks{Pods: textAt(c, "network", "podCIDR"), Services: textAt(c, "network", "serviceCIDR")}
	if !trueAt(c, "network", "dualStack", "enabled") {
		return n
	}
	pods6, services6 := textAt(c, "network", "dualStack", "IPv6podCIDR"), textAt(c, "network", "dualStack", "IPv6serviceCIDR")
	if runtime.IsIPv6(c.First().IP()) {
		return runtime.Networks{Pods: pods6 + "," + n.Pods, Services: services6 + "," + n.Services}
	}
	return runtime.Networks{Pods: n.Pods + "," + pods6, Services: n.Services + "," + services6}
}

// ServiceIPs are where k0s puts them.
func (Distribution) ServiceIPs(c *runtime.Cluster) (api, dns string) {
	return networks(c).ServiceIPs()
}

// nodeMask6 is what a node gets of the pods' network of IPv6: /117, as k0s tells the controller manager.
func nodeMask6(c *runtime.Cluster) int {
	extra, _ := at(c, "controllerManager", "extraArgs").(object)
	var args []string
	for name, value := range extra {
		args = append(args, fmt.Sprintf("%s=%v", name, value))
	}
	return runtime.NodeMask6(117, args)
}

// onlyIPv6: k0s takes that for an experiment, which is to be asked for.
func onlyIPv6(c *runtime.Cluster) bool {
	n := networks(c)
	return !n.Dual() && runtime.IsIPv6(n.Pods)
}

// names are those of the API server's certificate: k0s itself adds only what it finds on the host.
func names(c *runtime.Cluster, api object, kept []any) []any {
	all := []any{runtime.APIServerName, "127.0.0.1"}
	if own := c.First().Loopback(); own != "127.0.0.1" {
		all = append(all, own)
	}
	add := func(name any) {
		if name != "" && name != nil && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	n := networks(c)
	for _, h := range c.ControlPlanes() {
		for _, ip := range c.NodeIPs(h, n) {
			add(ip)
		}
	}
	add(api["externalAddress"])
	for _, ip := range virtualIPs(c) {
		add(ip)
	}
	own, _ := api["sans"].([]any)
	for _, name := range slices.Concat(own, kept) {
		add(name)
	}
	for _, name := range c.FurtherNames() {
		add(name)
	}
	return all
}

// setPeers leaves the host itself out of what keepalived talks to, and says from where.
func setPeers(network object, h *runtime.Host) {
	k := child(child(network, "controlPlaneLoadBalancing"), "keepalived")
	list, _ := k["vrrpInstances"].([]any)
	instances := make([]any, len(list))
	for i, v := range list {
		instance, _ := v.(object)
		instance = maps.Clone(instance)
		if peers, _ := instance["unicastPeers"].([]any); len(peers) > 0 {
			instance["unicastPeers"] = slices.DeleteFunc(slices.Clone(peers), func(p any) bool { return p == h.IP() })
			instance["unicastSourceIP"] = h.IP()
		}
		instances[i] = instance
	}
	k["vrrpInstances"] = instances
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
			if v == nil {
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

// at is what the Clusterfile's document, over our defaults, has at a path below spec; nil where it has nothing.
func at(c *runtime.Cluster, keys ...string) any {
	v := merge(defaults(c), c.File.K0s)["spec"]
	for _, k := range keys {
		o, _ := v.(object)
		v = o[k]
	}
	return v
}

func textAt(c *runtime.Cluster, keys ...string) string {
	s, _ := at(c, keys...).(string)
	return s
}

func trueAt(c *runtime.Cluster, keys ...string) bool {
	b, _ := at(c, keys...).(bool)
	return b
}

func portAt(c *runtime.Cluster, standard int, keys ...string) int {
	if p, ok := at(c, keys...).(int64); ok {
		return int(p)
	}
	return standard
}

// ownEtcd tells whether control planes keep the datastore themselves, as members of one etcd.
func ownEtcd(c *runtime.Cluster) bool {
	return textAt(c, "storage", "type") == typeEtcd && at(c, "storage", "etcd", "externalCluster") == nil
}

// joinable tells whether a second control plane can use the datastore; k0s makes no token for one otherwise.
func joinable(c *runtime.Cluster) bool {
	if ownEtcd(c) {
		return true
	}
	source := textAt(c, "storage", "kine", "dataSource")
	scheme, rest, found := strings.Cut(source, ":")
	switch {
	case textAt(c, "storage", "type") != typeKine || !found || scheme == "sqlite":
		return false
	case scheme == "nats":
		return strings.Contains(rest, "noEmbed")
	}
	return true
}

// keepalived is the virtual address' settings; nil where it is not wanted.
func keepalived(c *runtime.Cluster) object {
	if !trueAt(c, "network", "controlPlaneLoadBalancing", "enabled") {
		return nil
	}
	o, _ := at(c, "network", "controlPlaneLoadBalancing", "keepalived").(object)
	if o == nil {
		o = object{}
	}
	return o
}

// vrrp are keepalived's instances.
func vrrp(c *runtime.Cluster) []object {
	list, _ := keepalived(c)["vrrpInstances"].([]any)
	var instances []object
	for _, v := range list {
		if o, ok := v.(object); ok {
			instances = append(instances, o)
		}
	}
	return instances
}

// virtualIPs are the addresses that keepalived moves about.
func virtualIPs(c *runtime.Cluster) []string {
	var ips []string
	for _, o := range vrrp(c) {
		list, _ := o["virtualIPs"].([]any)
		for _, v := range list {
			text, _ := v.(string)
			if p, err := netip.ParsePrefix(text); err == nil {
				ips = append(ips, p.Addr().String())
			}
		}
	}
	return ips
}

// ignoresChecks: the Clusterfile wants k0s to start whatever its own look at the host has found.
func ignoresChecks(c *runtime.Cluster) bool {
	return annotations(c)[ignoreChecks] == "true"
}

func annotations(c *runtime.Cluster) object {
	meta, _ := c.File.K0s["metadata"].(object)
	o, _ := meta["annotations"].(object)
	return o
}
