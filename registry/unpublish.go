// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

// Unpublish takes the packed images of img out of the registry folder dir, but for those that others pack under the same
// name, and tags that were pushed over since. Blobs go that no other repository has. The store must still have img's
// documents. It may be called again, also while the folder is served; peers that still have the images do not bring them back.
func Unpublish(ctx context.Context, st *store.Store, img *clusterimage.Image, others []*clusterimage.Image, dir string) error {
	kept := map[string]bool{}
	for _, o := range others {
		for _, p := range o.Images {
			kept[p.Name] = true
			named, err := reference.ParseNormalizedNamed(p.Name)
			if err != nil {
				return fmt.Errorf("reading the image name: %w", err)
			}
			for _, d := range documentsOf(p) { // by its digest perhaps, under another name
				kept[RepositoryName(named)+"@"+d.String()] = true
			}
		}
	}
	u := unpublisher{st: st, root: filepath.Join(dir, filepath.FromSlash(treeRoot)), kept: kept, gone: map[digest.Digest]bool{}}
	for _, p := range img.Images {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if kept[p.Name] {
			continue
		}
		if err := u.image(ctx, p); err != nil {
			return fmt.Errorf("unpublishing %s: %w", p.Name, err)
		}
	}
	if err := u.sweep(ctx); err != nil {
		return fmt.Errorf("unpublishing images: %w", err)
	}
	return nil
}

type unpublisher struct {
	st   *store.Store
	root string
	kept map[string]bool        // names, and REPOSITORY@DIGEST
	gone map[digest.Digest]bool // blobs that may have lost their last user
}

func (u *unpublisher) repository(repo string) string {
	return filepath.Join(u.root, "repositories", filepath.FromSlash(repo))
}

func (u *unpublisher) image(ctx context.Context, p clusterimage.PackedImage) error {
	named, err := reference.ParseNormalizedNamed(p.Name)
	if err != nil {
		return fmt.Errorf("reading the image name: %w", err)
	}
	var m ocispec.Manifest
	if err := clusterimage.ReadJSON(ctx, u.st.Content(), p.Manifest, &m); err != nil {
		return err
	}
	repo := RepositoryName(named)
	documents := documentsOf(p)
	if tagged, ok := named.(reference.Tagged); ok {
		if err := u.untag(repo, tagged.Tag(), documents); err != nil {
			return err
		}
	}
	tags, err := u.tagged(repo)
	if err != nil {
		return err
	}
	for _, d := range documents {
		if tags[d] || u.kept[repo+"@"+d.String()] {
			continue
		}
		if info, err := os.Stat(revisionFile(u.root, repo, d)); err == nil {
			if err := u.mark(peerTag{Repository: repo, Digest: d, Time: info.ModTime()}); err != nil {
				return err
			}
		}
		if err := u.unlink(repo, "_manifests/revisions", d); err != nil {
			return err
		}
	}
	used, err := u.used(repo)
	if err != nil {
		return err
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if used[d.Digest] {
			continue
		}
		if err := u.unlink(repo, "_layers", d.Digest); err != nil {
			return err
		}
	}
	return nil
}

func documentsOf(p clusterimage.PackedImage) []digest.Digest {
	documents := []digest.Digest{p.Manifest.Digest}
	if p.Index != nil {
		documents = append(documents, p.Index.Digest)
	}
	return documents
}

// used are the blobs, and the manifests, that the manifests of a repository lead to.
func (u *unpublisher) used(repo string) (map[digest.Digest]bool, error) {
	used := map[digest.Digest]bool{}
	revisions, err := filepath.Glob(filepath.Join(u.repository(repo), "_manifests", "revisions", "*", "*"))
	if err != nil {
		return nil, err
	}
	for _, r := range revisions {
		d := digest.NewDigestFromEncoded(digest.Algorithm(filepath.Base(filepath.Dir(r))), filepath.Base(r))
		if d.Validate() != nil {
			continue
		}
		doc, err := u.document(d)
		if err != nil {
			return nil, err
		}
		for _, b := range append(doc.blobs(), doc.Manifests...) {
			used[b.Digest] = true
		}
	}
	return used, nil
}

// document reads a manifest or an index; one that is not there leads to nothing.
func (u *unpublisher) document(d digest.Digest) (doc peerDocument, err error) {
	file := filepath.Join(u.root, "blobs", d.Algorithm().String(), d.Encoded()[:2], d.Encoded(), "data")
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return doc, nil
	}
	if err == nil && info.Size() > maxPeerManifest {
		err = fmt.Errorf("%s is too large for a manifest", d)
	}
	if err != nil {
		return doc, err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return doc, err
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return doc, fmt.Errorf("reading %s: %w", d, err)
	}
	return doc, nil
}

// untag takes a tag away where it leads to one of the documents, and keeps that it did.
func (u *unpublisher) untag(repo, tag string, documents []digest.Digest) error {
	dir := u.tagDir(repo, tag)
	current, at, err := readTag(filepath.Join(dir, "current", "link"))
	if err != nil || current == "" {
		return err
	}
	for _, d := range documents {
		if d == current {
			if err := u.mark(peerTag{Repository: repo, Tag: tag, Digest: d, Time: at}); err != nil {
				return err
			}
			return os.RemoveAll(dir)
		}
	}
	return nil
}

// mark keeps that what was pushed at its time is taken away now; or then, where that was by a clock that is ahead.
func (u *unpublisher) mark(t peerTag) error {
	if now := time.Now(); now.After(t.Time) {
		t.Time = now
	}
	t.Time = t.Time.UTC()
	return markRemoved(u.root, t)
}

func (u *unpublisher) tagDir(repo, tag string) string {
	return filepath.Join(u.repository(repo), "_manifests", "tags", tag)
}

// tagged are the documents that the tags lead to which a repository has left.
func (u *unpublisher) tagged(repo string) (map[digest.Digest]bool, error) {
	links, err := filepath.Glob(filepath.Join(u.repository(repo), "_manifests", "tags", "*", "current", "link"))
	if err != nil {
		return nil, err
	}
	used := map[digest.Digest]bool{}
	for _, link := range links {
		d, _, err := readTag(link)
		if err != nil {
			return nil, err
		}
		used[d] = true
	}
	return used, nil
}

func (u *unpublisher) unlink(repo, kind string, d digest.Digest) error {
	u.gone[d] = true
	return os.RemoveAll(filepath.Join(u.repository(repo), filepath.FromSlash(kind), d.Algorithm().String(), d.Encoded()))
}

// sweep deletes the blobs that no repository links to any more.
func (u *unpublisher) sweep(ctx context.Context) error {
	if len(u.gone) == 0 {
		return nil
	}
	top := filepath.Join(u.root, "repositories")
	err := filepath.WalkDir(top, func(name string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if !e.IsDir() || e.Name() != "_layers" && e.Name() != "revisions" {
			return nil
		}
		for d := range u.gone {
			if _, err := os.Stat(filepath.Join(name, d.Algorithm().String(), d.Encoded())); err == nil {
				delete(u.gone, d)
			}
		}
		return fs.SkipDir
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for d := range u.gone {
		if d.Validate() != nil {
			continue
		}
		if err := os.RemoveAll(filepath.Join(u.root, "blobs", d.Algorithm().String(), d.Encoded()[:2], d.Encoded())); err != nil {
			return err
		}
	}
	return nil
}

// Lacks are those of the names that the registry folder dir does not serve.
func Lacks(dir string, names []string) ([]string, error) {
	root := filepath.Join(dir, filepath.FromSlash(treeRoot), "repositories")
	lacks := []string{} // [] in JSON, not null
	for _, name := range names {
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			lacks = append(lacks, name) // none can have it
			continue
		}
		named = reference.TagNameOnly(named)
		there := false
		// The folders of older tools' images have no domain.
		for _, repo := range []string{RepositoryName(named), reference.Path(named)} {
			manifests := filepath.Join(root, filepath.FromSlash(repo), "_manifests")
			file := ""
			switch n := named.(type) {
			case reference.Digested:
				file = filepath.Join(manifests, "revisions", n.Digest().Algorithm().String(), n.Digest().Encoded(), "link")
			case reference.Tagged:
				file = filepath.Join(manifests, "tags", n.Tag(), "current", "link")
			}
			_, err := os.Stat(file)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("looking for the image %s: %w", name, err)
			}
			there = there || err == nil
		}
		if !there {
			lacks = append(lacks, name)
		}
	}
	return lacks, nil
}
