// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/sealerio/sealer/host"
)

// etcdPort is where members talk to one another.
const etcdPort = 2380

// EtcdMember is one of etcd's members. One that has not started yet has no name.
type EtcdMember struct {
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	PeerURLs []string `json:"peerURLs"`
}

// On tells whether the member is the one of a host.
func (m EtcdMember) On(h *Host) bool {
	return slices.Contains(m.PeerURLs, "https://"+net.JoinHostPort(h.IP(), strconv.Itoa(etcdPort)))
}

// Etcd is how sealer-node asks the member on a control plane: files there, of PEM.
type Etcd struct{ CA, Cert, Key string }

// Command asks the member on a host, where it listens on loopback.
func (e Etcd) Command(on *Host, verb string, args ...string) []string {
	argv := []string{NodeBinary, "etcd", verb, "--cacert", e.CA, "--cert", e.Cert, "--key", e.Key}
	if IsIPv6(on.IP()) { // of the host's family
		argv = append(argv, "--endpoint", "https://"+net.JoinHostPort(on.Loopback(), "2379"))
	}
	return append(argv, args...)
}

// Members are those that the one on a host knows.
func (e Etcd) Members(ctx context.Context, on *Host) ([]EtcdMember, error) {
	out, err := host.Output(ctx, on.Runner, host.Command{Argv: e.Command(on, "members")})
	if err != nil {
		return nil, err
	}
	var members []EtcdMember
	if err := json.Unmarshal(out, &members); err != nil {
		return nil, fmt.Errorf("%s: reading the members of etcd: %w", on, err)
	}
	return members, nil
}
