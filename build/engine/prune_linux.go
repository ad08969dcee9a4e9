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

// Prune removes what the cache holds beyond its bounds, least recently used first. all removes everything that nothing
// uses. It returns the bytes that are free again.
//
// BuildKit collects a second after it starts and once a minute: a process that only builds ends before that.
func (e *Engine) Prune(ctx context.Context, all bool) (int64, error) {
	policy := []client.PruneInfo{{All: true}}
	if !all {
		stat, err := disk.GetDiskStat(e.opt.Root)
		if err != nil {
			return 0, fmt.Errorf("pruning the build cache: %w", err)
		}
		policy = []client.PruneInfo{
			// What a build context or a download gives back most easily, when it was not used for a while.
			{Filter: []string{"type==source.local,type==exec.cachemount,type==source.git.checkout"}, KeepDuration: sourceAge, MaxUsedSpace: keepAlways},
			{All: true, ReservedSpace: keepAlways, MaxUsedSpace: keepAtMost, MinFreeSpace: stat.Total / 100 * keepFreeShare},
		}
	}
	freed := make(chan client.UsageInfo, 16)
	total := make(chan int64)
	go func() {
		var sum int64
		for u := range freed {
			sum += u.Size
		}
		total <- sum
	}()
	err := e.worker.Prune(ctx, freed, policy...)
	close(freed)
	sum := <-total
	if err != nil {
		return sum, fmt.Errorf("pruning the build cache: %w", err)
	}
	return sum, nil
}
