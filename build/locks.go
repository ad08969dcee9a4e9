// SPDX-License-Identifier: Apache-2.0

package build

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/imagelist"
	"github.com/sealerio/sealer/internal/atomicfile"
)

// NoLockError says that a build shall obey a lock that is not there.
type NoLockError struct{ File string }

func (e *NoLockError) Error() string { return fmt.Sprintf("there is no lock at %q", e.File) }

// Hint says how to make one.
func (e *NoLockError) Hint() string {
	return "sealer build --lock and sealer lock write it, beside the Kubefile"
}

// NotLockedError says that a build needs an image that its lock does not have.
type NotLockedError struct {
	File, Name, Platform string
	Origins              []string
}

func (e *NotLockedError) Error() string {
	where := ""
	if len(e.Origins) > 0 {
		where = " (" + strings.Join(e.Origins, ", ") + ")"
	}
	return fmt.Sprintf("%s for %s%s is not in %s", e.Name, e.Platform, where, e.File)
}

// Hint says how to change the lock.
func (e *NotLockedError) Hint() string {
	return "sealer lock --check shows what changed; sealer lock or sealer build --lock writes the lock again"
}

// LockedElseError says that an image is another than the lock says.
type LockedElseError struct {
	File, Name, Platform, Source string
	Want, Got                    digest.Digest
}

func (e *LockedElseError) Error() string {
	source := ""
	if e.Source != "" {
		source = " from " + e.Source
	}
	return fmt.Sprintf("%s for %s%s is %s, and %s by %s", e.Name, e.Platform, source, e.Got, e.Want, e.File)
}

// Hint says how to change the lock.
func (e *LockedElseError) Hint() string { return (&NotLockedError{}).Hint() }

// locking is what a build takes from its lock, and what it notes for the next one.
type locking struct {
	obey    *imagelist.Lock // nil: names are asked for
	compare *imagelist.Lock // what is found will be compared with it; nil: it is not

	mu    sync.Mutex
	bases []imagelist.LockedBase
}

// base is the name to ask for instead of one of FROM: with its digest, where the lock has it.
func (l *locking) base(name string, p ocispec.Platform, file string) (string, error) {
	if l.obey == nil {
		return name, nil
	}
	id := platforms.FormatAll(platforms.Normalize(p))
	found, ok := l.obey.Base(name, id)
	if !ok {
		return "", &NotLockedError{File: file, Name: name, Platform: id}
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", err
	}
	pinned, err := reference.WithDigest(reference.TrimNamed(named), found.Digest)
	if err != nil {
		return "", err
	}
	return pinned.String(), nil
}

// compares tells whether an image is one that was there when the lock was written.
func (l *locking) compares(name string, p ocispec.Platform) bool {
	if l.compare == nil {
		return false
	}
	_, ok := l.compare.Image(name, platforms.Format(platforms.Normalize(p)))
	return ok
}

// note remembers what a name of FROM stood for.
func (l *locking) note(name string, p ocispec.Platform, top digest.Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := imagelist.LockedBase{Name: name, Platform: platforms.FormatAll(platforms.Normalize(p)), Digest: top}
	if !slices.Contains(l.bases, one) {
		l.bases = append(l.bases, one)
	}
}

// lock makes the lock of what a build used.
func (l *locking) lock(images []clusterimage.PackedImage, sources map[string]string) imagelist.Lock {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := imagelist.Lock{Bases: slices.Clone(l.bases)}
	seen := map[string]bool{}
	for _, pi := range images {
		key := pi.Name + " " + pi.Platform
		if seen[key] {
			continue
		}
		seen[key] = true
		one := imagelist.LockedImage{
			Name: pi.Name, Platform: pi.Platform, Digest: pi.Manifest.Digest, Size: pi.Size, Source: sources[key],
			Origins: slices.Compact(slices.Sorted(slices.Values(pi.Origins))),
		}
		if pi.Index != nil {
			one.Index = pi.Index.Digest
		}
		out.Images = append(out.Images, one)
	}
	return out
}

// check compares what was found with the lock.
func (l *locking) check(pi clusterimage.PackedImage, source, file string) error {
	if l.obey == nil {
		return nil
	}
	want, ok := l.obey.Image(pi.Name, pi.Platform)
	if !ok {
		return &NotLockedError{File: file, Name: pi.Name, Platform: pi.Platform, Origins: pi.Origins}
	}
	top := pi.Manifest.Digest
	if pi.Index != nil {
		top = pi.Index.Digest
	}
	if pi.Manifest.Digest != want.Digest || top != want.Top() {
		return &LockedElseError{File: file, Name: pi.Name, Platform: pi.Platform, Source: cmp.Or(source, want.Source), Want: want.Digest, Got: pi.Manifest.Digest}
	}
	return nil
}

// writeLock replaces the lock beside the Kubefile.
func writeLock(o Options, lock imagelist.Lock) error {
	data, err := lock.Marshal()
	if err != nil {
		return err
	}
	if err := atomicfile.Write(o.LockFile(), data, 0o644); err != nil {
		return fmt.Errorf("writing the lock: %w", err)
	}
	return nil
}

// errLockOptions says that a lock cannot be written and obeyed at once.
var errLockOptions = errors.New("a build either writes the lock or obeys it")
