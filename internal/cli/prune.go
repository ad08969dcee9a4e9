// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/build/engine"
	"github.com/sealerio/sealer/store"
)

// pruned is what 'sealer prune' prints.
type pruned struct {
	Blobs   int   `json:"blobs"`
	Ingests int   `json:"unfinishedTransfers"`
	Bytes   int64 `json:"bytes"`
	// BuildCache is what was freed of the build cache, in bytes; blobs that the
	// cache shares with the store count in both.
	BuildCache int64 `json:"buildCacheBytes"`
}

func newPrune(a *app) *cobra.Command {
	var output string
	var dryRun, all bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Delete content that no image of the local store needs",
		Long: `prune deletes blobs that no named image needs and what interrupted transfers left; with
--all, the build cache too. It waits for builds and pulls that are running.`,
		Example: "  sealer prune --dry-run\n  sealer prune --all",
		Args:    noArgs,
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be deleted, and delete nothing")
	cmd.Flags().BoolVarP(&all, "all", "a", false, "delete the build cache and images without a name, too")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "all")
	addOutput(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if all {
			// The engine mounts: as in a build, that must not outlive this command.
			if code, done, err := engine.Isolate(cmd.Context()); err != nil || done {
				return errors.Join(err, exitWith(code))
			}
		}
		defer a.close(&err)
		result, err := a.prune(cmd.Context(), dryRun, all)
		if err != nil {
			return err
		}
		return a.print(cmd, output, result, func(t *table) {
			t.line("BLOBS", "UNFINISHED", "SIZE", "BUILD CACHE")
			t.line(fmt.Sprint(result.Blobs), fmt.Sprint(result.Ingests), size(result.Bytes), size(result.BuildCache))
		})
	}
	return cmd
}

func (a *app) prune(ctx context.Context, dryRun, all bool) (pruned, error) {
	var result pruned
	if all {
		freed, err := a.pruneBuildCaches(ctx, true)
		if err != nil {
			return result, err
		}
		result.BuildCache = freed
	}
	st, err := a.openStore()
	if err != nil {
		return result, err
	}
	r, err := st.Prune(ctx, store.PruneOptions{All: all, DryRun: dryRun, Waiting: func(holders []store.Holder) {
		names := make([]string, 0, len(holders))
		for _, h := range holders {
			names = append(names, h.String())
		}
		_, _ = fmt.Fprintf(a.streams.Err, "waiting for %s\n", strings.Join(names, ", "))
	}})
	if err != nil {
		return result, err
	}
	result.Blobs, result.Ingests, result.Bytes = r.Blobs, r.Ingests, r.Bytes
	return result, nil
}

// pruneBuildCaches empties BuildKit's caches; without all, down to their bounds.
func (a *app) pruneBuildCaches(ctx context.Context, all bool) (freed int64, err error) {
	for _, dir := range build.StateDirs(filepath.Join(a.root, "build")) {
		n, err := a.pruneBuildCache(ctx, dir, all)
		if err != nil {
			return freed, err
		}
		freed += n
	}
	return freed, nil
}

// pruneBuildCache empties the cache in dir, where there is one; without all, down to its bounds.
func (a *app) pruneBuildCache(ctx context.Context, dir string, all bool) (freed int64, err error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	s, err := engine.Connect(ctx, dir)
	if err != nil {
		return 0, err
	}
	if s != nil {
		defer func() { err = errors.Join(err, s.Close()) }()
		return s.Prune(ctx, all)
	}
	e, err := engine.Open(ctx, engine.Options{Root: dir, Command: "sealer prune", Notice: func(line string) {
		_, _ = fmt.Fprintln(a.streams.Err, line)
	}})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	return e.Prune(ctx, all)
}
