// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/runtime"
)

// Minors are those that it is known to work with.
func (Distribution) Minors() runtime.Minors { return runtime.Minors{Oldest: 31, Newest: 36} }

// Memory that k0s asks for, in bytes.
const (
	controllerMemory = 1 << 30
	workerMemory     = 512 << 20
)

// Check finds what k0s would stop at, on all hosts at once, and settings that cannot go together.
func (d Distribution) Check(c *runtime.Cluster) []runtime.Problem {
	problems := append(d.checkImage(c), checkSettings(c)...)
	problems = append(problems, runtime.NetworkProblems(c, networks(c), nodeMask6(c))...)
	minor, _ := minorOf(version(c))
	for _, h := range c.Hosts {
		if h.Lost != nil {
			continue
		}
		add := func(check, fix, format string, args ...any) {
			problems = append(problems, runtime.Problem{Host: h.String(), Check: check, What: fmt.Sprintf(format, args...), Fix: fix})
		}
		problems = append(problems, runtime.InitProblems(h)...)
		least := int64(workerMemory)
		if isController(h) {
			least = controllerMemory
		}
		if h.Facts.Memory < least && !ignoresChecks(c) {
			add("memory", "use a host with more memory", "it has %d MiB of memory, k0s needs %d", h.Facts.Memory>>20, least>>20)
		}
		if !ignoresChecks(c) {
			problems = append(problems, runtime.SELinuxProblems(h, "the annotation "+ignoreChecks+`: "true" of the Clusterfile's ClusterConfig`)...)
		}
		problems = append(problems, runtime.PortProblems(h, ports(c, h)...)...)
		if h.Facts.Cgroup == 1 && minor >= 35 && (!acceptsCgroup1(c) || !ignoresChecks(c)) {
			add("cgroup", "boot the host with cgroup v2, or accept v1 in the Clusterfile's ClusterConfig: the annotation "+ignoreChecks+
				`: "true" and a worker profile named default with failCgroupV1: false`, "it has cgroup v1, which the kubelet of %s refuses", version(c))
		}
	}
	return problems
}

// ports are those that k0s listens on, on a host.
func ports(c *runtime.Cluster, h *runtime.Host) []int {
	list := []int{10250}
	if !trueAt(c, "network", "kubeProxy", "disabled") {
		list = append(list, 10249, 10256)
	}
	if !isController(h) {
		return list
	}
	list = append(list,
		portAt(c, apiPort, "api", "port"), portAt(c, joinPort, "api", "k0sApiPort"),
		portAt(c, agentPort, "konnectivity", "agentPort"), portAt(c, agentPort+1, "konnectivity", "adminPort"),
		10257, 10259,
	)
	if ownEtcd(c) {
		list = append(list, 2379, etcdPort)
	}
	if keepalived(c) != nil {
		list = append(list, portAt(c, 6444, "network", "controlPlaneLoadBalancing", "keepalived", "userSpaceProxyBindPort"))
	}
	return list
}

// acceptsCgroup1: the worker profile named default takes the place of k0s' own, for every node.
func acceptsCgroup1(c *runtime.Cluster) bool {
	profiles, _ := at(c, "workerProfiles").([]any)
	for _, p := range profiles {
		o, _ := p.(object)
		values, _ := o["values"].(object)
		if v, ok := values["failCgroupV1"].(bool); ok && !v && o["name"] == "default" {
			return true
		}
	}
	return false
}

// Images are those that k0s runs with these settings, by the ends of their names.
func (Distribution) Images(c *runtime.Cluster) []string {
	// image is the end of a name, of k0s' own or of what the Clusterfile has in its place.
	image := func(standard string, keys ...string) string {
		if name := textAt(c, append(append([]string{"images"}, keys...), "image")...); name != "" {
			return runtime.Repository(name)
		}
		return standard
	}
	images := []string{
		image("pause", "pause"), image("apiserver-network-proxy-agent", "konnectivity"),
		image("coredns", "coredns"), image("metrics-server", "metricsserver"),
	}
	if !trueAt(c, "network", "kubeProxy", "disabled") {
		images = append(images, image("kube-proxy", "kubeproxy"))
	}
	switch textAt(c, "network", "provider") {
	case "", "kuberouter":
		images = append(images, image("kube-router", "kuberouter", "cni"), image("cni-node", "kuberouter", "cniInstaller"))
	case "calico":
		images = append(images, image("calico-cni", "calico", "cni"), image("calico-node", "calico", "node"), image("calico-kube-controllers", "calico", "kubecontrollers"))
	}
	if name := balancerImage(c); name != "" && balancing(c) {
		images = append(images, name)
	}
	return images
}

// balancerImage is the repository of the nodes' load balancers; empty for a type that there is not.
func balancerImage(c *runtime.Cluster) string {
	section, standard := "", ""
	switch textAt(c, "network", "nodeLocalLoadBalancing", "type") {
	case "", typeEnvoy:
		section, standard = "envoyProxy", "envoy-distroless"
	case typeTraefik:
		section, standard = "traefik", "traefik"
	}
	if name := textAt(c, "network", "nodeLocalLoadBalancing", section, "image", "image"); name != "" {
		return runtime.Repository(name)
	}
	return standard
}

// balancing tells whether nodes will have load balancers of their own, in a new cluster.
func balancing(c *runtime.Cluster) bool {
	if b, said := at(c, "network", "nodeLocalLoadBalancing", "enabled").(bool); said {
		return b
	}
	return balances(c)
}

func (d Distribution) checkImage(c *runtime.Cluster) []runtime.Problem {
	var problems []runtime.Problem
	add := func(check, fix, format string, args ...any) {
		problems = append(problems, runtime.Problem{Check: check, What: fmt.Sprintf(format, args...), Fix: fix})
	}
	const fixVersion = "say it in the Kubefile: LABEL " + clusterimage.LabelClusterRuntimeVersion + "=v1.36.3+k0s.2"
	switch {
	case version(c) == "":
		add("version", fixVersion, "the image does not say which version of k0s it holds")
	case !d.Minors().Include(version(c)):
		add("version", "use an image with one of these versions", "the image holds k0s %s; this sealer installs %s", version(c), d.Minors())
	}
	for _, name := range d.Images(c) {
		if !slices.ContainsFunc(c.Images, func(image string) bool { return runtime.Repository(image) == name }) {
			add("images", "list it in the image's imageList, as k0s airgap list-images --all prints it, and build again", "the image does not pack %s", name)
		}
	}
	return problems
}

// checkSettings finds what k0s would refuse, or take and not work with, before anything is touched.
func checkSettings(c *runtime.Cluster) []runtime.Problem {
	var problems []runtime.Problem
	add := func(fix, format string, args ...any) {
		problems = append(problems, runtime.Problem{Check: "settings", What: "the Clusterfile: " + fmt.Sprintf(format, args...), Fix: fix})
	}
	for _, kind := range slices.Sorted(maps.Keys(c.File.Kubeadm)) {
		if c.File.Kubeadm[kind] != nil {
			add("leave the document out: k0s is set by a "+configAPI+" ClusterConfig", "the image holds k0s, which knows no %s", kind)
		}
	}
	if c.File.K3s != nil {
		add("leave the document out: k0s is set by a "+configAPI+" ClusterConfig", "the image holds k0s, which knows no K3s")
	}
	for _, name := range slices.Sorted(maps.Keys(annotations(c))) {
		if name != ignoreChecks || annotations(c)[name] != "true" && annotations(c)[name] != "false" {
			add("write "+ignoreChecks+`: "true", or leave it out`, "the annotation %s: %q of the ClusterConfig means nothing", name, annotations(c)[name])
		}
	}
	minor, _ := minorOf(version(c))
	if ignoresChecks(c) && minor < ignoreSince {
		add("leave the annotation out", "k0s %s cannot pass over its checks", version(c))
	}
	if onlyIPv6(c) && minor < ipv6Since {
		add(fmt.Sprintf("use an image with k0s 1.%d or later, or IPv4 beside it: PodCIDR=%s,%s", ipv6Since, defaultPods, defaultPods6), "k0s %s cannot do without IPv4", version(c))
	}
	external := textAt(c, "api", "externalAddress")
	switch provider := textAt(c, "network", "provider"); provider {
	case "", "kuberouter", "calico", "custom":
	default:
		add("write kuberouter, calico or custom", "the network provider %q is none of k0s'", provider)
	}
	switch kind := textAt(c, "network", "nodeLocalLoadBalancing", "type"); {
	case kind != "" && kind != typeEnvoy && kind != typeTraefik:
		add("write "+typeEnvoy+" or "+typeTraefik, "the node-local load balancer %q is none of k0s'", kind)
	case kind == typeTraefik && minor < 36:
		add("write "+typeEnvoy, "the node-local load balancer Traefik came with k0s 1.36, the image holds %s", version(c))
	}
	if external != "" && balancing(c) {
		add("choose one of them", "node-local load balancing and an externalAddress exclude each other")
	}
	if portAt(c, apiPort, "api", "port") == portAt(c, joinPort, "api", "k0sApiPort") {
		add("choose two ports", "the API server and k0s' own API cannot share a port")
	}
	if len(c.ControlPlanes()) > 1 && !joinable(c) {
		add("use k0s' own etcd, or kine with a database server", "several control planes cannot share this storage")
	}
	switch kind := textAt(c, "storage", "type"); kind {
	case typeEtcd, typeKine:
	default:
		add("write etcd or kine", "the storage %q is none of k0s'", kind)
	}
	problems = append(problems, checkEndpoint(c)...)
	problems = append(problems, checkProfiles(c)...)
	return append(problems, checkKeepalived(c)...)
}

// checkProfiles: k0s itself sets these.
func checkProfiles(c *runtime.Cluster) []runtime.Problem {
	var problems []runtime.Problem
	profiles, _ := at(c, "workerProfiles").([]any)
	for _, p := range profiles {
		o, _ := p.(object)
		values, _ := o["values"].(object)
		for _, key := range []string{"clusterDNS", "clusterDomain", "staticPodURL"} {
			if _, there := values[key]; there {
				problems = append(problems, runtime.Problem{
					Check: "settings", What: fmt.Sprintf("the Clusterfile: the worker profile %q sets %s, which k0s sets itself", o["name"], key), Fix: "leave it out of the worker profile",
				})
			}
		}
		if o["name"] != "default" {
			problems = append(problems, runtime.Problem{
				Check: "settings", What: fmt.Sprintf("the Clusterfile: nodes use the worker profile default, not %q", o["name"]), Fix: "name the worker profile default: it takes the place of k0s' own",
			})
		}
	}
	return problems
}

func checkKeepalived(c *runtime.Cluster) []runtime.Problem {
	k := keepalived(c)
	if k == nil {
		return nil
	}
	var problems []runtime.Problem
	add := func(fix, format string, args ...any) {
		problems = append(problems, runtime.Problem{Check: "settings", What: "the Clusterfile: " + fmt.Sprintf(format, args...), Fix: fix})
	}
	if kind := textAt(c, "network", "controlPlaneLoadBalancing", "type"); kind != "" && kind != typeKeepalive {
		add("write "+typeKeepalive, "the control plane load balancer %q is none of k0s'", kind)
	}
	if len(vrrp(c)) == 0 {
		add("give keepalived a vrrpInstance with virtualIPs and authPass", "controlPlaneLoadBalancing has no virtual address")
	}
	servers, _ := k["virtualServers"].([]any)
	if external := textAt(c, "api", "externalAddress"); external != "" && len(servers) > 0 {
		add("leave the virtualServers out", "virtualServers and an externalAddress exclude each other")
	}
	for _, o := range vrrp(c) {
		switch pass, _ := o["authPass"].(string); {
		case pass == "":
			add("give it one of 8 characters at most", "a vrrpInstance has no authPass")
		case len(pass) > 8:
			add("give it one of 8 characters at most", "an authPass of a vrrpInstance has more than 8 characters")
		}
		list, _ := o["virtualIPs"].([]any)
		if len(list) == 0 {
			add("write virtualIPs: [10.0.0.10/24]", "a vrrpInstance has no virtualIPs")
		}
		for _, v := range list {
			text, _ := v.(string)
			p, err := netip.ParsePrefix(text)
			if err != nil {
				add("write virtualIPs: [10.0.0.10/24]", "the virtual address %q is not an address with the length of its network", text)
				continue
			}
			for _, h := range c.Hosts {
				if h.IP() == p.Addr().String() {
					add("use an address that no host has", "the virtual address %s is that of the host %s", p.Addr(), h)
				}
			}
		}
		if id, ok := o["virtualRouterID"].(int64); ok && (id < 1 || id > 255) {
			add("use a number from 1 to 255", "the virtualRouterID %d is none", id)
		}
		if peers, _ := o["unicastPeers"].([]any); len(peers) > 0 {
			for _, h := range c.ControlPlanes() {
				if !slices.Contains(peers, any(h.IP())) {
					add("list the addresses of all control planes", "the unicastPeers do not have %s", h.IP())
				}
			}
		}
	}
	return problems
}
