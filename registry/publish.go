// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

// treeRoot is where distribution keeps its files below the served folder.
// See https://github.com/distribution/distribution/blob/v3.1.2/registry/storage/paths.go
const treeRoot = "docker/registry/v2"

// Publish makes the packed images of img available in the registry folder dir,
// which Serve serves: repository <domain>/<path>, with the tag on the source's
// index document where there is one. Blobs are hard links, or verified copies
// where dir is on another file system. It may be called again, for the same or
// another ClusterImage, also while the folder is served; a tag that two of them
// have goes to the later.
func Publish(ctx context.Context, st *store.Store, img *clusterimage.Image, dir string) error {
	p := publisher{st: st, root: filepath.Join(dir, filepath.FromSlash(treeRoot)), done: map[digest.Digest]bool{}, at: time.Now()}
	p.take = p.blob
	if err := os.MkdirAll(filepath.Join(p.root, "repositories"), 0o755); err != nil {
		return fmt.Errorf("publishing images: %w", err)
	}
	var tags []tagLink
	for _, pi := range img.Images {
		t, err := p.image(ctx, pi)
		if err != nil {
			return fmt.Errorf("publishing %s: %w", pi.Name, err)
		}
		tags = append(tags, t...)
	}
	// What tags lead to is on the disk before them.
	if err := syncTree(p.root); err != nil {
		return fmt.Errorf("publishing images: %w", err)
	}
	for _, t := range tags {
		if err := p.tag(t); err != nil {
			return fmt.Errorf("publishing %s:%s: %w", t.repo, t.tag, err)
		}
	}
	if err := syncTree(p.root); err != nil {
		return fmt.Errorf("publishing images: %w", err)
	}
	return nil
}

type publisher struct {
	st   *store.Store
	root string
	done map[digest.Digest]bool
	at   time.Time // of the push, as other registries are told
	// take gives a blob its place in the tree.
	take func(d ocispec.Descriptor, target string) error
}

type tagLink struct {
	repo, tag string
	digest    digest.Digest
}

// image links one image's content and returns the tag to set.
func (p *publisher) image(ctx context.Context, pi clusterimage.PackedImage) ([]tagLink, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	named, err := reference.ParseNormalizedNamed(pi.Name)
	if err != nil {
		return nil, fmt.Errorf("reading the image name: %w", err)
	}
	repo := RepositoryName(named)
	var m ocispec.Manifest
	if err := clusterimage.ReadJSON(ctx, p.st.Content(), pi.Manifest, &m); err != nil {
		return nil, err
	}
	manifests := []ocispec.Descriptor{pi.Manifest}
	if pi.Index != nil {
		manifests = append(manifests, *pi.Index)
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if !clusterimage.Distributable(d) {
			continue
		}
		if err := p.link(d, repo, "_layers"); err != nil {
			return nil, err
		}
	}
	for _, d := range manifests {
		if err := p.link(d, repo, "_manifests/revisions"); err != nil {
			return nil, err
		}
	}
	tagged, ok := named.(reference.Tagged)
	if !ok {
		return nil, nil
	}
	// With a digest beside the tag, the digest is what was packed.
	return []tagLink{{repo: repo, tag: tagged.Tag(), digest: manifests[len(manifests)-1].Digest}}, nil
}

// RepositoryName is the repository under which an image is served:
// docker.io/library/nginx, or localhost_5000/app for a domain with a port,
// since repositories have no colons. No domain has an underscore, so that no
// two domains meet.
func RepositoryName(named reference.Named) string {
	return path.Join(clusterimage.DomainFolder(reference.Domain(named)), reference.Path(named))
}

// link puts a blob in the tree and into a repository.
func (p *publisher) link(d ocispec.Descriptor, repo, kind string) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("linking %q: %w", d.Digest, err)
	}
	if !p.done[d.Digest] {
		target := filepath.Join(p.root, "blobs", d.Digest.Algorithm().String(), d.Digest.Encoded()[:2], d.Digest.Encoded(), "data")
		if err := p.take(d, target); err != nil {
			return err
		}
		p.done[d.Digest] = true
	}
	if kind == "_manifests/revisions" {
		return writeLink(revisionFile(p.root, repo, d.Digest), d.Digest, afterRemoval(p.root, peerTag{Repository: repo, Digest: d.Digest, Time: p.at}))
	}
	return writeLink(filepath.Join(p.root, "repositories", filepath.FromSlash(repo), filepath.FromSlash(kind),
		d.Digest.Algorithm().String(), d.Digest.Encoded(), "link"), d.Digest, time.Time{})
}

// blob gives a blob its place in the tree. One of the wrong size, which a
// crash of the machine may leave, is replaced.
func (p *publisher) blob(d ocispec.Descriptor, target string) error {
	source := p.st.BlobPath(d.Digest)
	want, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("linking %s: %w", d.Digest, err)
	}
	if have, err := os.Stat(target); err == nil {
		if os.SameFile(have, want) || have.Size() == want.Size() {
			return nil
		}
		if err := os.Remove(target); err != nil {
			return fmt.Errorf("linking %s: %w", d.Digest, err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return fmt.Errorf("linking %s: %w", d.Digest, err)
	}
	err = os.Link(source, target)
	if err == nil || errors.Is(err, os.ErrExist) {
		return nil
	}
	in, err := os.Open(source)
	if err != nil {
		return fmt.Errorf("copying %s: %w", d.Digest, err)
	}
	defer in.Close()
	return copyVerified(in, target, d.Digest)
}

// copyVerified copies a blob to another file system.
func copyVerified(in io.Reader, target string, want digest.Digest) (err error) {
	out, err := os.CreateTemp(filepath.Dir(target), ".data.*")
	if err != nil {
		return fmt.Errorf("copying %s: %w", want, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("copying %s: %w", want, err), out.Close(), os.Remove(out.Name()))
		}
	}()
	v := want.Algorithm().Digester()
	if _, err := io.Copy(io.MultiWriter(out, v.Hash()), in); err != nil {
		return err
	}
	if got := v.Digest(); got != want {
		return &clusterimage.DigestError{Want: want, Got: got}
	}
	if err := out.Chmod(0o444); err != nil {
		return err
	}
	if err := out.Sync(); err != nil {
		return err
	}
	if err := os.Rename(out.Name(), target); err != nil {
		return err
	}
	return out.Close()
}

// tag points a tag at a digest, as distribution does: in its index, then as the current one.
func (p *publisher) tag(t tagLink) error {
	if !tagPattern.MatchString(t.tag) {
		return fmt.Errorf("%q is no tag", t.tag)
	}
	dir := filepath.Join(p.root, "repositories", filepath.FromSlash(t.repo), "_manifests", "tags", t.tag)
	if err := writeLink(filepath.Join(dir, "index", t.digest.Algorithm().String(), t.digest.Encoded(), "link"), t.digest, time.Time{}); err != nil {
		return err
	}
	at := afterRemoval(p.root, peerTag{Repository: t.repo, Tag: t.tag, Digest: t.digest, Time: p.at})
	return writeLink(filepath.Join(dir, "current", "link"), t.digest, at)
}

var tagPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)

// revisionFile links a repository to a manifest that it serves.
func revisionFile(root, repo string, d digest.Digest) string {
	return filepath.Join(root, "repositories", filepath.FromSlash(repo), "_manifests", "revisions", d.Algorithm().String(), d.Encoded(), "link")
}

// writeLink writes a digest to a file with a time, where there is one. A file that has the digest keeps its time, if that is later.
func writeLink(file string, d digest.Digest, at time.Time) error {
	if have, err := os.ReadFile(file); err == nil && string(have) == d.String() {
		return raise(file, at)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("writing a link: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".link.*")
	if err != nil {
		return fmt.Errorf("writing a link: %w", err)
	}
	_, err = f.WriteString(d.String())
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil && !at.IsZero() {
		err = os.Chtimes(f.Name(), at, at)
	}
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing a link: %w", err), os.Remove(f.Name()))
	}
	return nil
}

// raise gives a file a later time.
func raise(file string, at time.Time) error {
	info, err := os.Stat(file)
	if err != nil || !at.After(info.ModTime()) {
		return err
	}
	return os.Chtimes(file, at, at)
}
