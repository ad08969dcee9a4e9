// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/disk"
)

const (
	gigabyte = 1 << 30

	keepAlways    = 2 * gigabyte  // never pruned for want of space
	keepAtMost    = 10 * gigabyte // of cache, when nobody asked for more
	keepFreeShare = 10            // percent of the disk that stays free, if it can
	sourceAge     = 48 * time.Hour
)

// policy is what BuildKit is asked for.
func (o PruneOptions) policy(root string) ([]client.PruneInfo, error) {
	switch {
	case o.Keep != nil && *o.Keep > 0:
		return []client.PruneInfo{{All: true, KeepDuration: o.Unused, MaxUsedSpace: *o.Keep}}, nil
	case o.All || o.Keep != nil || o.Unused > 0:
		return []client.PruneInfo{{All: true, KeepDuration: o.Unused}}, nil
	}
	stat, err := disk.GetDiskStat(root)
	if err != nil {
		return nil, err
	}
	return []client.PruneInfo{
		// What a build context or a download gives back most easily, when it was not used for a while.
		{Filter: []string{"type==source.local,type==exec.cachemount,type==source.git.checkout"}, KeepDuration: sourceAge, MaxUsedSpace: keepAlways},
		{All: true, ReservedSpace: keepAlways, MaxUsedSpace: keepAtMost, MinFreeSpace: stat.Total / 100 * keepFreeShare},
	}, nil
}

// Prune removes what nothing uses, as o says, least recently used first. It returns the bytes that are free again.
//
// BuildKit collects a second after it starts and once a minute: a process that only builds ends before that.
func (e *Engine) Prune(ctx context.Context, o PruneOptions) (int64, error) {
	policy, err := o.policy(e.opt.Root)
	if err != nil {
		return 0, fmt.Errorf("pruning the build cache: %w", err)
	}
	return countFreed(func(freed chan client.UsageInfo) error { return e.worker.Prune(ctx, freed, policy...) })
}

// countFreed sums up what a prune tells of.
func countFreed(prune func(freed chan client.UsageInfo) error) (int64, error) {
	freed := make(chan client.UsageInfo, 16)
	total := make(chan int64)
	go func() {
		var sum int64
		for u := range freed {
			sum += u.Size
		}
		total <- sum
	}()
	err := prune(freed)
	close(freed)
	sum := <-total
	if err != nil {
		return sum, fmt.Errorf("pruning the build cache: %w", err)
	}
	return sum, nil
}

// CacheSize is how many bytes the cache holds.
func (e *Engine) CacheSize(ctx context.Context) (int64, error) { return cacheSize(ctx, e.Client()) }

func cacheSize(ctx context.Context, c *client.Client) (int64, error) {
	all, err := c.DiskUsage(ctx)
	if err != nil {
		return 0, fmt.Errorf("asking how large the build cache is: %w", err)
	}
	var sum int64
	for _, u := range all {
		sum += u.Size
	}
	return sum, nil
}
