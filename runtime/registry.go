// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"net"
	"slices"
	"strconv"

	"github.com/pelletier/go-toml/v2"

	"github.com/sealerio/sealer/host"
)

// Registry is how hosts reach the cluster's own registry, which every control plane serves.
type Registry struct {
	Domain string
	Port   int
	// Servers are the addresses of the control planes that serve it, in the order in which they are to be asked.
	Servers  []string
	CA       []byte // PEM
	Username string
	Password host.Secret
}

// Endpoint is the host:port by which the registry is named.
func (r Registry) Endpoint() string { return net.JoinHostPort(r.Domain, strconv.Itoa(r.Port)) }

// Endpoints are the URLs of all that serve the registry. Each has what the others have, and each
// certificate the address in it. Where no address is known yet, it is the registry's name.
func (r Registry) Endpoints() []string {
	if len(r.Servers) == 0 {
		return []string{"https://" + r.Endpoint()}
	}
	urls := make([]string, 0, len(r.Servers))
	for _, ip := range r.Servers {
		urls = append(urls, "https://"+net.JoinHostPort(ip, strconv.Itoa(r.Port)))
	}
	return urls
}

// RegistryFor is the registry as one host asks for it: a control plane itself first, workers each
// beginning with another control plane.
func (c *Cluster) RegistryFor(h *Host) Registry {
	r := c.Registry
	n := len(r.Servers)
	if n < 2 {
		return r
	}
	at := slices.Index(r.Servers, h.IP())
	if at < 0 {
		sum := fnv.New32a()
		_, _ = io.WriteString(sum, h.IP()) // a hash takes everything
		at = int(sum.Sum32() % uint32(n))
	}
	r.Servers = slices.Concat(r.Servers[at:], r.Servers[:at])
	return r
}

// hostsFile is containerd's hosts.toml, as far as registries that stand for all others need it
// (containerd, docs/hosts.md). Hosts are asked in the order of the file. The keys of the root are about Server, which
// is always asked last; without it containerd asks the image's own registry.
type hostsFile struct {
	Server string `toml:"server"`
	hostTable
	Host map[string]hostTable `toml:"host"`
}

type hostTable struct {
	Capabilities []string            `toml:"capabilities"`
	CA           string              `toml:"ca"`
	DialTimeout  string              `toml:"dial_timeout"`
	Header       map[string][]string `toml:"header"`
}

// dialTimeout is how long a control plane that is gone keeps a pull waiting.
const dialTimeout = "3s"

// HostsTOML is the hosts.toml for the folder _default: every image of every
// registry comes from the cluster's own, and from nowhere else. It holds
// the registry's password: mode 0600. caFile is the path of the registry's CA on the host. r is that of the host:
// RegistryFor.
//
// containerd ignores a file that it cannot read and then asks the internet:
// so what was written is read back and compared.
func HostsTOML(r Registry, caFile string) ([]byte, error) {
	urls := r.Endpoints()
	authorization := "Basic " + base64.StdEncoding.EncodeToString([]byte(r.Username+":"+r.Password.Reveal()))
	var out bytes.Buffer
	table := func(prefix, name string) {
		fmt.Fprintf(&out, "%scapabilities = [\"pull\", \"resolve\"]\n%sca = %q\n%sdial_timeout = %q\n", prefix, prefix, caFile, prefix, dialTimeout)
		fmt.Fprintf(&out, "%s[%sheader]\n%sAuthorization = [%q]\n", prefix, name, prefix, authorization)
	}
	last := urls[len(urls)-1]
	fmt.Fprintf(&out, "server = %q\n", last)
	table("", "")
	for _, url := range urls[:len(urls)-1] {
		fmt.Fprintf(&out, "\n[host.%q]\n", url)
		table("  ", fmt.Sprintf("host.%q.", url))
	}
	var got hostsFile
	if err := toml.NewDecoder(bytes.NewReader(out.Bytes())).DisallowUnknownFields().Decode(&got); err != nil {
		return nil, fmt.Errorf("checking hosts.toml: %w", err)
	}
	well := func(t hostTable) bool {
		return t.CA == caFile && len(t.Capabilities) == 2 && slices.Equal(t.Header["Authorization"], []string{authorization})
	}
	if got.Server != last || !well(got.hostTable) || len(got.Host) != len(urls)-1 {
		return nil, errors.New("checking hosts.toml: it does not say what was meant")
	}
	for _, url := range urls[:len(urls)-1] {
		if !well(got.Host[url]) {
			return nil, errors.New("checking hosts.toml: it does not say what was meant")
		}
	}
	return append([]byte("# Written by sealer: all images come from the cluster's own registry.\n"), out.Bytes()...), nil
}

// SameFile tells whether the host has exactly this file; its mode is not looked at.
func SameFile(ctx context.Context, r host.Runner, path string, want []byte) (bool, error) {
	got, err := host.ReadFile(ctx, r, path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return bytes.Equal(got, want), nil
}
