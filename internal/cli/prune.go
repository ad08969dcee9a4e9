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
	// Freed is what the blobs had on the disk alone, without another link in the build cache.
	Freed int64 `json:"freedBytes"`
	// Names are those of signatures of images that are gone and, with --all, of images without a tag.
	Names   []string      `json:"names"`
	Removed []removedBlob `json:"removed"`
	// Mounts are those of 'sealer mount' that a reboot took away, whose unpacked rootfs was deleted.
	Mounts int `json:"mounts"`
}

type removedBlob struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

func newPrune(a *app) *cobra.Command {
	var output string
	var dryRun, all bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Delete content that no image of the local store needs",
		Long: `prune deletes blobs that no named image needs and what interrupted transfers left; with
--all, the build cache, images without a tag and rootfs that were unpacked for mounts which are gone, too. It waits
for builds and pulls that are running, and they for it: what they need is never deleted.`,
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
			t.line("BLOBS", "UNFINISHED", "SIZE", "FREED", "BUILD CACHE")
			t.line(fmt.Sprint(result.Blobs), fmt.Sprint(result.Ingests), size(result.Bytes), size(result.Freed), size(result.BuildCache))
			for _, name := range result.Names {
				t.line("removed " + name)
			}
		})
	}
	return cmd
}

func (a *app) prune(ctx context.Context, dryRun, all bool) (pruned, error) {
	result := pruned{Names: []string{}, Removed: []removedBlob{}}
	if all {
		freed, err := a.pruneBuildCaches(ctx, true)
		if err != nil {
			return result, err
		}
		result.BuildCache = freed
		if result.Mounts, err = a.pruneMounts(ctx); err != nil {
			return result, err
		}
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
	result.Blobs, result.Ingests, result.Bytes, result.Freed = r.Blobs, r.Ingests, r.Bytes, r.Freed
	result.Names = append(result.Names, r.Dropped...)
	for _, d := range r.Removed {
		result.Removed = append(result.Removed, removedBlob{Digest: d.Digest.String(), Size: d.Size})
	}
	return result, nil
}

// pruneMounts deletes what was unpacked for mounts that are gone.
func (a *app) pruneMounts(ctx context.Context) (n int, err error) {
	if _, err := os.Stat(filepath.Join(a.root, "rootfs")); errors.Is(err, fs.ErrNotExist) || os.Geteuid() != 0 {
		return 0, nil
	}
	storage, err := a.openRootfs()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, storage.Close()) }()
	return storage.Sweep(ctx)
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
