// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/imagelist"
	"github.com/sealerio/sealer/registry"
)

// errLooked ends a solve when all is known that the rootfs asks for.
var errLooked = errors.New("the rootfs was looked at")

// ResolveLock finds out what a build would lock now. It makes the rootfs, for that may bring lists and manifests, but exports
// nothing, fetches no layers of images from registries, and sets no tag.
func ResolveLock(ctx context.Context, o Options) (imagelist.Lock, error) {
	lock, _, _, err := resolveLock(ctx, o, nil, false)
	return lock, err
}

// ResolveLockUnchanged is ResolveLock where an earlier build made a rootfs of the same, as with RunUnchanged.
func ResolveLockUnchanged(ctx context.Context, o Options) (_ imagelist.Lock, done bool, err error) {
	lock, _, done, err := resolveLock(ctx, o, nil, true)
	return lock, done, err
}

// WriteLock puts a lock beside the Kubefile, whole or not at all, and returns its path.
func WriteLock(o Options, lock imagelist.Lock) (string, error) {
	if err := o.complete(); err != nil {
		return "", err
	}
	return o.LockFile(), writeLock(o, lock)
}

// CheckLock compares the lock beside the Kubefile with what is true now: the lists with the lock, and the registries with
// the lock. Images that are nowhere are changes too, no errors.
func CheckLock(ctx context.Context, o Options) ([]imagelist.LockChange, error) {
	changes, _, err := checkLock(ctx, o, false)
	return changes, err
}

// CheckLockUnchanged is CheckLock where an earlier build made a rootfs of the same, as with RunUnchanged.
func CheckLockUnchanged(ctx context.Context, o Options) (_ []imagelist.LockChange, done bool, err error) {
	return checkLock(ctx, o, true)
}

func checkLock(ctx context.Context, o Options, unchanged bool) (_ []imagelist.LockChange, done bool, err error) {
	var mu sync.Mutex
	var gone []imagelist.LockChange
	now, in, done, err := resolveLock(ctx, o, func(req registry.ImageRequest, err error) bool {
		if !registry.IsAbsent(err) {
			return false // nobody knows whether it is gone
		}
		mu.Lock()
		defer mu.Unlock()
		gone = append(gone, imagelist.LockChange{
			Kind: "gone", Name: req.Name, Platform: platforms.Format(platforms.Normalize(req.Platform)), Origins: req.Origins, Reason: err.Error(),
		})
		return true
	}, unchanged)
	if err != nil || !done {
		return nil, done, err
	}
	o.Warn = once(o.Warn)
	lock := *in.locks.compare
	changes := lock.Diff(now)
	for _, g := range gone {
		// It is missing on one side because nobody has it, not because nobody wants it.
		changes = slices.DeleteFunc(changes, func(c imagelist.LockChange) bool { return !c.Base && c.Name == g.Name && c.Platform == g.Platform })
		if was, ok := lock.Image(g.Name, g.Platform); ok {
			g.Locked = was.Top().String()
		}
		changes = append(changes, g)
	}
	moved, err := movedBases(ctx, o, in, now)
	if err != nil {
		return nil, true, err
	}
	changes = append(changes, moved...)
	imagelist.SortLockChanges(changes)
	return changes, true, nil
}

// resolveLock does what Run does up to the fetching of layers. in.locks.compare is the lock that is there, where gone is set.
func resolveLock(ctx context.Context, o Options, gone func(registry.ImageRequest, error) bool, unchanged bool) (_ imagelist.Lock, _ *inputs, done bool, err error) {
	o.Lock, o.Locked, o.resolveOnly, o.gone, o.Mode = false, false, true, gone, All
	if err := o.complete(); err != nil {
		return imagelist.Lock{}, nil, false, err
	}
	in, err := readInputs(o)
	if err != nil {
		return imagelist.Lock{}, nil, false, err
	}
	if gone != nil {
		if in.locks.compare, err = readLock(o); err != nil {
			return imagelist.Lock{}, nil, false, err
		}
	}
	release, err := o.Store.Hold(ctx)
	if err != nil {
		return imagelist.Lock{}, nil, false, err
	}
	defer func() { err = errors.Join(err, release()) }()
	pack, err := newPacker(o, in)
	if err != nil {
		return imagelist.Lock{}, nil, false, err
	}
	defer func() { err = errors.Join(err, pack.close()) }()

	if unchanged {
		known := recollect(o, in)
		if known == nil || o.NoCache || o.Pull == Always {
			return imagelist.Lock{}, nil, false, nil
		}
		if made, _ := known.recall(ctx, o, in, pack); made == nil {
			return imagelist.Lock{}, nil, false, context.Cause(ctx)
		}
	} else if err := lookInto(ctx, o, in, pack); err != nil {
		return imagelist.Lock{}, nil, false, err
	}
	images, from, err := pack.images(ctx)
	if err != nil {
		return imagelist.Lock{}, nil, true, err
	}
	return in.locks.lock(images, from), in, true, nil
}

// lookInto finds what the rootfs asks for.
func lookInto(ctx context.Context, o Options, in *inputs, pack *packer) error {
	bases, err := resolveBases(ctx, o, in)
	if err != nil {
		return err
	}
	for _, p := range o.Platforms {
		one := o
		one.Platforms = []ocispec.Platform{p}
		if _, err := solve(ctx, one, in, bases, pack); !errors.Is(err, errLooked) {
			return err
		}
	}
	return nil
}

// movedBases asks registries for the bases that the lock and the store agree on. One that no registry has was built here,
// and so, probably, was one of which a registry says nothing without another login.
func movedBases(ctx context.Context, o Options, in *inputs, now imagelist.Lock) ([]imagelist.LockChange, error) {
	var reqs []registry.ImageRequest
	var want []imagelist.LockedBase
	for _, b := range in.locks.compare.Bases {
		p, err := platforms.Parse(b.Platform)
		if is, ok := now.Base(b.Name, b.Platform); err != nil || !ok || is.Digest != b.Digest {
			continue
		}
		want = append(want, b)
		reqs = append(reqs, registry.ImageRequest{Name: b.Name, Platform: p, Origins: in.linesOf(b.Name, b.Platform), Absent: o.builtHere})
	}
	if len(reqs) == 0 {
		return nil, nil
	}
	found, err := o.Registry.ResolveImages(ctx, o.Store, reqs)
	if err != nil {
		return nil, err // it names the line of the Kubefile
	}
	var out []imagelist.LockChange
	for i, b := range want {
		if top := topOf(found[i]); top != "" && top != b.Digest.String() {
			out = append(out, imagelist.LockChange{Kind: "moved", Name: b.Name, Platform: b.Platform, Base: true, Locked: b.Digest.String(), Now: top})
		}
	}
	return out, nil
}

// builtHere tells whether a base may be known to this machine alone.
func (o Options) builtHere(r registry.ImageRequest, err error) bool {
	if registry.IsRefused(err) {
		o.Warn(fmt.Sprintf("%s (%s) is taken for unchanged; whether its registry has another could not be found out: %v", r.Name, strings.Join(r.Origins, ", "), err))
	}
	return registry.IsAbsent(err) || registry.IsRefused(err)
}

func topOf(pi clusterimage.PackedImage) string {
	if pi.Index != nil {
		return pi.Index.Digest.String()
	}
	return pi.Manifest.Digest.String()
}
