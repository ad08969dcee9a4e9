// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// stepAllReady comes after all that is launched.
const stepAllReady = "waiting until all nodes are Ready"

// launched is one thing that the image starts once the cluster is up.
type launched struct {
	name    string // of the step
	command string // shell text
	app     string // in whose folder the command begins; empty: in the root of the rootfs
}

// launches are what the Clusterfile or else the image runs on the first control plane, in order.
func (r *run) launches() ([]launched, error) {
	var list []launched
	commands := func(lines []string) {
		for _, line := range lines {
			list = append(list, launched{name: fmt.Sprintf("CMD %d: %s", len(list)+1, short(line)), command: line})
		}
	}
	ext, file := r.extension(), r.cluster.File
	launch := ext.Launch
	if file.Cmd != nil {
		launch = clusterimage.Launch{Cmds: file.Cmd}
	}
	if file.Apps != nil {
		if len(launch.AppNames) == 0 && file.Cmd == nil {
			launch.After = len(launch.Cmds)
		}
		launch.AppNames = file.Apps
	}
	after := min(max(launch.After, 0), len(launch.Cmds))
	commands(launch.Cmds[:after])
	for _, name := range launch.AppNames {
		app, ok := ext.Application(name)
		if !ok {
			return nil, &LaunchError{Image: r.ImageName, App: name, Err: noSuchApplication(ext)}
		}
		if ours, ok := file.Application(name); ok && len(ours.Cmds) > 0 {
			app.Cmds = ours.Cmds
		}
		command, err := app.LaunchCommand()
		if err != nil {
			return nil, &LaunchError{Image: r.ImageName, App: name, Err: err}
		}
		list = append(list, launched{name: "LAUNCH " + name + ": " + short(command), command: command, app: name})
	}
	commands(launch.Cmds[after:])
	return list, nil
}

// LaunchError is an application that an image is to start, and cannot.
type LaunchError struct {
	Image, App string
	Err        error
}

func (e *LaunchError) Error() string {
	return fmt.Sprintf("the image %q cannot launch %q: %v", e.Image, e.App, e.Err)
}

func (e *LaunchError) Unwrap() error { return e.Err }

// Hint says where it is decided what is launched.
func (e *LaunchError) Hint() string {
	return "build the image again with this sealer, or say in the Clusterfile's spec.cmd what is to be run"
}

// extension is what the image of the first control plane says of itself.
func (r *run) extension() clusterimage.Extension {
	rootfs, err := r.Image.Platform(platformOf(r.cluster.First()))
	if err != nil {
		return clusterimage.Extension{} // Preflight has said so
	}
	return rootfs.Extension
}

// checkImage looks for what makes an image impossible to run, before any host is touched.
func (r *run) checkImage() error {
	if err := r.checkOlder(); err != nil {
		return err
	}
	if rootfs, err := r.Image.Platform(platformOf(r.cluster.First())); err == nil {
		version := cmp.Or(r.cluster.KubeVersion(), r.cluster.Metadata.ClusterRuntimeVersion)
		if err := clusterimage.CheckKubeVersion(rootfs.Config.Config.Labels[clusterimage.LabelKubeVersion], version); err != nil {
			return fmt.Errorf("checking the image %q: %w", r.ImageName, err)
		}
	}
	for _, a := range r.cluster.File.Applications {
		if _, ok := r.extension().Application(a.Name); !ok {
			return &LaunchError{Image: r.ImageName, App: a.Name, Err: noSuchApplication(r.extension())}
		}
	}
	_, err := r.launches()
	return err
}

func noSuchApplication(ext clusterimage.Extension) error {
	if len(ext.Applications) == 0 {
		return errors.New("the image has no applications")
	}
	names := make([]string, len(ext.Applications))
	for i, a := range ext.Applications {
		names[i] = a.Name
	}
	return errors.New("the image has no application of this name; it has " + strings.Join(names, ", "))
}

// launch runs what the image starts in its order, and waits for what that
// makes possible: a cluster without a pod network has no Ready nodes.
func (r *run) launch(h *runtime.Host) []runtime.Step {
	list, err := r.launches()
	if err != nil {
		return nil // checkImage has said so
	}
	if len(list) == 0 {
		return []runtime.Step{r.awaitNetwork()}
	}
	var steps []runtime.Step
	all := sha256.New()
	for _, l := range list {
		_, _ = fmt.Fprintf(all, "%s\x00%q\x00%q\x00", r.cluster.Digest, l.command, r.lasting(h, r.launchEnvironment(h, l.app)))
		steps = append(steps, runtime.Step{
			Name: l.name,
			Key:  hex.EncodeToString(all.Sum(nil))[:32], // of all up to here: they may build upon one another
			Do: func(ctx context.Context, log io.Writer) error {
				if l.app == "" {
					return r.start(ctx, h, l, log)
				}
				n, err := r.startNoted(ctx, h, l, log)
				return r.ofCluster(ctx, h, l.app, n, err)
			},
		})
	}
	return append(steps, runtime.Step{
		Name: stepAllReady,
		Key:  hex.EncodeToString(all.Sum(nil))[:32],
		Done: func(ctx context.Context) (bool, error) { return r.isReady(ctx) },
		Do:   func(ctx context.Context, log io.Writer) error { return r.waitReady(ctx, log) },
	})
}

// inRootfs lets commands find the programs that the image brings, behind those of the host.
//
// The folder $SEALER_NOTING goes before all, where there is one; $SEALER_PATH is the path without it.
const inRootfs = `PATH=$PATH:$ROOTFS/bin:$CLUSTER_ROOTFS/bin; SEALER_PATH=$PATH; PATH=${SEALER_NOTING:+$SEALER_NOTING:}$PATH; export PATH SEALER_PATH; `

func (r *run) start(ctx context.Context, h *runtime.Host, l launched, log io.Writer, env ...string) error {
	command := host.Command{
		Argv: []string{"sh", "-c", inRootfs + l.command},
		Dir:  h.Rootfs,
		Env: slices.Concat(r.launchEnvironment(h, l.app), env, []string{
			"ROOTFS=" + h.Rootfs, "CLUSTER_ROOTFS=" + cmp.Or(r.clusterRootfs, h.Rootfs), "KUBECONFIG=" + r.distribution.Kubectl().Kubeconfig,
			"HELM_CACHE_HOME=" + path.Join(h.Rootfs, ".cache", "helm"), // not in root's home, where it would stay
		}),
		Stdout: log, Stderr: log, Mutates: true,
	}
	if l.app == "" {
		return h.Runner.Run(ctx, command)
	}
	command.Dir = path.Join(h.Rootfs, clusterimage.ApplicationDir(l.app))
	if app, _ := r.extension().Application(l.app); app.Type == clusterimage.HelmApp && len(app.Cmds) == 0 {
		look := host.Command{Argv: []string{"sh", "-c", inRootfs + "command -v helm >/dev/null"}, Env: []string{"ROOTFS=" + h.Rootfs, "CLUSTER_ROOTFS=" + cmp.Or(r.clusterRootfs, h.Rootfs)}}
		err := h.Runner.Run(ctx, look)
		if _, failed := errors.AsType[*host.ExitError](err); failed {
			return &NoHelmError{App: l.app}
		}
		if err != nil {
			return err
		}
	}
	return h.Runner.Run(ctx, command)
}

// NoHelmError is a chart that is to be installed where there is no helm.
type NoHelmError struct{ App string }

func (e *NoHelmError) Error() string {
	return fmt.Sprintf("the application %q is a chart, and neither the image nor the host has helm", e.App)
}

// Hint says how an image brings it.
func (e *NoHelmError) Hint() string {
	return "put it into the image with COPY helm bin/, or launch the application in another way with APPCMDS"
}

// launchEnvironment is environment with the variables of an application: they go over the image's, and the Clusterfile's
// over them.
func (r *run) launchEnvironment(h *runtime.Host, app string) []string {
	env := r.values(h)
	maps.Copy(env, r.appEnv(h, app))
	return list(env)
}

// appEnv are the variables of an application that nothing goes over: the image's, where the Clusterfile says nothing of them,
// and what the Clusterfile says of this very application.
func (r *run) appEnv(h *runtime.Host, name string) map[string]string {
	app, _ := r.extension().Application(name)
	env := maps.Clone(app.Env)
	if env == nil {
		env = map[string]string{}
	}
	for _, over := range []map[string]string{r.cluster.File.Env, h.Spec.Env} {
		maps.DeleteFunc(env, func(k, _ string) bool { _, ok := over[k]; return ok })
	}
	ours, _ := r.cluster.File.Application(name)
	maps.Copy(env, ours.Env)
	given := r.given(h)
	maps.DeleteFunc(env, func(k, _ string) bool { _, ok := given[k]; return ok })
	return env
}

func list(env map[string]string) []string {
	var out []string
	for k, v := range env {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return out
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
