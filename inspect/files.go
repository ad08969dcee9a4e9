// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
)

// maxFiles bounds how many files of a rootfs are looked at.
const maxFiles = 4 << 20

// fileTree is a rootfs as its layers make it, by path.
type fileTree map[string]file

type file struct {
	kind     byte
	mode     fs.FileMode
	uid, gid int
	size     int64
	link     string
	sum      [sha256.Size]byte
}

// layers lays layers over the tree.
func (t fileTree) layers(ctx context.Context, s *Subject, layers []ocispec.Descriptor) error {
	for _, l := range layers {
		fresh := map[string]bool{}
		h := sha256.New()
		err := clusterimage.WalkLayer(ctx, s.Content, l, func(f clusterimage.LayerFile) error { return t.take(f, fresh, h) })
		if err != nil {
			return fmt.Errorf("reading layer %s of %s: %w", l.Digest, s.Name, err)
		}
	}
	return nil
}

func (t fileTree) take(f clusterimage.LayerFile, fresh map[string]bool, h hash.Hash) error {
	switch {
	case f.Whiteout:
		t.remove(f.Path, f.Opaque, fresh)
		return nil
	case f.Path == "":
		return nil
	case len(t) >= maxFiles:
		return fmt.Errorf("there are more than %d files", maxFiles)
	}
	hdr := f.Header
	entry := file{kind: hdr.Typeflag, mode: hdr.FileInfo().Mode(), uid: hdr.Uid, gid: hdr.Gid, size: hdr.Size, link: hdr.Linkname}
	switch hdr.Typeflag {
	case tar.TypeReg:
		h.Reset()
		if _, err := io.Copy(h, f.Content); err != nil {
			return err
		}
		h.Sum(entry.sum[:0])
	case tar.TypeLink: // the same file under another name
		if to, ok := t[strings.TrimPrefix(strings.TrimPrefix(hdr.Linkname, "."), "/")]; ok {
			entry = to
		}
	}
	if old, ok := t[f.Path]; ok && old.kind == tar.TypeDir && entry.kind != tar.TypeDir {
		t.remove(f.Path, false, fresh)
	}
	t[f.Path] = entry
	fresh[f.Path] = true
	return nil
}

// remove takes away what lower layers have at a path, or only below it.
func (t fileTree) remove(path string, onlyBelow bool, fresh map[string]bool) {
	if !onlyBelow && !fresh[path] {
		delete(t, path)
	}
	below := path + "/"
	if path == "" {
		below = ""
	}
	for name := range t {
		if strings.HasPrefix(name, below) && !fresh[name] && name != path {
			delete(t, name)
		}
	}
}

// differs names what is not the same. Times do not count.
func (f file) differs(other file) []string {
	var out []string
	for _, check := range []struct {
		what string
		is   bool
	}{
		{"type", f.kind != other.kind},
		{"content", f.kind == other.kind && (f.sum != other.sum || f.size != other.size)},
		{"link", f.kind == other.kind && f.link != other.link},
		{"mode", f.kind == other.kind && f.mode != other.mode},
		{"owner", f.uid != other.uid || f.gid != other.gid},
	} {
		if check.is {
			out = append(out, check.what)
		}
	}
	return out
}
