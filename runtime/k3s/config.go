// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// settings are the keys of a config.yaml. What was read from a host has lists as []any.
type settings map[string]any

const (
	header = "# Written by sealer. Change the K3s document of the Clusterfile instead.\n"

	apiPort  = 6443
	podCIDR  = "10.42.0.0/16"
	svcCIDR  = "10.43.0.0/16"
	podCIDR6 = "fd00:10:42::/56"
	svcCIDR6 = "fd00:10:43::/112"
	taint    = "node-role.kubernetes.io/control-plane:NoSchedule"
)

// critical are the settings that must be the same on all servers: one that differs does not join
// (docs.k3s.io/datastore/ha-embedded, "critical configuration value mismatch").
func critical() []string {
	return []string{
		"agent-token", "cluster-cidr", "cluster-dns", "cluster-domain", "disable-cloud-controller", "disable-helm-controller",
		"disable-network-policy", "egress-selector-mode", "embedded-registry", "flannel-backend", "flannel-external-ip",
		"flannel-ipv6-masq", "secrets-encryption", "secrets-encryption-provider", "service-cidr",
	}
}

// external are those of an external datastore, which all servers share as well.
func external() []string {
	return []string{"datastore-endpoint", "datastore-cafile", "datastore-certfile", "datastore-keyfile", "kine-tls"}
}

// atFirstStart are settings that k3s reads when a node starts for the first time. They stay as they were.
func atFirstStart() []string {
	return []string{"token", "cluster-init", "server", "node-name", "node-taint", "node-label"}
}

// files are the settings that name files. A relative path is one of the rootfs.
func files() []string {
	return []string{
		"datastore-cafile", "datastore-certfile", "datastore-keyfile", "etcd-s3-endpoint-ca", "flannel-conf", "flannel-cni-conf",
		"vpn-auth-file", "image-credential-provider-config",
	}
}

// tokens are the cluster's two secrets. They stand in files of mode 0600 on hosts and nowhere else.
type tokens struct{ server, agent host.Secret }

// asked is what the Clusterfile says for hosts like h.
func asked(c *runtime.Cluster, h *runtime.Host) settings {
	switch {
	case c.File.K3s == nil:
		return nil
	case isServer(h):
		return c.File.K3s.Server
	}
	return c.File.K3s.Agent
}

// common are the settings of every host: our defaults, the Clusterfile's over them, and over those what sealer alone
// knows.
func common(c *runtime.Cluster, h *runtime.Host) settings {
	s := settings{}
	if image := pauseImage(c); image != "" {
		s["pause-image"] = image
	}
	for key, v := range asked(c, h) {
		if secret, ok := v.(host.Secret); ok {
			v = secret.Reveal()
		}
		if file, ok := v.(string); ok && slices.Contains(files(), key) && !path.IsAbs(file) {
			v = path.Join(filesDir, path.Clean("/"+file))
		}
		s[key] = v
	}
	if onDocker(c, h) {
		s["kubelet-arg"] = dockerArgs(c, h)
	} else if args := containerdArgs(c, h); len(args) > 0 {
		s["kubelet-arg"] = args
	}
	s["node-name"], s["node-ip"] = h.Facts.NodeName(), h.IP()
	if ips := c.NodeIPs(h, networks(c)); len(ips) > 1 {
		s["node-ip"] = ips
	}
	s["disable-default-registry-endpoint"] = true
	return s
}

// serverSettings are those of a control plane that starts the cluster, or of one that joins it when join is not empty.
func serverSettings(c *runtime.Cluster, h *runtime.Host, t tokens, join string) settings {
	s := common(c, h)
	maps.Copy(s, defaults(c, s))
	s["token"], s["agent-token"] = t.server.Reveal(), t.agent.Reveal()
	s["advertise-address"] = h.IP()
	s["tls-san"] = serverNames(c, h)
	// As with kubeadm: where there are workers, pods are theirs.
	if _, said := s["node-taint"]; !said && len(c.Workers()) > 0 {
		s["node-taint"] = []string{taint}
	}
	if s["datastore-endpoint"] != nil {
		return s
	}
	switch {
	case join != "":
		delete(s, "cluster-init")
		s["server"] = join
	case len(c.ControlPlanes()) > 1:
		s["cluster-init"] = true
	}
	return s
}

// serverNames are those of the API server's certificate, besides localhost and those that k3s adds itself.
func serverNames(c *runtime.Cluster, h *runtime.Host) []string {
	names := append([]string{runtime.APIServerName}, c.NodeIPs(h, networks(c))...)
	for _, name := range slices.Concat(texts(asked(c, h)["tls-san"]), c.EndpointNames(), c.FurtherNames()) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// defaults are for keys that s leaves open.
func defaults(c *runtime.Cluster, s settings) settings {
	d := settings{"write-kubeconfig-mode": "0600"}
	env := c.HostEnv(c.First())
	if env["PodCIDR"] != "" {
		d["cluster-cidr"] = env["PodCIDR"]
	} else if runtime.IsIPv6(c.First().IP()) {
		d["cluster-cidr"] = podCIDR6
	}
	pods := cmp.Or(strings.Join(texts(s["cluster-cidr"]), ","), strings.Join(texts(d["cluster-cidr"]), ","), podCIDR)
	if env["SvcCIDR"] != "" {
		d["service-cidr"] = env["SvcCIDR"]
	} else if services := runtime.SameFamilies(pods, svcCIDR, svcCIDR6); services != svcCIDR {
		d["service-cidr"] = services
	}
	if strings.Contains(pods, ":") {
		d["flannel-ipv6-masq"] = true // or else nobody outside finds the way back to pods
	}
	maps.DeleteFunc(d, func(key string, _ any) bool { _, said := s[key]; return said })
	return d
}

// networks are the pods' and the services' addresses, as lists with commas.
func networks(c *runtime.Cluster) runtime.Networks {
	s := settings{}
	if c.File.K3s != nil {
		s = c.File.K3s.Server
	}
	d := defaults(c, s)
	one := func(key, otherwise string) string {
		for _, from := range []settings{s, d} {
			if v := from[key]; v != nil {
				return strings.Join(texts(v), ",")
			}
		}
		return otherwise
	}
	return runtime.Networks{Pods: one("cluster-cidr", podCIDR), Services: one("service-cidr", svcCIDR)}
}

// ServiceIPs are where k3s puts them, or is told to.
func (Distribution) ServiceIPs(c *runtime.Cluster) (api, dns string) {
	api, dns = networks(c).ServiceIPs()
	if c.File.K3s != nil {
		if said := texts(c.File.K3s.Server["cluster-dns"]); len(said) > 0 {
			dns, _, _ = strings.Cut(said[0], ",")
		}
	}
	return api, dns
}

// nodeMask6 is what a node gets of the pods' network of IPv6: /64 by itself.
func nodeMask6(c *runtime.Cluster) int {
	return runtime.NodeMask6(64, texts(serverAsked(c)["kube-controller-manager-arg"]))
}

// agentSettings are those of a worker.
func agentSettings(c *runtime.Cluster, h *runtime.Host, token host.Secret) settings {
	s := common(c, h)
	s["token"], s["server"] = token.Reveal(), agentServer(c)
	return s
}

// agentServer is where agents find the cluster when they start.
func agentServer(c *runtime.Cluster) string {
	if e := c.File.Endpoint; e.External != "" {
		return "https://" + e.HostPort(port(c))
	}
	return endpoint(c)
}

// endpoint is where joining hosts find the cluster. The name leads to a control plane that is there, by /etc/hosts.
func endpoint(c *runtime.Cluster) string {
	return fmt.Sprintf("https://%s:%d", runtime.APIServerName, port(c))
}

// address is where one control plane is found.
func address(c *runtime.Cluster, h *runtime.Host) string {
	return "https://" + net.JoinHostPort(h.IP(), strconv.Itoa(port(c)))
}

// port is the API server's.
func port(c *runtime.Cluster) int {
	if c.File.K3s != nil {
		if p, ok := c.File.K3s.Server["https-listen-port"].(int64); ok {
			return int(p)
		}
	}
	return apiPort
}

// texts is a key that takes several values, as a list.
func texts(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []string:
		return slices.Clone(v)
	case []any:
		var list []string
		for _, e := range v {
			list = append(list, fmt.Sprint(e))
		}
		return list
	}
	return nil
}

func (s settings) marshal() ([]byte, error) {
	data, err := yaml.Marshal(map[string]any(s))
	if err != nil {
		return nil, fmt.Errorf("writing k3s' configuration: %w", err)
	}
	return append([]byte(header), data...), nil
}

// present is the configuration on a host; nil where there is none.
func present(ctx context.Context, h *runtime.Host) (settings, error) {
	data, err := host.ReadFile(ctx, h.Runner, configFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var s settings
	if err := yaml.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("%s: reading %q: %w", h, configFile, errUnreadable) // the text may hold the token
	}
	return s, nil
}

var errUnreadable = errors.New("it is not a mapping in YAML")

// settle keeps of a started host's settings those that k3s would not take another value for. The error is a *FixedError
// where the Clusterfile asks for another.
func (s settings) settle(c *runtime.Cluster, h *runtime.Host, have settings) error {
	var changed []string
	for _, key := range critical() {
		want, said := asked(c, h)[key]
		if now, there := have[key]; said && (!there || !same(now, want)) {
			changed = append(changed, key)
		}
	}
	if len(changed) > 0 {
		return &FixedError{Host: h.String(), Keys: changed}
	}
	s.take(have, slices.Concat(critical(), atFirstStart()))
	return nil
}

// take gives s the values that from has for the keys, and none for those that it has not.
func (s settings) take(from settings, keys []string) {
	for _, key := range keys {
		if v, there := from[key]; there {
			s[key] = v
		} else {
			delete(s, key)
		}
	}
}

func same(a, b any) bool {
	if la, lb := texts(a), texts(b); la != nil || lb != nil {
		return slices.Equal(la, lb)
	}
	return reflect.DeepEqual(a, b)
}

// FixedError is a setting that a started cluster keeps.
type FixedError struct {
	Host string
	Keys []string
}

func (e *FixedError) Error() string {
	return fmt.Sprintf("%s: the cluster was started with other values of %s, which cannot be changed", e.Host, strings.Join(e.Keys, ", "))
}

// Hint says what can be done.
func (e *FixedError) Hint() string {
	return "put the old values into the K3s document of the Clusterfile, or delete the cluster and run it anew"
}

// pauseImage is the packed sandbox image: k3s' default changes with its versions.
func pauseImage(c *runtime.Cluster) string {
	for _, name := range c.Images {
		if r := runtime.Repository(name); r == "mirrored-pause" || r == "pause" {
			return name
		}
	}
	return ""
}
