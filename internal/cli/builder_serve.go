// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/build/engine"
)

func newBuilderServe(a *app) *cobra.Command {
	var idle time.Duration
	var isolation, compression string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the builds of this user and --root, several at once",
		Long: `serve keeps one BuildKit open for all builds with the same --root, which find it by themselves:
they run at once and share what they cache, where they would otherwise wait for one another.
It listens on a socket below --root that only this user can open, and ends when nobody has
built for a while, or by 'sealer builder stop' or Ctrl-C: after the builds that run.`,
		Example: `  sealer builder serve --idle 10m &
  sealer builder serve --idle 0`,
		Args: noArgs,
	}
	f := cmd.Flags()
	timeOrNoneVar(f, &idle, "idle", 10*time.Minute, "end when nobody has built for so long; 0: never")
	f.StringVar(&isolation, "isolation", string(engine.Auto), "how RUN is kept apart from this machine: auto, runc, chroot")
	f.StringVar(&compression, "compression", string(build.Zstd), "compression of the builds that are served: zstd, gzip")
	mustComplete(cmd, "isolation", []string{"auto", "runc", "chroot"})
	mustComplete(cmd, "compression", []string{string(build.Zstd), string(build.Gzip)})
	a.addRegistryFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if _, err := engine.ParseIsolation(isolation); err != nil {
			return usagef(cmd, "--isolation: %w", err)
		}
		packing, err := build.ParseCompression(compression)
		if err != nil {
			return usagef(cmd, "--compression: %w", err)
		}
		// As in a build: what it mounts and starts must not outlive it.
		if code, done, err := engine.Isolate(cmd.Context()); err != nil || done {
			return errors.Join(err, exitWith(code))
		}
		defer a.close(&err)
		options, err := a.registryOptions(cmd)
		if err != nil {
			return err
		}
		now, stop := signal.NotifyContext(context.WithoutCancel(cmd.Context()), syscall.SIGUSR1)
		defer stop()
		// To be told to stop is how this command ends: no error, and no 130.
		ctx, cancel := context.WithCancel(now)
		defer cancel()
		defer context.AfterFunc(cmd.Context(), cancel)()
		return build.Serve(ctx, now, build.ServeOptions{
			StateDir: a.buildDir(), Compression: packing, Isolation: isolation, RegistryOptions: options, Idle: idle,
			Warn:  func(line string) { a.log.Warn(line) },
			Ready: func() { _, _ = fmt.Fprintln(a.streams.Err, "serving builds below", a.root) },
		})
	}
	return cmd
}

// buildDir is where BuildKit keeps its state.
func (a *app) buildDir() string { return filepath.Join(a.root, "build") }

// builderRow is one line of 'sealer builder status'.
type builderRow struct {
	State     string `json:"state"` // the folder
	PID       int    `json:"pid"`
	Since     string `json:"since"` // RFC 3339
	Isolation string `json:"isolation"`
	Builds    int    `json:"builds"` // that run
	Cache     int64  `json:"cacheBytes"`
}

func newBuilderStatus(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show the builders that serve, what they do and what they keep",
		Example: "  sealer builder status\n  sealer builder status -o json",
		Args:    noArgs,
	}
	addOutput(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		rows := []builderRow{}
		err := a.eachBuilder(cmd.Context(), func(dir string, s *engine.Shared) error {
			cache, err := s.CacheSize(cmd.Context())
			if err != nil {
				if gone, connectErr := engine.Connect(cmd.Context(), dir); gone == nil && connectErr == nil {
					return nil // it has ended just now
				}
				return err
			}
			rows = append(rows, builderRow{
				State: dir, PID: s.PID, Since: s.Since.UTC().Format(time.RFC3339), Isolation: string(s.Isolation), Builds: s.Builds, Cache: cache,
			})
			return nil
		})
		if err != nil {
			return err
		}
		return a.print(cmd, output, rows, func(t *table) {
			t.line("STATE", "PID", "SINCE", "ISOLATION", "BUILDS", "CACHE")
			for _, r := range rows {
				t.line(r.State, fmt.Sprint(r.PID), r.Since, r.Isolation, fmt.Sprint(r.Builds), size(r.Cache))
			}
		})
	}
	return cmd
}

func newBuilderStop(a *app) *cobra.Command {
	var now bool
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "End the builder that serves, after the builds that run",
		Long: `stop tells the builder to take no more builds and to end after those that run, and waits for
that. Without a builder it does nothing.`,
		Example: "  sealer builder stop\n  sealer builder stop --now",
		Args:    noArgs,
	}
	cmd.Flags().BoolVar(&now, "now", false, "cancel the builds that run")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.eachBuilder(cmd.Context(), func(_ string, s *engine.Shared) error { return s.Stop(cmd.Context(), now) })
	}
	return cmd
}

// eachBuilder calls f for every builder that serves, one for each compression at most.
func (a *app) eachBuilder(ctx context.Context, f func(dir string, s *engine.Shared) error) error {
	var errs []error
	for _, dir := range build.StateDirs(a.buildDir()) {
		s, err := engine.Connect(ctx, dir)
		if err == nil && s != nil {
			err = errors.Join(f(dir, s), s.Close())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// builderPruned is what 'sealer builder prune' prints.
type builderPruned struct {
	Bytes int64 `json:"bytes"`
}

func newBuilderPrune(a *app) *cobra.Command {
	var output string
	var o pruneFlags
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Delete what the build cache holds beyond its bounds",
		Long: `prune deletes what builds have cached: what was not used for long, down to 10 GB; with --all,
everything that no build uses now. Images in the store stay. It also works beside a builder
that serves. --keep-storage and --filter are those of 'sealer prune'.`,
		Example: "  sealer builder prune\n  sealer builder prune --keep-storage 2GB\n  sealer builder prune --all --filter until=24h",
		Args:    noArgs,
	}
	o.add(cmd, "delete everything that no running build uses")
	addOutput(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		cache, _, err := o.parse(cmd)
		if err != nil {
			return err
		}
		if code, done, err := engine.Isolate(cmd.Context()); err != nil || done {
			return errors.Join(err, exitWith(code))
		}
		defer a.close(&err)
		freed, err := a.pruneBuildCaches(cmd.Context(), cache)
		if err != nil {
			return err
		}
		return a.print(cmd, output, builderPruned{Bytes: freed}, func(t *table) {
			t.line("FREED")
			t.line(size(freed))
		})
	}
	return cmd
}
