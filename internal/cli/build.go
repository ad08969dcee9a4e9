// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/build/engine"
	"github.com/sealerio/sealer/internal/progress"
	"github.com/sealerio/sealer/internal/version"
	"github.com/sealerio/sealer/registry"
)

type buildFlags struct {
	kubefile, tag, builder string
	toolbox, isolation     string
	compression            string
	platforms, buildArgs   []string
	imageLists             []string
	noCache                bool
}

func newBuild(a *app) *cobra.Command {
	var o buildFlags
	cmd := &cobra.Command{
		Use:   "build -t NAME CONTEXT",
		Short: "Build a ClusterImage from a Kubefile",
		Long: `build runs the Kubefile of the folder CONTEXT and packs every container image that
imageList and manifests/ name. The result goes into the local store; its digest is printed.
The same context gives the same digest.

BuildKit runs inside this command. --builder, or BUILDKIT_HOST, names a daemon instead.`,
		Example: `  sealer build -t registry.example.com/team/shop:v1 .
  sealer build -t shop:v1 -f deploy/Kubefile --build-arg VERSION=1.2 .
  sealer build -t shop:v1 --registry-mirror docker.io=https://mirror.example.com/docker.io .`,
		Args: exactArgs("CONTEXT"),
	}
	f := cmd.Flags()
	f.StringVarP(&o.kubefile, "file", "f", "", "path of the Kubefile (default: CONTEXT/Kubefile)")
	f.StringVarP(&o.tag, "tag", "t", "", "name of the image, such as registry.example.com/team/shop:v1 (required)")
	f.StringSliceVar(&o.platforms, "platform", nil, "platforms to build for, such as linux/amd64 (default: this machine's)")
	f.StringArrayVar(&o.buildArgs, "build-arg", nil, "value of an ARG (NAME=VALUE, or NAME to take it from the environment; repeatable)")
	f.StringArrayVar(&o.imageLists, "image-list", nil, "also pack the images that this file names (repeatable)")
	f.StringVar(&o.builder, "builder", os.Getenv("BUILDKIT_HOST"), "address of a BuildKit daemon (env BUILDKIT_HOST; default: inside this command)")
	f.StringVar(&o.toolbox, "toolbox", "", "image that RUN instructions run in (default: a small one that comes with sealer)")
	f.StringVar(&o.isolation, "isolation", string(engine.Auto), "how RUN is kept apart from this machine: auto, runc, chroot")
	f.StringVar(&o.compression, "compression", string(build.Zstd), "compression of the rootfs layers: zstd, gzip")
	f.BoolVar(&o.noCache, "no-cache", false, "run every instruction again")
	mustComplete(cmd, "isolation", []string{"auto", "runc", "chroot"})
	mustComplete(cmd, "compression", []string{string(build.Zstd), string(build.Gzip)})
	a.addRegistryFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.build(cmd, o, args[0]) }
	return cmd
}

func (a *app) build(cmd *cobra.Command, o buildFlags, contextDir string) (err error) {
	if o.tag == "" {
		return usagef(cmd, "--tag is missing: the image needs a name")
	}
	options, err := o.options(cmd, contextDir)
	if err != nil {
		return err
	}
	if o.builder == "" {
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
	if err := a.openDisplay(cmd); err != nil {
		return err
	}
	defer a.close(&err)
	st, err := a.openStore()
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
	withTrack := options.RegistryOptions
	withTrack.Track = fetching.track
	if options.Registry, err = registry.NewClient(withTrack); err != nil {
		return err
	}
	result, err := build.Run(cmd.Context(), options)
	if err != nil {
		return err
	}
	return a.printDigest(result.Descriptor)
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

func (l *lateTask) done(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.task.Done(err)
}

// exitWith is the result of a command that ran in a process of its own.
func exitWith(code int) error {
	if code == exitDone {
		return nil
	}
	return &exitStatusError{code: code}
}

func (o buildFlags) options(cmd *cobra.Command, contextDir string) (build.Options, error) {
	list, err := parsePlatforms(cmd, o.platforms)
	if err != nil {
		return build.Options{}, err
	}
	buildArgs, err := parseBuildArgs(cmd, o.buildArgs)
	if err != nil {
		return build.Options{}, err
	}
	epoch, err := sourceDateEpoch()
	if err != nil {
		return build.Options{}, err
	}
	if _, err := engine.ParseIsolation(o.isolation); err != nil {
		return build.Options{}, usagef(cmd, "--isolation: %w", err)
	}
	compression, err := build.ParseCompression(o.compression)
	if err != nil {
		return build.Options{}, usagef(cmd, "--compression: %w", err)
	}
	return build.Options{
		ContextDir:  contextDir,
		Kubefile:    o.kubefile,
		Tag:         o.tag,
		Platforms:   list,
		BuildArgs:   buildArgs,
		ImageLists:  o.imageLists,
		Builder:     o.builder,
		Toolbox:     o.toolbox,
		Isolation:   o.isolation,
		Compression: compression,
		Epoch:       epoch,
		NoCache:     o.noCache,
		Version:     version.Version(),
	}, nil
}

func parseBuildArgs(cmd *cobra.Command, args []string) (map[string]string, error) {
	values := map[string]string{}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if name == "" {
			return nil, usagef(cmd, "--build-arg %q has no name", arg)
		}
		if !ok {
			if value, ok = os.LookupEnv(name); !ok {
				return nil, usagef(cmd, "--build-arg %s: it has no value here, nor in the environment", name)
			}
		}
		values[name] = value
	}
	return values, nil
}

// sourceDateEpoch reads SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/);
// nil where it is not set.
func sourceDateEpoch() (*time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return nil, nil //nolint:nilnil // not set is an answer
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 {
		return nil, fmt.Errorf("reading SOURCE_DATE_EPOCH: %q is not a number of seconds since 1970", text)
	}
	t := time.Unix(seconds, 0).UTC()
	return &t, nil
}
