// SPDX-License-Identifier: Apache-2.0

// Package vip is what control planes run so that one of them always has the cluster's virtual address: a pod of the kubelet's
// own, of an image that a ClusterImage packs, with its configuration. It makes texts, and touches nothing.
package vip

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// Where things are on a control plane.
const (
	Dir         = "/var/lib/sealer/vip"
	ConfigFile  = Dir + "/keepalived.conf" // mode 0600: it holds the password
	AddressFile = Dir + "/address"         // lines "ADDRESS INTERFACE", for who takes them away
	PodFile     = "sealer-vip.yaml"        // in the kubelet's folder of pods
)

// The programs that carry an address, by the ends of their images' names, the preferred one first.
const (
	Keepalived = "keepalived"
	KubeVIP    = "kube-vip"
)

// PasswordLength is what VRRP takes of a password (RFC 2338, 5.3.6.2).
const PasswordLength = 8

// Place is one control plane with what it has to carry.
type Place struct {
	Program  string // Keepalived or KubeVIP
	Image    string
	Address  netip.Addr
	Bits     int    // length of the address' network as the interface has it; 0: the address alone
	Link     string // name of the interface
	Own      string // IP address of the control plane
	OwnLink  string // name of the interface that has it, by which control planes hear one another. Default Link
	Peers    []string
	Rank     int // of the control plane among all; the lower one is preferred where nobody has the address
	APIPort  int
	Password string
	// Before is an address that this one takes the place of, as long as some still use it: keepalived hands it on beside the other.
	Before Carried
	// Node is the path of sealer-node on the host, which asks the API server. Kubeconfig is the admin's, for kube-vip.
	Node, Kubeconfig string
}

// Carried is an address on an interface. The zero value is none.
type Carried struct {
	Address netip.Addr
	Bits    int // as those of a Place
	Link    string
}

// Find is the first of the images that can carry an address, with its program.
func Find(images []string, repository func(string) string) (program, image string) {
	for _, program := range []string{Keepalived, KubeVIP} {
		for _, image := range images {
			if repository(image) == program {
				return program, image
			}
		}
	}
	return "", ""
}

// RouterID is the number by which the control planes of a cluster know one another's advertisements: the last byte of the address, as that is
// what differs between clusters of one network. 0 is none (RFC 5798, 5.2.3).
func RouterID(address netip.Addr) int {
	raw := address.AsSlice()
	if len(raw) == 0 || raw[len(raw)-1] == 0 {
		return 255
	}
	return int(raw[len(raw)-1])
}

// prefix is the address as the interface is to have it.
func (c Carried) prefix() string {
	bits := c.Bits
	if bits == 0 {
		bits = c.Address.BitLen()
	}
	return netip.PrefixFrom(c.Address, bits).String()
}

// carried are all addresses, the lasting one last.
func (p Place) carried() []Carried {
	list := []Carried{p.Before, {p.Address, p.Bits, p.Link}}
	return slices.DeleteFunc(list, func(c Carried) bool { return !c.Address.IsValid() })
}

// Addresses is the text of AddressFile.
func (p Place) Addresses() string {
	var b strings.Builder
	for _, c := range p.carried() {
		b.WriteString(c.Address.String() + " " + c.Link + "\n")
	}
	return b.String()
}

// Config is keepalived's (https://www.keepalived.org/manpage.html). The control plane that has the address keeps it until its API
// server is not ready, or it is silent for three seconds; there is no way back without need. An instance is called by its address: keepalived
// goes on with those that have the same name after it was told of another configuration.
func (p Place) Config() string {
	var b strings.Builder
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(&b, format+"\n", args...) }
	line("# Written by sealer; it follows the control planes that the cluster has.")
	line("global_defs {\n\tscript_user root\n\tenable_script_security\n}")
	line("vrrp_script api_server {")
	line("\tscript \"%s endpoint check --server %s\"", p.Node, net.JoinHostPort(p.Own, strconv.Itoa(p.APIPort)))
	line("\tinterval 2\n\ttimeout 3\n\tfall 2\n\trise 2\n\tinit_fail\n}")
	for _, c := range p.carried() {
		// keepalived sends and hears on this interface alone: it is that of the control planes' own addresses, wherever the virtual one stands.
		heard := cmp.Or(p.OwnLink, c.Link)
		line("vrrp_instance sealer_%s {\n\tstate BACKUP\n\tnopreempt\n\tinterface %s\n\tvirtual_router_id %d\n\tpriority %d\n\tadvert_int 1",
			c.Address, heard, RouterID(c.Address), max(200-p.Rank, 1))
		if c.Address.Is4() {
			line("\tversion 2\n\tauthentication {\n\t\tauth_type PASS\n\t\tauth_pass %s\n\t}", p.Password)
		} else {
			line("\tversion 3") // which has no passwords
		}
		if len(p.Peers) > 0 {
			line("\tunicast_src_ip %s\n\tcheck_unicast_src\n\tunicast_peer {\n\t\t%s\n\t}", p.Own, strings.Join(slices.Sorted(slices.Values(p.Peers)), "\n\t\t"))
		}
		line("\tvirtual_ipaddress {\n\t\t%s dev %s\n\t}", c.prefix(), c.Link)
		if heard != c.Link { // without its link the address is of no use
			line("\ttrack_interface {\n\t\t%s\n\t}", c.Link)
		}
		line("\ttrack_script {\n\t\tapi_server\n\t}\n}")
	}
	return b.String()
}

type object = map[string]any

// Pod is the manifest of the pod.
func (p Place) Pod() ([]byte, error) {
	container := p.keepalived()
	volumes := []any{
		object{"name": "config", "hostPath": object{"path": Dir, "type": "Directory"}},
		object{"name": "sealer-node", "hostPath": object{"path": p.Node, "type": "File"}},
		object{"name": "run", "emptyDir": object{"medium": "Memory"}},
	}
	spec := object{}
	if p.Program == KubeVIP {
		container = p.kubeVIP()
		volumes = []any{object{"name": "kubeconfig", "hostPath": object{"path": p.Kubeconfig, "type": "File"}}}
		spec["hostAliases"] = []any{object{"ip": "127.0.0.1", "hostnames": []any{"kubernetes"}}}
	}
	container["name"], container["image"], container["imagePullPolicy"] = p.Program, p.Image, "IfNotPresent"
	container["resources"] = object{"requests": object{"cpu": "10m", "memory": "32Mi"}}
	spec["containers"], spec["volumes"] = []any{container}, volumes
	spec["hostNetwork"], spec["enableServiceLinks"] = true, false
	spec["priorityClassName"], spec["priority"] = "system-node-critical", 2000001000
	spec["terminationGracePeriodSeconds"] = 10
	data, err := yaml.Marshal(object{
		"apiVersion": "v1", "kind": "Pod", "spec": spec,
		"metadata": object{"name": p.Program, "namespace": "kube-system", "labels": object{"app.kubernetes.io/name": p.Program, "app.kubernetes.io/managed-by": "sealer"}},
	})
	if err != nil {
		return nil, fmt.Errorf("writing the pod of %s: %w", p.Program, err)
	}
	return append([]byte("# Written by sealer: it carries the virtual address of this cluster's API servers.\n"), data...), nil
}

func (p Place) keepalived() object {
	return object{
		"command": []any{
			"keepalived", "--vrrp", "--dont-fork", "--log-console", "--use-file=" + ConfigFile, "--pid=/run/keepalived.pid", "--vrrp_pid=/run/vrrp.pid",
		},
		// keepalived takes a check that it cannot begin for one that went well, and it begins none without SETGID.
		"securityContext": capable("NET_ADMIN", "NET_RAW", "SETGID"),
		"volumeMounts": []any{
			object{"name": "config", "mountPath": Dir, "readOnly": true},
			object{"name": "sealer-node", "mountPath": p.Node, "readOnly": true},
			object{"name": "run", "mountPath": "/run"},
		},
	}
}

// capable is root without any power but these.
func capable(powers ...any) object {
	return object{
		"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
		"capabilities": object{"drop": []any{"ALL"}, "add": powers},
	}
}

// kubeVIP is as https://kube-vip.io/docs/installation/static has it: by ARP, with an election among the control planes. It has not been tried.
func (p Place) kubeVIP() object {
	env := []any{}
	for _, kv := range [][2]string{
		{"vip_arp", "true"}, {"port", strconv.Itoa(p.APIPort)}, {"vip_interface", p.Link}, {"vip_subnet", strconv.Itoa(p.Address.BitLen())},
		{"cp_enable", "true"}, {"cp_namespace", "kube-system"}, {"svc_enable", "false"}, {"address", p.Address.String()},
		{"vip_leaderelection", "true"}, {"vip_leasename", "sealer-vip"}, {"vip_leaseduration", "5"}, {"vip_renewdeadline", "3"}, {"vip_retryperiod", "1"},
	} {
		env = append(env, object{"name": kv[0], "value": kv[1]})
	}
	return object{
		"args": []any{"manager"}, "env": env,
		"securityContext": capable("NET_ADMIN", "NET_RAW"),
		"volumeMounts":    []any{object{"name": "kubeconfig", "mountPath": "/etc/kubernetes/admin.conf", "readOnly": true}},
	}
}
