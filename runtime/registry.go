// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"

	"github.com/pelletier/go-toml/v2"

	"github.com/sealerio/sealer/host"
)

// Registry is how hosts reach the cluster's own registry.
type Registry struct {
	Domain   string
	Port     int
	CA       []byte // PEM
	Username string
	Password host.Secret
}

// Endpoint is its host:port.
func (r Registry) Endpoint() string { return net.JoinHostPort(r.Domain, strconv.Itoa(r.Port)) }

// hostsFile is containerd's hosts.toml, as far as a registry that stands for all others needs it
// (containerd, docs/hosts.md). The keys of the root are about Server, which is always asked; without it
// containerd asks the image's own registry.
type hostsFile struct {
	Server       string              `toml:"server"`
	Capabilities []string            `toml:"capabilities"`
	CA           string              `toml:"ca"`
	Header       map[string][]string `toml:"header"`
}

// HostsTOML is the hosts.toml for the folder _default: every image of every
// registry comes from the cluster's own, and from nowhere else. It holds
// the registry's password: mode 0600. caFile is the path of the registry's CA on the host.
//
// containerd ignores a file that it cannot read and then asks the internet:
// so what was written is read back and compared.
func HostsTOML(r Registry, caFile string) ([]byte, error) {
	want := hostsFile{
		Server: "https://" + r.Endpoint(), Capabilities: []string{"pull", "resolve"}, CA: caFile,
		Header: map[string][]string{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(r.Username+":"+r.Password.Reveal()))}},
	}
	data, err := toml.Marshal(want)
	if err != nil {
		return nil, fmt.Errorf("writing hosts.toml: %w", err)
	}
	var got hostsFile
	if err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(&got); err != nil {
		return nil, fmt.Errorf("checking hosts.toml: %w", err)
	}
	if got.Server != want.Server || got.CA != want.CA || len(got.Header["Authorization"]) != 1 || len(got.Capabilities) != 2 {
		return nil, errors.New("checking hosts.toml: it does not say what was meant")
	}
	return append([]byte("# Written by sealer: all images come from the cluster's own registry.\n"), data...), nil
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
