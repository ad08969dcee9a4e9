// SPDX-License-Identifier: Apache-2.0

package clusterfile_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterfile"
)

func endpoint(t *testing.T, text string) (clusterfile.Endpoint, error) {
	t.Helper()
	f, err := clusterfile.Parse("Clusterfile", []byte("apiVersion: sealer.io/v2\nkind: Cluster\nspec:\n  controlPlaneEndpoint: "+text+"\n"))
	if err != nil {
		return clusterfile.Endpoint{}, err
	}
	return f.Endpoint, nil
}

func TestEndpoint(t *testing.T) {
	for text, want := range map[string]struct{ text, host, server string }{
		"{balancer: true}":                       {"balancer", "", ""},
		"{ipvs: true}":                           {"ipvs", "", ""},
		"{ipvs: true, ipvsAddress: 10.103.97.2}": {"ipvs 10.103.97.2", "", ""},
		"{ipvs: true, ipvsAddress: \"fd00::a\"}": {"ipvs fd00::a", "", ""},
		"{vip: 10.0.0.100}":                      {"vip 10.0.0.100", "10.0.0.100", "10.0.0.100:7443"},
		"{vip: 10.0.0.100/24, interface: bond0}": {"vip 10.0.0.100/24 bond0", "10.0.0.100", "10.0.0.100:7443"},
		"{vip: \"fd00::64\"}":                    {"vip fd00::64", "fd00::64", "[fd00::64]:7443"},
		"{external: k8s.example.com}":            {"external k8s.example.com", "k8s.example.com", "k8s.example.com:7443"},
		"{external: \"k8s.example.com:443\"}":    {"external k8s.example.com:443", "k8s.example.com", "k8s.example.com:443"},
		"{external: \"[fd00::9]:443\"}":          {"external [fd00::9]:443", "fd00::9", "[fd00::9]:443"},
		"{external: 10.0.0.9}":                   {"external 10.0.0.9", "10.0.0.9", "10.0.0.9:7443"},
	} {
		e, err := endpoint(t, text)
		require.NoError(t, err, text)
		require.Equal(t, want.text, e.String(), text)
		require.Equal(t, want.host, e.Host(), text)
		require.Equal(t, want.server, e.HostPort(7443), text)
		again, err := clusterfile.ParseEndpoint(e.String())
		require.NoError(t, err, text)
		require.Equal(t, e, again)
	}
}

func TestEndpoint_Wrong(t *testing.T) {
	for text, want := range map[string]string{
		"{vip: 10.0.0.100, external: k8s.example.com}": "choose one of balancer, ipvs, vip and external",
		"{balancer: true, vip: 10.0.0.100}":            "choose one of balancer, ipvs, vip and external",
		"{ipvs: true, vip: 10.0.0.100}":                "choose one of balancer, ipvs, vip and external",
		"{ipvs: true, external: k8s.example.com}":      "choose one of balancer, ipvs, vip and external",
		"{balancer: true, ipvs: true}":                 "choose one of balancer, ipvs, vip and external",
		"{ipvsAddress: 10.103.97.2}":                   "of no use without ipvs: true",
		"{balancer: true, ipvsAddress: 10.103.97.2}":   "of no use without ipvs: true",
		"{ipvs: true, ipvsAddress: ten}":               `4:51: "ten" is not an IP address`,
		"{ipvs: true, ipvsAddress: 10.103.97.2/32}":    `"10.103.97.2/32" is not an IP address`,
		"{ipvs: true, ipvsAddress: 127.0.0.1}":         "127.0.0.1 cannot be a virtual address",
		"{ipvs: true, ipvsAddress: \"fe80::1\"}":       "fe80::1 cannot be a virtual address",
		"{ipvs: true, interface: eth0}":                "an interface is of no use without a vip",
		"{ipvs: 10.103.97.2}":                          `"10.103.97.2" must be true or false`,
		"{vip: ten}":                                   `4:31: "ten" is not an IP address`,
		"{vip: 127.0.0.1}":                             "127.0.0.1 cannot be the address of API servers",
		"{vip: 0.0.0.0}":                               "0.0.0.0 cannot be the address",
		"{vip: 10.0.0.100, interface: \"eth0; rm\"}":   "is not the name of an interface",
		"{external: k8s.example.com, interface: eth0}": "an interface is of no use without a vip",
		"{external: \"k8s_x\"}":                        "neither a host name nor an IP address",
		"{external: \"k8s.example.com:70000\"}":        `"70000" is not a port`,
		"{external: \"https://k8s.example.com\"}":      "write the host alone, with a port or without",
		"{virtual: 10.0.0.100}":                        `unknown field "virtual" of ControlPlaneEndpoint`,
	} {
		_, err := endpoint(t, text)
		require.ErrorContains(t, err, want, text)
	}
	_, err := clusterfile.ParseEndpoint("carrier pigeon")
	require.Error(t, err)
}

// The image's default gives way as a whole: to a balancer, too.
func TestEndpoint_Over(t *testing.T) {
	base := &clusterfile.File{Endpoint: clusterfile.Endpoint{VIP: "10.0.0.100", Interface: "eth1"}}
	require.Equal(t, base.Endpoint, (&clusterfile.File{}).Over(base).Endpoint)
	for _, e := range []clusterfile.Endpoint{{Balancer: true}, {External: "k8s.example.com"}, {VIP: "10.0.0.101"}} {
		require.Equal(t, e, (&clusterfile.File{Endpoint: e}).Over(base).Endpoint)
	}
}

func TestEndpoint_Marshal(t *testing.T) {
	f, err := clusterfile.FromFlags("10.0.0.1", "", clusterfile.SSH{})
	require.NoError(t, err)
	f.Endpoint = clusterfile.Endpoint{VIP: "10.0.0.100/24", Interface: "eth0"}
	text, err := f.Marshal()
	require.NoError(t, err)
	again, err := clusterfile.Parse("again", text)
	require.NoError(t, err)
	require.Equal(t, f.Endpoint, again.Endpoint)
}

// The same address in other words makes no other definition of the cluster.
func TestEndpoint_Spelling(t *testing.T) {
	for _, pair := range [][2]string{
		{"{vip: \"FD00:0:0::64\"}", "{vip: \"fd00::64\"}"},
		{"{vip: \"[fd00::64]\"}", "{vip: \"fd00::64\"}"},
		{"{vip: \"FD00::64/64\", interface: bond0}", "{vip: \"fd00::64/64\", interface: bond0}"},
		{"{ipvs: true, ipvsAddress: \"FD00::0A\"}", "{ipvs: true, ipvsAddress: \"fd00::a\"}"},
	} {
		var saved [2]string
		for i, text := range pair {
			e, err := endpoint(t, text)
			require.NoError(t, err, text)
			data, err := (&clusterfile.File{Name: "x", Endpoint: e}).Marshal()
			require.NoError(t, err, text)
			saved[i] = string(data)
		}
		require.Contains(t, saved[0], "controlPlaneEndpoint")
		require.Equal(t, saved[1], saved[0])
	}
}
