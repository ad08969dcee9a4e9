// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
)

// EnvCertSANs is the variable of the cluster's environment that holds further names of the API servers' certificates.
const EnvCertSANs = "CertSANs"

// CertSANs are the names in the value of EnvCertSANs: older sealers had commas between them, or semicolons.
func CertSANs(value string) []string {
	return strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(",; \t\n", r) })
}

// given are variables that sealer itself gives to templates, scripts and commands, and what says their values; those of the
// environment would be lost.
func given() map[string]string {
	registry := "registry.localRegistry, or registry.externalRegistry, says what it is"
	services := "SvcCIDR says which addresses services have"
	return map[string]string{
		"ClusterName": "metadata.name says it", "KubeVersion": "the image says it", "PauseImage": "the image says it",
		"HostIP": "hosts says it", "HostIPFamily": "the addresses of hosts say it", "HostName": "it is the host's own", "HostRole": "the host's roles say it",
		"RegistryDomain": registry, "RegistryPort": registry, "RegistryURL": registry,
		"LocalRegistryDomain": registry, "LocalRegistryPort": registry, "LocalRegistryURL": registry,
		"ExternalRegistryDomain": registry, "ExternalRegistryPort": registry, "ExternalRegistryURL": registry,
		"ContainerRuntime": "containerRuntime says it; k3s takes the host's own docker with docker: true in a K3s document",
		"KubeSvcIP":        services, "DNSSvcIP": services,
	}
}

// CheckEnv finds a variable of the cluster's environment that does not do what it says: one whose value is sealer's to say, and one
// that older sealers acted upon.
func (f *File) CheckEnv(name, value string) error {
	if value == "" {
		return nil
	}
	if says, ok := given()[name]; ok && !slices.Contains(f.givenAs(name), value) {
		return fmt.Errorf("the variable %s is sealer's to give, and this value has no effect: %s", name, says)
	}
	switch name {
	case "PodCIDR", "SvcCIDR":
		for part := range strings.SplitSeq(value, ",") {
			if _, err := netip.ParsePrefix(strings.TrimSpace(part)); err != nil {
				return fmt.Errorf("%s: %q is no network: write 10.244.0.0/16, fd00:10:244::/56, or both with a comma between", name, part)
			}
		}
	case EnvCertSANs:
		for _, san := range CertSANs(value) {
			if _, err := parseAddress(san); err != nil && !domainRule.MatchString(strings.TrimPrefix(strings.ToLower(san), "*.")) {
				return fmt.Errorf("%s: %q is neither a host name nor an IP address", name, san)
			}
		}
	case "UseIPasNodeName":
		if value == "true" {
			return fmt.Errorf("%s has no effect: nodes are called as their hosts are, and a Plugin of type HOSTNAME gives hosts other names", name)
		}
	case "IPvsVIPv4", "IPvsVIPv6":
		if !f.Endpoint.Said() { // or else it is for the user's own scripts
			return fmt.Errorf("%s has no effect: write controlPlaneEndpoint: {ipvs: true, ipvsAddress: %q}, or {balancer: true}, which needs no address", name, value)
		}
	}
	return nil
}

// givenAs are the values of a variable of sealer's own that change nothing where the environment has them as well: files that older
// sealers have kept do.
func (f *File) givenAs(name string) []string {
	domain, port, folder := f.Registry.Domain, f.Registry.Port, ""
	kind, part, ok := strings.Cut(name, "Registry")
	if e := f.Registry.External; e != nil && kind != "Local" {
		domain, port, folder = e.Domain, e.Port, e.Path
	} else if e == nil && kind == "External" {
		ok = false
	}
	endpoint := net.JoinHostPort(domain, strconv.Itoa(port))
	switch {
	case name == "ClusterName":
		return []string{f.Name}
	case name == "ContainerRuntime":
		return containerRuntimes()
	case name == "HostIPFamily":
		families := map[bool]string{false: "IPv4", true: "IPv6"}
		for _, h := range f.Hosts {
			if a, err := netip.ParseAddr(h.Address); err == nil {
				return []string{families[a.Is6()]}
			}
		}
		return []string{families[false], families[true]} // that of names is not known yet
	case name == "KubeSvcIP" || name == "DNSSvcIP":
		network, _, _ := strings.Cut(f.Env["SvcCIDR"], ",")
		api, dns := ServiceIPs(network)
		return []string{map[string]string{"KubeSvcIP": api, "DNSSvcIP": dns}[name]}
	case ok && part == "Domain":
		return []string{domain}
	case ok && part == "Port":
		return []string{strconv.Itoa(port)}
	case ok && part == "URL":
		return []string{endpoint, path.Join(endpoint, folder), path.Join(strings.TrimSuffix(endpoint, ":443"), folder)}
	}
	return nil
}

// ServiceIPs are where a network of services has the API servers and the cluster's DNS: its first address and its tenth. Both are
// empty where it is no network, and dns where it is too small.
func ServiceIPs(network string) (api, dns string) {
	p, err := netip.ParsePrefix(strings.TrimSpace(network))
	if err != nil {
		return "", ""
	}
	a := p.Masked().Addr()
	for i := 1; i <= 10; i++ {
		if a = a.Next(); !p.Contains(a) {
			return api, ""
		}
		if i == 1 {
			api = a.String()
		}
	}
	return api, a.String()
}
