// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"io"
	"path"
	"strings"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// nameBefore keeps the name that the host had before it was given another.
func nameBefore() string { return path.Join(runtime.StateDir, "hostname-before") }

// rename calls the host $1 and keeps in the file $2 what it was called. /etc/hostname may be a mount of its own, as in
// containers, which cannot be replaced.
const rename = `set -eu
mkdir -p -m 0755 "$(dirname "$2")"
[ -e "$2" ] || cat /proc/sys/kernel/hostname >"$2"
printf '%s\n' "$1" >/etc/hostname
printf '%s\n' "$1" >/proc/sys/kernel/hostname
`

const renameBack = `set -eu
[ -s "$1" ] || exit 0
cat "$1" >/etc/hostname
cat "$1" >/proc/sys/kernel/hostname
rm -f -- "$1"
`

// expectName lets a host count under the name that it is about to get.
func expectName(h *runtime.Host) {
	if h.Spec.Hostname != "" {
		h.Facts.Hostname = h.Spec.Hostname
	}
}

// naming gives a host the name that a plugin has for it.
func (r *run) naming(h *runtime.Host) []runtime.Step {
	if h.Spec.Hostname == "" {
		return nil
	}
	return []runtime.Step{{
		Name: "naming the host " + h.Spec.Hostname,
		Done: func(ctx context.Context) (bool, error) {
			now, err := host.Output(ctx, h.Runner, host.Command{Argv: []string{"cat", "/proc/sys/kernel/hostname"}})
			return strings.TrimSpace(string(now)) == h.Spec.Hostname, err
		},
		Do: func(ctx context.Context, log io.Writer) error {
			return h.Runner.Run(ctx, host.Command{
				Argv: []string{"sh", "-c", rename, "sh", h.Spec.Hostname, nameBefore()}, Stdout: log, Stderr: log, Mutates: true,
			})
		},
	}}
}
