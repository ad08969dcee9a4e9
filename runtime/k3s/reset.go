// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"context"
	"io"

	"github.com/sealerio/sealer/runtime"
)

const (
	// runKept runs a script that was left on the host; where it is missing nothing was installed.
	runKept = `[ -e "$1" ] || exit 0; exec "$1"`
	// removeKept: the image's clean-k3s.sh may have done so.
	removeKept = `rm -rf -- "$1"; rmdir "$(dirname -- "$1")" 2>/dev/null || :`
)

// Reset takes k3s off a host, when it leaves or the whole cluster goes.
func (Distribution) Reset(_ *runtime.Cluster, h *runtime.Host) []runtime.Step {
	return []runtime.Step{
		{
			Name: "stopping k3s and removing it",
			Do: func(ctx context.Context, log io.Writer) error {
				if err := runtime.ForgetRootKubeconfig(ctx, h, keptDir, log); err != nil {
					return err
				}
				return run(ctx, h, log, "sh", "-c", runKept, "sh", uninstaller)
			},
		},
		{
			Name: "putting the host back",
			Do: func(ctx context.Context, log io.Writer) error {
				if err := run(ctx, h, log, "sh", "-c", runKept, "sh", keptDir+"/scripts/clean-k3s.sh"); err != nil {
					return err
				}
				return run(ctx, h, log, "sh", "-c", removeKept, "sh", keptDir)
			},
		},
	}
}
