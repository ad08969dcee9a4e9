// SPDX-License-Identifier: Apache-2.0

package clusterfile_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterfile"
)

func TestParseAddresses_Forms(t *testing.T) {
	for list, want := range map[string][]string{
		"fd00::1,FD00:0:0::2,[fd00:0::3]":     {"fd00::1", "fd00::2", "fd00::3"},
		"::ffff:10.0.0.1, [::FFFF:10.0.0.2]":  {"10.0.0.1", "10.0.0.2"},
		"[FD00::9]-[fd00::b]":                 {"fd00::9", "fd00::a", "fd00::b"},
		"fd00::ffff-fd00:0:0:0:0:0:1:0":       {"fd00::ffff", "fd00::1:0"},
		"::ffff:10.0.0.254-10.0.1.0":          {"10.0.0.254", "10.0.0.255", "10.0.1.0"},
		"CP-1.Example.com,face,2a.example,x1": {"cp-1.example.com", "face", "2a.example", "x1"},
	} {
		got, err := clusterfile.ParseAddresses(list)
		require.NoError(t, err, list)
		require.Equal(t, want, got, list)
	}
	for list, want := range map[string]string{
		"[fd00::1]:22":        `"[fd00::1]:22" names a port: --port`,
		"10.0.0.1:2222":       `names a port`,
		"cp-1.example.com:22": `names a port`,
		"fe80::1":             `"fe80::1" is an address of one link alone`,
		"[fe80::1%eth0]":      `is an address of one link alone`,
		"fd00::1%eth0":        `is an address of one link alone`,
		"169.254.3.4":         `is an address of one link alone`,
		"::":                  `is no address of one host`,
		"ff02::1":             `is no address of one host`,
		"[fd00::1":            `is neither an IP address nor a host name`,
		"fd00::1::2":          `is neither an IP address nor a host name`,
		"[10.0.0.1]":          `is neither an IP address nor a host name`,
		"fd00::1-10.0.0.1":    `mixes IPv4 and IPv6`,
		"fd00::2-fd00::1":     `ends before it begins`,
		"fd00::-fd00::1:0:0":  `holds more than 5000 addresses`,
		"fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff-fe80::1": `is an address of one link alone`,
	} {
		_, err := clusterfile.ParseAddresses(list)
		require.ErrorContains(t, err, want, list)
	}
}

// The same host in two spellings is one host, whoever names it.
func TestSpellings(t *testing.T) {
	for _, masters := range []string{"fd00::1,FD00:0:0::1", "[fd00::1],fd00::1", "10.0.0.1,::ffff:10.0.0.1"} {
		_, err := clusterfile.FromFlags(masters, "", clusterfile.SSH{})
		require.ErrorContains(t, err, "is there twice", masters)
	}
	_, err := clusterfile.FromFlags("fd00::1", "fd00::0-fd00::2", clusterfile.SSH{})
	require.ErrorContains(t, err, "fd00::1 is there twice")
	_, err = clusterfile.Parse("f", []byte(`apiVersion: sealer.io/v2
kind: Cluster
spec:
  ssh: {jump: {host: "[fd00::7]:2222"}}
  hosts:
  - {ips: ["FD00::1"], roles: [master]}
  - {ips: ["fd00:0::1"], roles: [node]}
`))
	require.ErrorContains(t, err, `f:4:22: the jump host "[fd00::7]:2222" names a port`)
	require.ErrorContains(t, err, "the host fd00::1 is there twice")
	f, err := clusterfile.Parse("f", []byte(`apiVersion: sealer.io/v2
kind: Cluster
spec:
  ssh: {jump: {host: "[fd00::7]", port: 2222}}
  hosts:
  - {ips: ["FD00::1"], roles: [master]}
---
apiVersion: sealer.io/v1
kind: Plugin
metadata: {name: names}
spec: {type: HOSTNAME, data: "[fd00:0::1] first"}
`))
	require.NoError(t, err)
	require.Equal(t, "fd00::7", f.Hosts[0].SSH.Jump.Host)
	require.Equal(t, "first", f.Machines()[0].Hostname)

	one, other := clusterfile.Endpoint{VIP: "FD00:0::64"}, clusterfile.Endpoint{VIP: "fd00::64"}
	require.Equal(t, one.String(), other.String())
	require.Equal(t, one.String(), clusterfile.Endpoint{VIP: "[fd00::64]"}.String())
	require.Equal(t, "vip fd00::64/64 eth0", clusterfile.Endpoint{VIP: "fd00::0064/64", Interface: "eth0"}.String())
}

// Host names are addresses before anything else sees them, in plugins as well.
func TestFile_ResolveHosts(t *testing.T) {
	f, err := clusterfile.Parse("f", []byte(`apiVersion: sealer.io/v2
kind: Cluster
spec:
  hostAliases: [{ip: 10.0.0.9, hostnames: [db-1]}]
  hosts:
  - {ips: [Cp-1.example.com], roles: [master]}
  - {ips: ["10.0.0.2-10.0.0.3", "six.example.com,db-1"], roles: [node]}
---
apiVersion: sealer.io/v1
kind: Plugin
metadata: {name: names}
spec: {type: HOSTNAME, data: "cp-1.example.com first"}
`))
	require.NoError(t, err)
	require.ErrorContains(t, f.Validate(), `"cp-1.example.com" is not an IP address`)
	known := map[string][]netip.Addr{
		"cp-1.example.com": {netip.MustParseAddr("fd00::1"), netip.MustParseAddr("10.0.0.1")},
		"six.example.com":  {netip.MustParseAddr("fd00::6")},
	}
	lookup := func(name string) ([]netip.Addr, error) { return known[name], nil }
	require.NoError(t, f.ResolveHosts(lookup, nil))
	require.NoError(t, f.Validate())
	var got []string
	for _, h := range f.Machines() {
		got = append(got, h.Address+h.Hostname)
	}
	require.Equal(t, []string{"10.0.0.1first", "10.0.0.2", "10.0.0.3", "fd00::6", "10.0.0.9"}, got)

	other, err := clusterfile.FromFlags("cp-1.example.com", "[fd00::9]", clusterfile.SSH{})
	require.NoError(t, err)
	require.NoError(t, other.ResolveHosts(lookup, nil))
	require.Equal(t, "fd00::1", other.Hosts[0].Address, "of the family of the others")

	other, err = clusterfile.FromFlags("nobody.example.com,10.0.0.1", "", clusterfile.SSH{})
	require.NoError(t, err)
	wrong := &clusterfile.NameError{}
	require.ErrorAs(t, other.ResolveHosts(lookup, nil), &wrong)
	require.Equal(t, "nobody.example.com", wrong.Name)
}

// Where a cluster is there, a name means one of its hosts, or an address of their family.
func TestFile_ResolveHosts_Cluster(t *testing.T) {
	addresses := map[string][]netip.Addr{
		"round.example.com": {netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")},
		"new.example.com":   {netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("fe80::3%eth0"), netip.MustParseAddr("fd00::3")},
		"mapped.example":    {netip.MustParseAddr("::ffff:10.0.0.5")},
		"link.example.com":  {netip.MustParseAddr("fe80::4%eth0")},
	}
	lookup := func(name string) ([]netip.Addr, error) {
		if addresses[name] == nil {
			return nil, errors.New("no such host")
		}
		return addresses[name], nil
	}
	resolved := func(names string, hosts ...string) []string {
		t.Helper()
		f, err := clusterfile.FromFlags(names, "", clusterfile.SSH{})
		require.NoError(t, err)
		made := &clusterfile.File{}
		for _, h := range hosts {
			made.Hosts = append(made.Hosts, clusterfile.Host{Address: h})
		}
		require.NoError(t, f.ResolveHosts(lookup, made))
		var got []string
		for _, h := range f.Hosts {
			got = append(got, h.Address)
		}
		return got
	}
	require.Equal(t, []string{"10.0.0.7", "10.0.0.3", "10.0.0.5"}, resolved("round.example.com,new.example.com,mapped.example"))
	require.Equal(t, []string{"10.0.0.2", "10.0.0.3"}, resolved("round.example.com,new.example.com", "10.0.0.1", "10.0.0.2"))
	require.Equal(t, []string{"fd00::2", "fd00::3"}, resolved("round.example.com,new.example.com", "fd00::1", "fd00::2"))

	f, err := clusterfile.FromFlags("link.example.com", "", clusterfile.SSH{})
	require.NoError(t, err)
	require.ErrorContains(t, f.ResolveHosts(lookup, nil), `finding the address of the host "link.example.com": its address fe80::4%eth0 is an address of one link alone`)

	f, err = clusterfile.Parse("f", []byte("apiVersion: sealer.io/v2\nkind: Cluster\nspec:\n  hostAliases: [{ip: \"FD00:0::8\", hostnames: [Web-1.example.com]}]\n  hosts: [{ips: [web-1.Example.com, round.example.com], roles: [master]}]\n"))
	require.NoError(t, err)
	require.NoError(t, f.ResolveHosts(lookup, nil))
	require.Equal(t, "fd00::8", f.Hosts[0].Address)
}
