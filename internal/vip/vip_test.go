// SPDX-License-Identifier: Apache-2.0

package vip_test

import (
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/sealerio/sealer/internal/goldenfile"
	"github.com/sealerio/sealer/internal/vip"
)

func place() vip.Place {
	return vip.Place{
		Program: vip.Keepalived, Image: "registry.example.com/net/keepalived:2.2.7", Address: netip.MustParseAddr("10.0.0.100"), Link: "eth0",
		Own: "10.0.0.1", Peers: []string{"10.0.0.3", "10.0.0.2"}, APIPort: 6443, Password: "0123abcd",
		Node: "/usr/local/bin/sealer-cluster-node", Kubeconfig: "/etc/kubernetes/admin.conf",
	}
}

func six() vip.Place {
	p := place()
	p.Address, p.Own, p.Peers, p.Rank, p.Bits = netip.MustParseAddr("fd00::64"), "fd00::1", []string{"fd00::2"}, 1, 64
	return p
}

func alone() vip.Place {
	p := place()
	p.Peers = nil
	return p
}

// two takes the place of another address.
func two() vip.Place {
	p := place()
	p.Before = vip.Carried{Address: netip.MustParseAddr("10.0.0.200"), Bits: 24, Link: "eth1"}
	return p
}

// apart has the address on another interface than the one by which the control planes hear one another.
func apart() vip.Place {
	p := place()
	p.OwnLink, p.Link = "eth0", "eth1"
	return p
}

func TestGolden(t *testing.T) {
	require.Equal(t, "10.0.0.200 eth1\n10.0.0.100 eth0\n", two().Addresses())
	for name, p := range map[string]vip.Place{"three": place(), "alone": alone(), "six": six(), "two": two(), "apart": apart()} {
		goldenfile.Equal(t, filepath.Join("testdata", name+".conf"), p.Config())
	}
	pod, err := place().Pod()
	require.NoError(t, err)
	goldenfile.Equal(t, filepath.Join("testdata", "keepalived.yaml"), string(pod))
	p := place()
	p.Program, p.Image = vip.KubeVIP, "ghcr.io/kube-vip/kube-vip:v1.0.1"
	pod, err = p.Pod()
	require.NoError(t, err)
	goldenfile.Equal(t, filepath.Join("testdata", "kube-vip.yaml"), string(pod))
}

func TestPod_HoldsNoSecretAndFewPowers(t *testing.T) {
	data, err := place().Pod()
	require.NoError(t, err)
	require.NotContains(t, string(data), place().Password)
	var pod struct {
		Spec struct {
			HostNetwork bool
			Containers  []struct {
				Command         []string
				SecurityContext struct {
					Privileged   bool
					Capabilities struct{ Add, Drop []string }
				}
			}
		}
	}
	require.NoError(t, yaml.Unmarshal(data, &pod))
	require.True(t, pod.Spec.HostNetwork)
	require.Len(t, pod.Spec.Containers, 1)
	require.False(t, pod.Spec.Containers[0].SecurityContext.Privileged)
	require.Equal(t, []string{"ALL"}, pod.Spec.Containers[0].SecurityContext.Capabilities.Drop)
	require.Equal(t, []string{"NET_ADMIN", "NET_RAW", "SETGID"}, pod.Spec.Containers[0].SecurityContext.Capabilities.Add)
}

func TestFind(t *testing.T) {
	last := func(image string) string {
		return filepath.Base(image[:len(image)-len(":v1")])
	}
	for name, c := range map[string]struct {
		images         []string
		program, image string
	}{
		"none":              {[]string{"a/pause:v1"}, "", ""},
		"keepalived":        {[]string{"a/pause:v1", "b/keepalived:v1"}, vip.Keepalived, "b/keepalived:v1"},
		"kube-vip":          {[]string{"ghcr.io/kube-vip/kube-vip:v1"}, vip.KubeVIP, "ghcr.io/kube-vip/kube-vip:v1"},
		"both":              {[]string{"ghcr.io/kube-vip/kube-vip:v1", "b/keepalived:v1"}, vip.Keepalived, "b/keepalived:v1"},
		"its exporter only": {[]string{"b/keepalived-exporter:v1"}, "", ""},
	} {
		program, image := vip.Find(c.images, last)
		require.Equal(t, c.program, program, name)
		require.Equal(t, c.image, image, name)
	}
}

func TestRouterID(t *testing.T) {
	for address, id := range map[string]int{"10.0.0.100": 100, "10.0.1.0": 255, "fd00::1:7": 7} {
		require.Equal(t, id, vip.RouterID(netip.MustParseAddr(address)), address)
	}
}
