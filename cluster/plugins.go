// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containerd/platforms"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// runScript runs the script $1 in bash, for which most plugins are written, and in sh where a host has none.
const runScript = `if [ -n "${ROOTFS:-}" ]; then PATH=$PATH:$ROOTFS/bin; export PATH; fi
if command -v bash >/dev/null; then exec bash "$1"; fi; exec sh "$1"`

// dropPlugin removes the script $1, and its folder where the host has nothing else of sealer any more.
const dropPlugin = `rm -f -- "$1"; rmdir "$(dirname "$1")" 2>/dev/null || :`

// cleanupTime is for what is done after a context has ended.
const cleanupTime = 20 * time.Second

// hooks are the Clusterfile's scripts for a phase of a run. What a phase is about, where it may come again, is in its steps' keys.
func (r *run) hooks(phase clusterfile.Phase, about ...string) func(*runtime.Host) []runtime.Step {
	return func(h *runtime.Host) []runtime.Step {
		env := append(list(r.values(h)), "KUBECONFIG="+r.distribution.Kubectl().Kubeconfig)
		steps := plugins(r.cluster.File, phase, h, env, r.lasting(h, env))
		for i := range steps {
			steps[i].Key = strings.Join(append([]string{steps[i].Key}, about...), " ")
		}
		return steps
	}
}

// growing are the hosts that are about to join a cluster which was complete before; none while it is being made.
func (r *run) growing() []string {
	if s := r.lead().Facts.State; s == nil || !s.Complete {
		return nil
	}
	var list []string
	for _, h := range r.cluster.Hosts {
		if h.Facts.State == nil || !h.Facts.State.Complete {
			list = append(list, h.String())
		}
	}
	return list
}

// plugins are the scripts for a phase on a host. Each is run once, and again when it or its environment changes.
func plugins(f *clusterfile.File, phase clusterfile.Phase, h *runtime.Host, env, lasting []string) []runtime.Step {
	var steps []runtime.Step
	for _, p := range f.PluginsAt(phase, h.Spec.Role) {
		sum := sha256.Sum256(fmt.Appendf(nil, "%q %q", p.Data, lasting))
		steps = append(steps, runtime.Step{
			Name: fmt.Sprintf("plugin %s (%s)", p.Name, phase),
			Key:  hex.EncodeToString(sum[:16]),
			Do:   func(ctx context.Context, log io.Writer) error { return runPlugin(ctx, h, p, env, log) },
		})
	}
	return steps
}

// runPlugin runs a script in the rootfs. It is a file for so long: its text may hold what no list of processes should show.
func runPlugin(ctx context.Context, h *runtime.Host, p clusterfile.Plugin, env []string, log io.Writer) (err error) {
	file := path.Join(runtime.StateDir, "plugin-"+p.Name)
	if err := host.WriteFile(ctx, h.Runner, file, []byte(p.Data), 0o700); err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
		defer cancel()
		if rm := h.Runner.Run(ctx, host.Command{Argv: []string{"sh", "-c", dropPlugin, "sh", file}, Mutates: true}); err == nil {
			err = rm
		}
	}()
	env = slices.Clone(env)
	if h.Rootfs != "" {
		env = append(env, "ROOTFS="+h.Rootfs)
	}
	return h.Runner.Run(ctx, host.Command{
		Argv: []string{"sh", "-c", runScript, "sh", file}, Dir: h.Rootfs, Env: env, Stdout: log, Stderr: log, Mutates: true,
	})
}

// readOriginals finds what the image has where the Clusterfile merges into its files.
func (r *run) readOriginals(ctx context.Context) error {
	var paths []string
	for _, c := range r.cluster.File.Configs {
		if c.Strategy == clusterfile.Merge {
			paths = append(paths, c.Path, c.Path+".tmpl")
		}
	}
	r.originals = map[string]map[string][]byte{}
	if len(paths) == 0 {
		return nil
	}
	for _, rootfs := range r.Image.Rootfs {
		platform := platforms.Format(platforms.Normalize(rootfs.Platform))
		if rootfs.Absent || !slices.ContainsFunc(r.cluster.Hosts, func(h *runtime.Host) bool { return h.Platform == platform }) {
			continue
		}
		files, err := clusterimage.ReadFiles(ctx, r.Content, rootfs.Manifest.Layers, paths)
		if err != nil {
			return fmt.Errorf("reading files of the image %q: %w", r.ImageName, err)
		}
		r.originals[platform] = files
		for _, c := range r.cluster.File.Configs {
			if _, template := files[c.Path+".tmpl"]; template && c.Strategy == clusterfile.Merge {
				return &RenderedError{Config: c.Name, Path: c.Path}
			}
			if _, err := c.Content(files[c.Path]); err != nil {
				return err
			}
		}
	}
	return nil
}

// RenderedError is a Config that is to be merged into a file which the image renders from a template.
type RenderedError struct{ Config, Path string }

func (e *RenderedError) Error() string {
	return fmt.Sprintf("merging the Config %q: the image makes %q of its template %q", e.Config, e.Path, e.Path+".tmpl")
}

// Hint says what can be done.
func (e *RenderedError) Hint() string {
	return "give the template its values by env, or overwrite the template as a whole"
}
