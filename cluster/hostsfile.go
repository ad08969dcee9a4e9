// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

const hostsPath = "/etc/hosts"

// writeHosts writes standard input to $1. Where the file is a mount of its own, as in containers, it cannot be
// replaced, and is written over.
const writeHosts = `set -eu
tmp=$1.sealer-new
trap 'rm -f -- "$tmp"' EXIT
cat >"$tmp"
chmod 0644 "$tmp"
mv -f -- "$tmp" "$1" 2>/dev/null || cat "$tmp" >"$1"
`

// hostsFile keeps the cluster's names in /etc/hosts. An empty apiServerIP: the one that stands there.
func (r *run) hostsFile(h *runtime.Host, apiServerIP string) runtime.Step {
	wanted := func(now []byte) []byte {
		ip := cmp.Or(apiServerIP, runtime.NamedAPIServer(now), r.apiServerIP(h))
		return runtime.HostsFile(now, r.cluster, h, ip)
	}
	return runtime.Step{
		Name: "naming the API server and the registry in /etc/hosts",
		Done: func(ctx context.Context) (bool, error) {
			now, err := readHosts(ctx, h)
			if err != nil {
				return false, err
			}
			return bytes.Equal(now, wanted(now)), nil
		},
		Do: func(ctx context.Context, _ io.Writer) error {
			now, err := readHosts(ctx, h)
			if err != nil {
				return err
			}
			return replaceHosts(ctx, h, wanted(now))
		},
	}
}

// stepOwnAPIServer ends the join of a control plane.
const stepOwnAPIServer = "using its own API server"

// joinedBefore: did an earlier run see this control plane join?
func (r *run) joinedBefore(h *runtime.Host) bool {
	return h.Facts.State != nil && h.Facts.State.Steps[stepOwnAPIServer] != ""
}

// ownAPIServer points a control plane that has joined at itself.
func (r *run) ownAPIServer(h *runtime.Host) runtime.Step {
	s := r.hostsFile(h, h.IP())
	s.Name, s.Key = stepOwnAPIServer, h.IP()
	return s
}

func readHosts(ctx context.Context, h *runtime.Host) ([]byte, error) {
	data, err := host.ReadFile(ctx, h.Runner, hostsPath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

func replaceHosts(ctx context.Context, h *runtime.Host, data []byte) error {
	return h.Runner.Run(ctx, host.Command{
		Argv: []string{"sh", "-c", writeHosts, "sh", hostsPath}, Stdin: bytes.NewReader(data), Mutates: true,
	})
}
