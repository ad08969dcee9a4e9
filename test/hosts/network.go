// SPDX-License-Identifier: Apache-2.0

package hosts

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// networks is where subnets of sets are taken from, a /24 each. Neither Docker's first networks nor the usual pod and
// service networks of Kubernetes lie in it.
const networks = "172.31.0.0/16"

func networkName(name string) string { return "sealer-hosts-" + name }

// bridgeName fits into the 15 characters that Linux allows.
func bridgeName(name string) string {
	if len(name) <= 12 {
		return "sh-" + name
	}
	return fmt.Sprintf("sh-%08x", hash(name))
}

func hash(name string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // never fails
	return h.Sum32()
}

// makeNetwork makes a bridge for the set, on the first free subnet from one that the name gives, so that the addresses
// are mostly the same from run to run.
func (s *Set) makeNetwork(ctx context.Context, ipv6 bool) error {
	lock, err := lockMachine(ctx) // two sets must not choose the same subnet
	if err != nil {
		return fmt.Errorf("making the network: %w", err)
	}
	defer lock.Close()
	used, err := usedNetworks()
	if err != nil {
		return fmt.Errorf("making the network: %w", err)
	}
	if s.Subnet, err = freeSubnet(hash(s.Name), used); err != nil {
		return fmt.Errorf("making the network: %w", err)
	}
	s.Gateway = nth(s.Subnet, 1)
	args := []string{"network", "create", "--driver", "bridge", "--label", label + "=" + s.Name,
		"--subnet", s.Subnet.String(), "--gateway", s.Gateway.String(),
		"--opt", "com.docker.network.bridge.name=" + bridgeName(s.Name),
		// Not "internal": that makes an engine with packet filter rules drop what pods send to pods of other hosts. A
		// host deletes its default route when it boots, and without masquerading nothing would come back anyway.
		"--opt", "com.docker.network.bridge.enable_ip_masquerade=false",
	}
	if ipv6 {
		s.Subnet6 = subnet6(s.Subnet)
		args = append(args, "--ipv6", "--subnet", s.Subnet6.String(), "--gateway", nth6(s.Subnet6, 1).String())
	}
	if _, err = s.Engine.docker(ctx, nil, append(args, networkName(s.Name))...); err != nil {
		return fmt.Errorf("making the network: %w", err)
	}
	return nil
}

func freeSubnet(start uint32, used []netip.Prefix) (netip.Prefix, error) {
	base := netip.MustParsePrefix(networks).Addr().As4()
	for i := range uint32(256) {
		base[2] = byte(start + i)
		subnet := netip.PrefixFrom(netip.AddrFrom4(base), 24)
		free := true
		for _, other := range used {
			free = free && !subnet.Overlaps(other)
		}
		if free {
			return subnet, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("every subnet of %s is in use on this machine", networks)
}

// usedNetworks lists the networks of the machine's interfaces and IPv4 routes, except for the default route.
func usedNetworks() ([]netip.Prefix, error) {
	var used []netip.Prefix
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("listing addresses: %w", err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			used = append(used, p.Masked())
		}
	}
	file, err := os.Open("/proc/net/route")
	if err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 8 {
			continue
		}
		address, err1 := hex.DecodeString(fields[1])
		mask, err2 := hex.DecodeString(fields[7])
		if err1 != nil || err2 != nil || len(address) != 4 || len(mask) != 4 {
			continue // the heading
		}
		var a, m [4]byte // the kernel prints both in the machine's byte order
		binary.NativeEndian.PutUint32(a[:], binary.BigEndian.Uint32(address))
		binary.NativeEndian.PutUint32(m[:], binary.BigEndian.Uint32(mask))
		if ones, _ := net.IPMask(m[:]).Size(); ones > 0 {
			used = append(used, netip.PrefixFrom(netip.AddrFrom4(a), ones))
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	return used, nil
}

// nth returns the n-th address of an IPv4 subnet, or counts from its end if n is negative: -1 is the broadcast address.
func nth(subnet netip.Prefix, n int) netip.Addr {
	first := binary.BigEndian.Uint32(subnet.Masked().Addr().AsSlice())
	if n < 0 {
		n += 1 << (32 - subnet.Bits())
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], first+uint32(n))
	return netip.AddrFrom4(b)
}

// subnet6 is the network of IPv6 that goes with one of IPv4, which nobody else on this machine has: unique local addresses, RFC 4193.
func subnet6(subnet netip.Prefix) netip.Prefix {
	b := netip.MustParseAddr("fd5e:a1e2:5ea1::").As16()
	b[7] = subnet.Addr().As4()[2]
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}

// nth6 returns the n-th address of subnet6.
func nth6(subnet netip.Prefix, n int) netip.Addr {
	b := subnet.Addr().As16()
	b[15] = byte(n)
	return netip.AddrFrom16(b)
}

// removeLink removes a bridge that an engine which was killed left.
func removeLink(ctx context.Context, name string) error {
	if _, err := os.Stat(filepath.Join("/sys/class/net", name)); err != nil {
		return nil
	}
	ip, err := lookSystemPath("ip")
	if err != nil {
		return &MissingError{Program: "ip"}
	}
	if out, err := exec.CommandContext(ctx, ip, "link", "delete", name).CombinedOutput(); err != nil {
		return fmt.Errorf("removing bridge %s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}
