// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
)

// maxLink bounds a link file, which holds one digest, in bytes.
const maxLink = 256

// PublishTree adds what another registry's folder holds, that of an older tool
// in a rootfs, to the registry folder dir, as Publish does with packed images.
// Repositories keep their names, which have no domain: they answer for every
// domain that has none of that name itself. Blobs are verified as they are copied; what
// the folder links to and does not have is left out.
func PublishTree(ctx context.Context, from, dir string) (err error) {
	root, err := os.OpenRoot(from) // nothing in it leads out of it
	if err != nil {
		return fmt.Errorf("publishing images: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	t := treePublisher{root: root, files: root.FS()}
	t.p = publisher{root: filepath.Join(dir, filepath.FromSlash(treeRoot)), done: map[digest.Digest]bool{}, at: time.Now()}
	t.p.take = t.blob
	if err := os.MkdirAll(filepath.Join(t.p.root, "repositories"), 0o755); err != nil {
		return fmt.Errorf("publishing images: %w", err)
	}
	if err := t.links(ctx); err != nil {
		return fmt.Errorf("publishing images of %q: %w", from, err)
	}
	// What tags lead to is on the disk before them.
	if err := syncTree(t.p.root); err != nil {
		return fmt.Errorf("publishing images: %w", err)
	}
	for _, tag := range t.tags {
		if err := t.p.tag(tag); err != nil {
			return fmt.Errorf("publishing %s:%s: %w", tag.repo, tag.tag, err)
		}
	}
	if err := syncTree(t.p.root); err != nil {
		return fmt.Errorf("publishing images: %w", err)
	}
	return nil
}

type treePublisher struct {
	root  *os.Root
	files fs.FS
	p     publisher
	tags  []tagLink
}

// links takes over every link of every repository.
func (t *treePublisher) links(ctx context.Context) error {
	top := path.Join(treeRoot, "repositories")
	return fs.WalkDir(t.files, top, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || e.Name() != "link" {
			return err
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		return t.link(strings.TrimPrefix(path.Dir(name), top+"/"))
	})
}

// link takes over one link; rel is its folder, below repositories.
func (t *treePublisher) link(rel string) error {
	repo, rest, ok := strings.Cut(rel, "/_")
	if !ok {
		return nil
	}
	if named, err := reference.WithName(repo); err != nil || named.Name() != repo {
		return nil
	}
	d, err := t.target(path.Join(treeRoot, "repositories", rel, "link"))
	if err != nil || d == "" {
		return err
	}
	if !t.has(d) {
		return nil
	}
	desc := ocispec.Descriptor{Digest: d}
	kind, below, _ := strings.Cut(rest, "/")
	switch {
	case kind == "layers":
		return t.p.link(desc, repo, "_layers")
	case kind == "manifests" && strings.HasPrefix(below, "revisions/"):
		return t.p.link(desc, repo, "_manifests/revisions")
	case kind == "manifests" && strings.HasPrefix(below, "tags/"):
		tag, isCurrent := strings.CutSuffix(strings.TrimPrefix(below, "tags/"), "/current")
		if isCurrent && tagPattern.MatchString(tag) {
			t.tags = append(t.tags, tagLink{repo: repo, tag: tag, digest: d})
		}
	}
	return nil
}

// target reads a link; "" where it holds no digest.
func (t *treePublisher) target(name string) (_ digest.Digest, err error) {
	f, err := t.files.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	text, err := io.ReadAll(io.LimitReader(f, maxLink))
	if err != nil {
		return "", err
	}
	d := digest.Digest(strings.TrimSpace(string(text)))
	if d.Validate() != nil {
		return "", nil
	}
	return d, nil
}

func treeBlob(d digest.Digest) string {
	return path.Join(treeRoot, "blobs", d.Algorithm().String(), d.Encoded()[:2], d.Encoded(), "data")
}

func (t *treePublisher) has(d digest.Digest) bool {
	info, err := fs.Stat(t.files, treeBlob(d))
	return err == nil && info.Mode().IsRegular()
}

// blob gives a blob of the folder its place in the registry, unless it has it.
func (t *treePublisher) blob(d ocispec.Descriptor, target string) (err error) {
	in, err := t.root.Open(filepath.FromSlash(treeBlob(d.Digest)))
	if err != nil {
		return fmt.Errorf("copying %s: %w", d.Digest, err)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	want, err := in.Stat()
	if err != nil {
		return fmt.Errorf("copying %s: %w", d.Digest, err)
	}
	if have, err := os.Stat(target); err == nil && have.Size() == want.Size() {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return fmt.Errorf("copying %s: %w", d.Digest, err)
	}
	return copyVerified(in, target, d.Digest)
}

// HasTree tells whether a rootfs that is unpacked in a folder holds a registry's folder of an older tool.
func HasTree(rootfs string) bool {
	info, err := os.Stat(filepath.Join(rootfs, filepath.FromSlash(clusterimage.TreeRoot)))
	return err == nil && info.IsDir()
}
