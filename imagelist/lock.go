// SPDX-License-Identifier: Apache-2.0

package imagelist

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"

	"github.com/opencontainers/go-digest"
	"go.yaml.in/yaml/v3"
)

const (
	// LockName is the file beside the Kubefile that holds the lock.
	LockName = "imageList.lock"
	// lockVersion is the one that is written, and the only one that is read.
	lockVersion = 1
)

// Lock records what the names stood for when it was written: of images that are packed, and of those that the build starts
// from. Its file is YAML with one image after the other, sorted, so that a change shows as a few lines.
type Lock struct {
	Version int           `yaml:"version" json:"version"`
	Bases   []LockedBase  `yaml:"bases,omitempty" json:"bases,omitempty"`
	Images  []LockedImage `yaml:"images" json:"images"`
}

// LockedBase is an image of FROM, COPY --from or the toolbox.
type LockedBase struct {
	Name     string        `yaml:"name" json:"name"` // as the Kubefile has it
	Platform string        `yaml:"platform" json:"platform"`
	Digest   digest.Digest `yaml:"digest" json:"digest"` // of what the name stands for
}

// LockedImage is one packed image for one platform.
type LockedImage struct {
	Name     string `yaml:"name" json:"name"`
	Platform string `yaml:"platform" json:"platform"`
	// Digest is that of the manifest for the platform; Index is what the name stands for, where that is an index.
	Digest digest.Digest `yaml:"digest" json:"digest"`
	Index  digest.Digest `yaml:"index,omitempty" json:"index,omitempty"`
	Size   int64         `yaml:"size" json:"size"` // of manifest, config and layers, in bytes
	// Source is where the image came from, if not from its registry.
	Source  string   `yaml:"source,omitempty" json:"source,omitempty"`
	Origins []string `yaml:"origins,omitempty,flow" json:"origins,omitempty"`
}

// Top is the digest of what the name stands for.
func (i LockedImage) Top() digest.Digest { return cmp.Or(i.Index, i.Digest) }

const lockHeader = `# What the images' names stood for. Written by sealer build --lock and sealer lock, obeyed by sealer build --locked.
`

// Marshal returns the file: the same lock gives the same bytes, in whatever order it is listed.
func (l Lock) Marshal() ([]byte, error) {
	l.Version = lockVersion
	l.Bases, l.Images = slices.Clone(l.Bases), slices.Clone(l.Images)
	if l.Images == nil {
		l.Images = []LockedImage{}
	}
	slices.SortFunc(l.Bases, func(a, b LockedBase) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Platform, b.Platform))
	})
	slices.SortFunc(l.Images, func(a, b LockedImage) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Platform, b.Platform))
	})
	var out bytes.Buffer
	out.WriteString(lockHeader)
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(l), enc.Close()); err != nil {
		return nil, fmt.Errorf("writing the lock: %w", err)
	}
	return out.Bytes(), nil
}

// LockVersionError says that a lock was written by another version of sealer.
type LockVersionError struct {
	File    string
	Version int
}

func (e *LockVersionError) Error() string {
	return fmt.Sprintf("reading %q: it is a lock of version %d, this sealer reads version %d", e.File, e.Version, lockVersion)
}

// Hint tells the user what to do.
func (e *LockVersionError) Hint() string {
	return "use the sealer that wrote it, or write it again with sealer lock"
}

// unknownField is how the YAML library says it, with the name of a Go type.
var unknownField = regexp.MustCompile(`field (\S+) not found in type \S+`)

// ParseLock reads a lock. Unknown keys and unknown versions are refused: what they mean would be ignored.
func ParseLock(file string, src []byte) (Lock, error) {
	if len(src) > MaxFile {
		return Lock{}, tooLarge(file, int64(len(src)))
	}
	var version struct {
		Version *int `yaml:"version"`
	}
	if err := yaml.Unmarshal(src, &version); err != nil {
		return Lock{}, fmt.Errorf("reading %q: %w", file, err)
	}
	if version.Version == nil {
		return Lock{}, fmt.Errorf("reading %q: it has no version: it is no lock", file)
	}
	if *version.Version != lockVersion {
		return Lock{}, &LockVersionError{File: file, Version: *version.Version}
	}
	var lock Lock
	dec := yaml.NewDecoder(bytes.NewReader(src))
	dec.KnownFields(true)
	if err := dec.Decode(&lock); err != nil && !errors.Is(err, io.EOF) {
		return Lock{}, fmt.Errorf("reading %q: %s", file, unknownField.ReplaceAllString(err.Error(), "unknown field $1"))
	}
	var errs []error
	seen := map[string]bool{}
	check := func(kind, name, platform string, digests ...digest.Digest) {
		id := kind + " " + name + " for " + platform
		if name == "" || platform == "" || seen[id] {
			errs = append(errs, fmt.Errorf("reading %q: %s stands there twice, or is not whole", file, id))
		}
		seen[id] = true
		for _, d := range digests {
			if err := d.Validate(); err != nil {
				errs = append(errs, fmt.Errorf("reading %q: %s: digest %q: %w", file, id, d, err))
			}
		}
	}
	for _, b := range lock.Bases {
		check("base", b.Name, b.Platform, b.Digest)
	}
	for _, i := range lock.Images {
		check("image", i.Name, i.Platform, i.Digest, i.Top())
	}
	return lock, errors.Join(errs...)
}

// Image finds a packed image.
func (l Lock) Image(name, platform string) (LockedImage, bool) {
	i := slices.IndexFunc(l.Images, func(i LockedImage) bool { return i.Name == name && i.Platform == platform })
	if i < 0 {
		return LockedImage{}, false
	}
	return l.Images[i], true
}

// Base finds an image that the build starts from.
func (l Lock) Base(name, platform string) (LockedBase, bool) {
	i := slices.IndexFunc(l.Bases, func(b LockedBase) bool { return b.Name == name && b.Platform == platform })
	if i < 0 {
		return LockedBase{}, false
	}
	return l.Bases[i], true
}

// LockChange is one difference between a lock and what is true now.
type LockChange struct {
	// Kind is added (asked for, and not in the lock), removed (in the lock, and not asked for), moved (the name stands for
	// something else), or gone (the image is asked for, and is nowhere).
	Kind     string   `json:"kind"`
	Name     string   `json:"name"`
	Platform string   `json:"platform"`
	Base     bool     `json:"base,omitempty"`
	Locked   string   `json:"locked,omitempty"` // digest of what the name stood for
	Now      string   `json:"now,omitempty"`
	Origins  []string `json:"origins,omitempty"`
	Reason   string   `json:"reason,omitempty"` // why it is gone
}

// Diff lists what changed since the lock was written: bases, then images, each sorted. That a line moved inside a file is no
// change.
func (l Lock) Diff(now Lock) []LockChange {
	out := []LockChange{}
	for _, b := range l.Bases {
		if n, ok := now.Base(b.Name, b.Platform); !ok {
			out = append(out, LockChange{Kind: "removed", Name: b.Name, Platform: b.Platform, Base: true, Locked: b.Digest.String()})
		} else if n.Digest != b.Digest {
			out = append(out, LockChange{Kind: "moved", Name: b.Name, Platform: b.Platform, Base: true, Locked: b.Digest.String(), Now: n.Digest.String()})
		}
	}
	for _, n := range now.Bases {
		if _, ok := l.Base(n.Name, n.Platform); !ok {
			out = append(out, LockChange{Kind: "added", Name: n.Name, Platform: n.Platform, Base: true, Now: n.Digest.String()})
		}
	}
	for _, i := range l.Images {
		if n, ok := now.Image(i.Name, i.Platform); !ok {
			out = append(out, LockChange{Kind: "removed", Name: i.Name, Platform: i.Platform, Locked: i.Top().String(), Origins: i.Origins})
		} else if n.Top() != i.Top() || n.Digest != i.Digest {
			out = append(out, LockChange{Kind: "moved", Name: i.Name, Platform: i.Platform, Locked: i.Top().String(), Now: n.Top().String(), Origins: n.Origins})
		}
	}
	for _, n := range now.Images {
		if _, ok := l.Image(n.Name, n.Platform); !ok {
			out = append(out, LockChange{Kind: "added", Name: n.Name, Platform: n.Platform, Now: n.Top().String(), Origins: n.Origins})
		}
	}
	SortLockChanges(out)
	return out
}

// SortLockChanges sorts by what is changed.
func SortLockChanges(list []LockChange) {
	rank := func(c LockChange) int {
		if c.Base {
			return 0
		}
		return 1
	}
	slices.SortFunc(list, func(a, b LockChange) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Platform, b.Platform), cmp.Compare(a.Kind, b.Kind))
	})
}
