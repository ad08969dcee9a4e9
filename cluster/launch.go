// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// commands are what the Clusterfile or else the image runs on the first control plane, as shell text.
func (r *run) commands() []string {
	if r.cluster.File.Cmd != nil {
		return r.cluster.File.Cmd
	}
	rootfs, err := r.Image.Platform(platformOf(r.cluster.First()))
	if err != nil {
		return nil // Preflight has said so
	}
	return rootfs.Extension.Launch.Cmds
}

// launch runs the commands in their order, and waits for what they make
// possible: a cluster without a pod network has no Ready nodes.
func (r *run) launch(h *runtime.Host) []runtime.Step {
	commands := r.commands()
	if len(commands) == 0 {
		return nil
	}
	var steps []runtime.Step
	all := sha256.New()
	for i, command := range commands {
		_, _ = fmt.Fprintf(all, "%s\x00%q\x00%q\x00", r.cluster.Digest, command, r.environment(h))
		key := hex.EncodeToString(all.Sum(nil))[:32] // of all up to here: they may build upon one another
		steps = append(steps, runtime.Step{
			Name: fmt.Sprintf("CMD %d: %s", i+1, short(command)),
			Key:  key,
			Do: func(ctx context.Context, log io.Writer) error {
				return h.Runner.Run(ctx, host.Command{
					Argv:   []string{"sh", "-c", command},
					Dir:    h.Rootfs,
					Env:    append(r.environment(h), "KUBECONFIG="+r.distribution.Kubectl().Kubeconfig),
					Stdout: log, Stderr: log, Mutates: true,
				})
			},
		})
	}
	return append(steps, runtime.Step{
		Name: "waiting until all nodes are Ready",
		Key:  hex.EncodeToString(all.Sum(nil))[:32] + fmt.Sprint(len(r.cluster.Hosts)),
		Done: func(ctx context.Context) (bool, error) { return r.isReady(ctx) },
		Do:   func(ctx context.Context, log io.Writer) error { return r.waitReady(ctx, log) },
	})
}

// short is a command on one line of the display.
func short(command string) string {
	line, rest, more := strings.Cut(strings.TrimSpace(command), "\n")
	if runes := []rune(line); len(runes) > 70 {
		return string(runes[:69]) + "…"
	}
	if more && strings.TrimSpace(rest) != "" {
		line += " …"
	}
	return line
}
