// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"path/filepath"
	"sync"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/build/engine"
	"github.com/sealerio/sealer/internal/progress"
	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/store"
)

func newBuild(a *app) *cobra.Command {
	var o buildFlags
	cmd := &cobra.Command{
		Use:   "build -t NAME CONTEXT",
		Short: "Build a ClusterImage from a Kubefile",
		Long: `build runs the Kubefile of the folder CONTEXT and packs every container image that
imageList and manifests/ name. The result goes into the local store; its digest is printed.
The same context gives the same digest.

BuildKit runs inside this command. --builder, or BUILDKIT_HOST, names a daemon instead:
unix:///PATH, tcp://HOST:PORT with --builder-certs, docker-container://NAME, kube-pod://POD.`,
		Example: `  sealer build -t registry.example.com/team/shop:v1 .
  sealer build -t shop:v1 -f deploy/Kubefile --build-arg VERSION=1.2 .
  sealer build -t registry.example.com/team/shop:v1 --platform linux/amd64,linux/arm64 --push .
  sealer build -t shop:v1 --lock . && sealer build -t shop:v1 --locked .
  sealer build -t shop:v1 --secret id=token,src=token.txt --target release .
  sealer build -t shop:v1 --registry-mirror docker.io=https://mirror.example.com/docker.io .`,
		Args: exactArgs("CONTEXT"),
	}
	o.add(cmd)
	a.addRegistryFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.build(cmd, o, args[0]) }
	return cmd
}

func (a *app) build(cmd *cobra.Command, o buildFlags, contextDir string) error {
	if o.check {
		return a.lint(cmd, lintFlags{
			kubefile: o.kubefile, target: o.target, toolbox: o.toolbox, output: "text",
			platforms: o.platforms, buildArgs: o.buildArgs, imageLists: o.imageLists,
		}, contextDir)
	}
	if len(o.tags) == 0 {
		return usagef(cmd, "--tag is missing: the image needs a name")
	}
	outputs, err := a.parseOutputs(cmd, o)
	if err != nil {
		return err
	}
	unchanged := func(options build.Options, st *store.Store) (bool, error) {
		result, done, err := build.RunUnchanged(cmd.Context(), options)
		if err != nil || !done {
			return done, err
		}
		return true, a.deliver(cmd, o, outputs, st, result)
	}
	return a.withBuilder(cmd, o, contextDir, unchanged, func(options build.Options, st *store.Store) error {
		result, err := build.Run(cmd.Context(), options)
		if err != nil {
			if engine.OneID() && cmd.Context().Err() == nil {
				a.log.Warn("this build has one user id, so it can make no files of other owners: install uidmap and give this user a range in /etc/subuid and /etc/subgid")
			}
			return err
		}
		return a.deliver(cmd, o, outputs, st, result)
	})
}

// withBuilder checks the flags, opens what a build needs, and does the work. quick, where there is one, may do it without
// BuildKit; what it says when it has not is not shown.
func (a *app) withBuilder(cmd *cobra.Command, o buildFlags, contextDir string, quick func(build.Options, *store.Store) (done bool, err error), work func(build.Options, *store.Store) error) error {
	options, err := o.options(cmd, contextDir)
	if err != nil {
		return err
	}
	if o.builder == "" && !engine.Isolated() {
		if quick != nil {
			done := false
			err := a.openBuild(cmd, o, options, func(options build.Options, st *store.Store) (err error) {
				done, err = quick(options, st)
				return err
			})
			if done || cmd.Context().Err() != nil {
				return err
			}
		}
		// What a build mounts and starts must not outlive it, however it ends:
		// it runs again as the first process of namespaces of its own.
		code, done, err := engine.Isolate(cmd.Context())
		if err != nil {
			return err
		}
		if done {
			return exitWith(code)
		}
	}
	return a.openBuild(cmd, o, options, work)
}

// openBuild opens what a build needs, and closes it when the work is done.
func (a *app) openBuild(cmd *cobra.Command, o buildFlags, options build.Options, work func(build.Options, *store.Store) error) (err error) {
	defer a.close(&err)
	st, err := a.openWork(cmd)
	if err != nil {
		return err
	}
	options.Store = st
	options.StateDir = filepath.Join(a.root, "build")
	options.Display = a.display
	options.Warn = func(line string) { a.log.Warn(line) }
	if options.RegistryOptions, err = a.registryOptions(cmd); err != nil {
		return err
	}
	fetching := &lateTask{display: a.display, name: "fetching from registries"}
	defer func() { fetching.done(err) }()
	client := options.RegistryOptions
	client.Track = fetching.track
	if err := readListsWithAuth(o.listsWithAuth, &options, &client); err != nil {
		return err
	}
	if options.Registry, err = registry.NewClient(client); err != nil {
		return err
	}
	return work(options, st)
}

// lateTask is a task that begins with its first transfer: a build that fetches
// nothing does not speak of fetching.
type lateTask struct {
	display *progress.Display
	name    string

	mu   sync.Mutex
	task *progress.Task
}

func (l *lateTask) track(name string, total int64) registry.Tracker {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.task == nil {
		l.task = l.display.Task(l.name)
	}
	return l.task.Track(name, total)
}

// done ends the task. It has failed where a transfer did; what else ends a command, such as a lock that is no longer true,
// is not its failure.
func (l *lateTask) done(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, transfer := errors.AsType[*registry.ImageError](err)
	if !transfer && !errors.Is(err, context.Canceled) {
		err = nil
	}
	l.task.Done(err)
}

// exitWith is the result of a command that ran in a process of its own.
func exitWith(code int) error {
	if code == exitDone {
		return nil
	}
	return &exitStatusError{code: code}
}
