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
	"time"

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
	var o pruneFlags
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Delete content that no image of the local store needs",
		Long: `prune deletes blobs that no named image needs and what interrupted transfers left; with
--all, the build cache, images without a tag and rootfs that were unpacked for mounts which are gone, too. It waits
for builds and pulls that are running, and they for it: what they need is never deleted.

--keep-storage bounds the build cache: what was used last stays, up to that size. --filter until=TIME spares what
came, or of the build cache was used, since then: 24h, 2026-05-01, or 2026-05-01T12:00:00Z.`,
		Example: `  sealer prune --dry-run
  sealer prune --all
  sealer prune --keep-storage 20GB --filter until=168h`,
		Args: noArgs,
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be deleted, and delete nothing")
	o.add(cmd, "delete the build cache and images without a name, too")
	for _, flag := range []string{"all", "keep-storage"} {
		cmd.MarkFlagsMutuallyExclusive("dry-run", flag)
	}
	addOutput(cmd, &output)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		cache, before, err := o.parse(cmd)
		if err != nil {
			return err
		}
		if cache.All || cache.Keep != nil {
			// The engine mounts: as in a build, that must not outlive this command.
			if code, done, err := engine.Isolate(cmd.Context()); err != nil || done {
				return errors.Join(err, exitWith(code))
			}
		}
		defer a.close(&err)
		result, err := a.prune(cmd.Context(), cache, store.PruneOptions{All: o.all, DryRun: dryRun, Before: before})
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

// pruneFlags say how much is deleted.
type pruneFlags struct {
	all     bool
	keep    string
	filters []string
}

func (o *pruneFlags) add(cmd *cobra.Command, all string) {
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all", "a", false, all)
	f.StringVar(&o.keep, "keep-storage", "", "how much of the build cache stays, such as 20GB")
	f.StringArrayVar(&o.filters, "filter", nil, "until=TIME: only what is older, or was not used since (24h, 2026-05-01)")
}

// parse gives what is deleted of the build cache, and since when what came stays.
func (o *pruneFlags) parse(cmd *cobra.Command) (engine.PruneOptions, time.Time, error) {
	cache := engine.PruneOptions{All: o.all}
	if o.keep != "" {
		keep, err := partSize(o.keep)
		if err != nil || keep < 0 {
			return cache, time.Time{}, usagef(cmd, "--keep-storage %q is not a size such as 20GB", o.keep)
		}
		cache.Keep = &keep
	}
	var before time.Time
	now := time.Now()
	for _, filter := range o.filters {
		value, ok := strings.CutPrefix(filter, "until=")
		t, err := pastTime(value, now)
		if !ok || err != nil {
			return cache, time.Time{}, usagef(cmd, "--filter %q is not until=TIME, such as until=24h or until=2026-05-01", filter)
		}
		if before.IsZero() || t.Before(before) {
			before = t // of several, what all of them allow
		}
	}
	if !before.IsZero() {
		cache.Unused = now.Sub(before)
	}
	return cache, before, nil
}

// pastTime reads a time, or how long ago it was.
func pastTime(text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil && t.Before(now) {
			return t, nil
		}
	}
	return time.Time{}, errors.New("it is neither a duration nor a time that has passed")
}

func (a *app) prune(ctx context.Context, cache engine.PruneOptions, o store.PruneOptions) (pruned, error) {
	result := pruned{Names: []string{}, Removed: []removedBlob{}}
	if cache.All || cache.Keep != nil {
		freed, err := a.pruneBuildCaches(ctx, cache)
		if err != nil {
			return result, err
		}
		result.BuildCache = freed
	}
	if o.All {
		var err error
		if result.Mounts, err = a.pruneMounts(ctx); err != nil {
			return result, err
		}
	}
	st, err := a.openStore()
	if err != nil {
		return result, err
	}
	o.Waiting = func(holders []store.Holder) {
		names := make([]string, 0, len(holders))
		for _, h := range holders {
			names = append(names, h.String())
		}
		_, _ = fmt.Fprintf(a.streams.Err, "waiting for %s\n", strings.Join(names, ", "))
	}
	r, err := st.Prune(ctx, o)
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

// pruneBuildCaches takes BuildKit's caches, one for each compression, down; together to what is to be kept.
func (a *app) pruneBuildCaches(ctx context.Context, o engine.PruneOptions) (freed int64, err error) {
	for _, dir := range build.StateDirs(filepath.Join(a.root, "build")) {
		n, left, err := a.pruneBuildCache(ctx, dir, o)
		if err != nil {
			return freed, err
		}
		freed += n
		if o.Keep != nil {
			rest := max(0, *o.Keep-left)
			o.Keep = &rest
		}
	}
	return freed, nil
}

// pruner is an engine of this process, or one that serves.
type pruner interface {
	Prune(ctx context.Context, o engine.PruneOptions) (int64, error)
	CacheSize(ctx context.Context) (int64, error)
	Close() error
}

// pruneBuildCache takes the cache in dir down, where there is one.
func (a *app) pruneBuildCache(ctx context.Context, dir string, o engine.PruneOptions) (freed, left int64, err error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return 0, 0, nil
	}
	if err := build.Forget(dir); err != nil {
		return 0, 0, err
	}
	var p pruner
	switch s, err := engine.Connect(ctx, dir); {
	case err != nil:
		return 0, 0, err
	case s != nil:
		p = s
	default:
		if p, err = engine.Open(ctx, engine.Options{Root: dir, Command: "sealer prune", Notice: func(line string) {
			_, _ = fmt.Fprintln(a.streams.Err, line)
		}}); err != nil {
			return 0, 0, err
		}
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if freed, err = p.Prune(ctx, o); err != nil || o.Keep == nil {
		return freed, 0, err
	}
	left, err = p.CacheSize(ctx)
	return freed, left, err
}
