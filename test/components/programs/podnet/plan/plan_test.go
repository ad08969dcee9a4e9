// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
)

func node(name, network, address string) Node {
	n := Node{Name: name, Addresses: []netip.Addr{netip.MustParseAddr(address)}}
	if network != "" {
		n.Networks = []netip.Prefix{netip.MustParsePrefix(network)}
	}
	return n
}

func TestFor(t *testing.T) {
	nodes := []Node{
		node("c", "10.244.2.0/24", "192.0.2.3"),
		node("a", "10.244.0.0/24", "192.0.2.1"),
		node("b", "10.244.1.0/24", "192.0.2.2"),
		node("new", "", "192.0.2.4"),
	}
	got, ok := For("b", nodes)
	if !ok {
		t.Fatal("node b has a network")
	}
	want := []Route{
		{To: netip.MustParsePrefix("10.244.0.0/24"), Via: netip.MustParseAddr("192.0.2.1")},
		{To: netip.MustParsePrefix("10.244.2.0/24"), Via: netip.MustParseAddr("192.0.2.3")},
	}
	if !reflect.DeepEqual(got.Routes, want) {
		t.Errorf("routes of b: got %v, want %v", got.Routes, want)
	}
	if len(got.All) != 3 || got.All[0].String() != "10.244.0.0/24" {
		t.Errorf("all networks: got %v", got.All)
	}
	if _, ok := For("new", nodes); ok {
		t.Error("a node without a network has to wait")
	}
	if _, ok := For("unknown", nodes); ok {
		t.Error("a node that the cluster does not list has to wait")
	}
}

func TestFor_TwoFamilies(t *testing.T) {
	both := Node{
		Name:      "a",
		Networks:  []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24"), netip.MustParsePrefix("fd00:10:244::/64")},
		Addresses: []netip.Addr{netip.MustParseAddr("fd00::1"), netip.MustParseAddr("192.0.2.1")},
	}
	got, _ := For("b", []Node{both, node("b", "10.244.1.0/24", "192.0.2.2")})
	for _, r := range got.Routes {
		if r.To.Addr().Is4() != r.Via.Is4() {
			t.Errorf("route to %s goes via %s, of another family", r.To, r.Via)
		}
	}
	if len(got.Routes) != 2 {
		t.Errorf("got %v, want a route for each family", got.Routes)
	}
}

func TestNetwork_Config(t *testing.T) {
	network, _ := For("a", []Node{node("a", "10.244.0.0/24", "192.0.2.1")})
	config, err := network.Config()
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Plugins []struct {
			Type string
			IPAM struct {
				Ranges [][]struct{ Subnet string }
			}
		}
	}
	if err := json.Unmarshal(config, &got); err != nil {
		t.Fatal(err)
	}
	if subnet := got.Plugins[0].IPAM.Ranges[0][0].Subnet; subnet != "10.244.0.0/24" {
		t.Errorf("the bridge has subnet %q", subnet)
	}
}
