// SPDX-License-Identifier: Apache-2.0

// Package flatten reads the layers of a rootfs as one tree of files: what a later layer replaces or removes is not seen.
// Nothing is unpacked, and no content is held in memory.
package flatten

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What layers say instead of having files:
// https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md#whiteouts
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// Func is given a file, and its content where it is a regular one. It need not read it.
type Func func(h *tar.Header, r io.Reader) error

// Walk calls f for every file of the layers, lowest first, in the order in which they stand there. Names are relative,
// clean, and stay inside; folders have a slash at their end. It reads the layers twice, and ends with f's first error.
func Walk(ctx context.Context, p content.Provider, layers []ocispec.Descriptor, f Func) error {
	t := &tree{files: map[string]place{}, moved: map[place]string{}, solid: map[string]bool{}}
	for i, l := range slices.Backward(layers) {
		if err := each(ctx, p, l, t.first(i)); err != nil {
			return fmt.Errorf("reading layer %s: %w", l.Digest, err)
		}
		t.end()
	}
	for i, l := range layers {
		if err := each(ctx, p, l, t.second(i, f)); err != nil {
			return fmt.Errorf("reading layer %s: %w", l.Digest, err)
		}
	}
	return nil
}

// each reads one layer.
func each(ctx context.Context, p content.Provider, l ocispec.Descriptor, f Func) (err error) {
	ra, err := p.ReaderAt(ctx, l)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ra.Close()) }()
	r, err := compression.DecompressStream(&interruptible{ctx, io.NewSectionReader(ra, 0, ra.Size())})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(h, tr); err != nil {
			return err
		}
	}
}

// interruptible is a reader that ends with its context.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i *interruptible) Read(p []byte) (int, error) {
	if i.ctx.Err() != nil {
		return 0, context.Cause(i.ctx)
	}
	return i.r.Read(p)
}

// place is where a file stands: in which layer, as which entry.
type place struct{ layer, entry int }

// tree knows which entry of which layer a file is.
type tree struct {
	files  map[string]place
	moved  map[place]string    // a file that is hidden, under the name of a hard link to it that is not
	links  map[string][]string // hard links of the layer that is read, by target
	own    map[string]place    // of the layer that is read
	solid  map[string]bool     // of higher layers: nothing of lower ones is seen below
	here   map[string]bool     // the same, of the layer that is read
	number int
}

// first looks at a layer, after those above it.
func (t *tree) first(layer int) Func {
	t.own, t.here, t.number = map[string]place{}, map[string]bool{}, -1
	t.links = map[string][]string{}
	return func(h *tar.Header, _ io.Reader) error {
		t.number++
		name := clean(h.Name)
		dir, base := path.Split(name)
		switch {
		case base == opaque:
			t.here[path.Clean("/" + dir)[1:]+"/"] = true
		case strings.HasPrefix(base, whiteout):
			gone := dir + strings.TrimPrefix(base, whiteout)
			t.here[gone], t.here[gone+"/"] = true, true
		default:
			t.own[name] = place{layer, t.number} // the last of a name is the one
			if h.Typeflag == tar.TypeLink {
				target := clean(h.Linkname)
				t.links[target] = append(t.links[target], name)
			}
			t.here[name] = true
			if h.Typeflag != tar.TypeDir {
				t.here[name+"/"] = true
			}
		}
		return nil
	}
}

// end lets go of what higher layers hide.
func (t *tree) end() {
	seen := func(name string) bool { return !t.solid[name] && !t.covered(name) }
	for name, at := range t.own {
		if seen(name) {
			t.files[name] = at
		}
	}
	for target, links := range t.links {
		at, ok := t.own[target]
		if seen, visible := t.files[target]; !ok || visible && seen == at {
			continue
		}
		for _, name := range links {
			if here, ok := t.files[name]; ok && here == t.own[name] && t.moved[at] == "" {
				t.moved[at] = name
			}
		}
	}
	for name := range t.here {
		t.solid[name] = true
	}
}

// covered tells whether a folder above name is hidden.
func (t *tree) covered(name string) bool {
	for dir := name; dir != ""; {
		dir = strings.TrimSuffix(dir, "/")
		at := strings.LastIndexByte(dir, '/')
		dir = dir[:at+1]
		if dir == "" {
			return t.solid["/"]
		}
		if t.solid[dir] {
			return true
		}
	}
	return false
}

// second gives what is seen of a layer.
func (t *tree) second(layer int, f Func) Func {
	number := -1
	stand := map[string]string{} // a hidden file: the name under which it was given
	return func(h *tar.Header, r io.Reader) error {
		number++
		at := place{layer, number}
		name := clean(h.Name)
		if as, ok := t.moved[at]; ok {
			stand[name] = as
			out := *h
			out.Name = as
			return f(&out, r)
		}
		if seen, ok := t.files[name]; !ok || seen != at || name == "" {
			return nil
		}
		out := *h
		out.Name = name
		switch h.Typeflag {
		case tar.TypeDir:
			out.Name += "/"
		case tar.TypeLink:
			out.Linkname = clean(h.Linkname)
			if as, ok := stand[out.Linkname]; ok {
				if as == name {
					return nil // given already, with its content
				}
				out.Linkname = as
			}
		}
		return f(&out, r)
	}
}

// clean is a name inside of the rootfs, without slashes around it; "" is the rootfs itself.
func clean(name string) string { return path.Clean("/" + name)[1:] }
