// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"io"

	"github.com/sealerio/sealer/host"
)

// rootConfig gives root the kubeconfig $2, and remembers in $1 what was there: "new" where there was no folder.
const rootConfig = `set -eu
d=$(getent passwd 0 2>/dev/null | cut -d: -f6); d=${d:-/root}/.kube
if [ ! -e "$1/root-kubeconfig" ]; then
	mkdir -p "$1"
	if [ -d "$d" ]; then
		if [ -e "$d/config" ]; then cp -p "$d/config" "$d/config.before-sealer"; fi
		echo kept >"$1/root-kubeconfig"
	else
		echo new >"$1/root-kubeconfig"
	fi
fi
mkdir -p -m 0700 "$d"
umask 077
cp "$2" "$d/.config.sealer"
mv -f "$d/.config.sealer" "$d/config"
`

const rootConfigDone = `[ -e "$1/root-kubeconfig" ] || exit 1; d=$(getent passwd 0 2>/dev/null | cut -d: -f6); grep -q "client-certificate" "${d:-/root}/.kube/config"`

// rootConfigGone undoes rootConfig.
const rootConfigGone = `set -eu
[ -e "$1/root-kubeconfig" ] || exit 0
d=$(getent passwd 0 2>/dev/null | cut -d: -f6); d=${d:-/root}/.kube
if [ "$(cat "$1/root-kubeconfig")" = new ]; then
	rm -rf "$d"
else
	rm -rf "$d/config" "$d/cache"
	if [ -e "$d/config.before-sealer" ]; then mv -f "$d/config.before-sealer" "$d/config"; fi
fi
rm -f "$1/root-kubeconfig"
`

// rootConfigFresh: root's kubeconfig is the very file $1.
const rootConfigFresh = `d=$(getent passwd 0 2>/dev/null | cut -d: -f6); cmp -s "$1" "${d:-/root}/.kube/config"`

// FreshRootKubeconfig gives root the kubeconfig whose certificate was made anew. Its arguments are RootKubeconfig's.
func FreshRootKubeconfig(h *Host, kept, kubeconfig string) Step {
	s := RootKubeconfig(h, kept, kubeconfig)
	s.Name = "giving root the renewed kubeconfig"
	s.Done = func(ctx context.Context) (bool, error) {
		err := h.Runner.Run(ctx, host.Command{Argv: []string{"sh", "-c", rootConfigFresh, "sh", kubeconfig}})
		if _, answered := errors.AsType[*host.ExitError](err); answered {
			return false, nil
		}
		return err == nil, err
	}
	return s
}

// RootKubeconfig gives root a copy of the kubeconfig at a path on the host. What was there is remembered in kept, a folder of the
// distribution below /var/lib/sealer.
func RootKubeconfig(h *Host, kept, kubeconfig string) Step {
	return Step{
		Name: "giving root a kubeconfig",
		Done: func(ctx context.Context) (bool, error) {
			err := h.Runner.Run(ctx, host.Command{Argv: []string{"sh", "-c", rootConfigDone, "sh", kept}})
			if _, answered := errors.AsType[*host.ExitError](err); answered {
				return false, nil
			}
			return err == nil, err
		},
		Do: func(ctx context.Context, log io.Writer) error {
			return h.Runner.Run(ctx, host.Command{Argv: []string{"sh", "-c", rootConfig, "sh", kept, kubeconfig}, Stdout: log, Stderr: log, Mutates: true})
		},
	}
}

// ForgetRootKubeconfig undoes RootKubeconfig.
func ForgetRootKubeconfig(ctx context.Context, h *Host, kept string, log io.Writer) error {
	return h.Runner.Run(ctx, host.Command{Argv: []string{"sh", "-c", rootConfigGone, "sh", kept}, Stdout: log, Stderr: log, Mutates: true})
}
