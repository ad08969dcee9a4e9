// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

//go:embed scripts/clean.sh
var cleanScript []byte

// Reset takes k0s off a host. Where an installation was cut, or parts of it are gone, it takes what is there.
func (d Distribution) Reset(_ *runtime.Cluster, h *runtime.Host) []runtime.Step {
	return []runtime.Step{
		{
			Name: "stopping k0s (k0s reset)",
			Do: func(ctx context.Context, log io.Writer) error {
				if err := runtime.ForgetRootKubeconfig(ctx, h, keptDir, log); err != nil {
					return err
				}
				err := d.reset(ctx, h, log)
				if failed, _ := errors.AsType[*host.ExitError](err); failed != nil {
					// Half of an installation may be too little for it. The next step takes all that it would have taken.
					_, _ = fmt.Fprintf(log, "going on without k0s reset: %v\n", err)
					return nil
				}
				return err
			},
		},
		{
			Name: "putting the host back",
			Do: func(ctx context.Context, log io.Writer) error {
				err := h.Runner.Run(ctx, host.Command{
					Argv: []string{"sh", "-s", "--", keptDir, kubectlBin}, Stdin: bytes.NewReader(cleanScript), Stdout: log, Stderr: log, Mutates: true,
				})
				if err != nil {
					return err
				}
				const script = imageDir + "/scripts/clean-k0s.sh" // scripts/init-k0s.sh of the image has left it
				there, err := succeeds(ctx, h.Runner, "test", "-x", script)
				if err != nil || !there {
					return err
				}
				return run(ctx, h, log, script)
			},
		},
	}
}

// keepXtables copies k0s' own iptables from $1 to $2: k0s reset removes it, but not the rules that were made with it.
const keepXtables = `set -eu
for f in "$1"/xtables-*-multi; do
	[ -f "$f" ] || continue
	mkdir -p "$2"
	cp -f "$f" "$2/"
done
`

// reset stops k0s and has it remove its data, containers and units. A k0s that runs refuses.
func (d Distribution) reset(ctx context.Context, h *runtime.Host, log io.Writer) error {
	for _, name := range []string{controllerUnit, workerUnit} {
		if err := (runtime.Service{Host: h, Name: name}).Stop(ctx, log); err != nil {
			return err
		}
	}
	there, err := succeeds(ctx, h.Runner, "sh", "-c", `[ -x "$1" ] && [ -d "$2" ]`, "sh", k0sBin, dataDir)
	if err != nil || !there {
		return err
	}
	if err := run(ctx, h, log, "sh", "-c", keepXtables, "sh", dataDir+"/bin", keptDir+"/xtables"); err != nil {
		return err
	}
	return run(ctx, h, log, call(5*time.Minute, "reset")...)
}
