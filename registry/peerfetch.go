// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
)

// maxIndexDepth of indexes in indexes.
const maxIndexDepth = 4

// maxPeerManifest bounds a document, in bytes: what distribution takes at most.
const maxPeerManifest = 4 << 20

// fetch brings a manifest and all that it leads to from a peer into the folder, and then sets the tag, where there is one.
func (r *replicator) fetch(ctx context.Context, peer string, t peerTag) error {
	if err := t.check(); err != nil {
		return fmt.Errorf("fetching %q:%q@%q from %s: %w", t.Repository, t.Tag, t.Digest, peer, err)
	}
	r.fetching.RLock()
	defer r.fetching.RUnlock()
	f := &peerFetcher{r: r, ctx: ctx, peer: peer, repo: t.Repository, documents: map[digest.Digest][]byte{}}
	// The time of the push, not that of the copy: so that all know which of two came later.
	f.p = publisher{root: r.root, done: map[digest.Digest]bool{}, at: t.Time, take: f.take}
	if err := f.manifest(t.Digest, 0); err != nil {
		return fmt.Errorf("fetching %s@%s from %s: %w", t.Repository, t.Digest, peer, err)
	}
	if t.Tag == "" {
		return syncTree(r.root)
	}
	// What a tag leads to is on the disk before it.
	if err := syncTree(r.root); err != nil {
		return err
	}
	release, err := r.tags.lock(ctx, t.key())
	if err != nil {
		return err
	}
	defer release()
	if d, at, err := readTag(r.tagFile(t.Repository, t.Tag)); err != nil || d != "" && (peerTag{Digest: d, Time: at}).newer(t) {
		return err // it was pushed here meanwhile
	}
	return f.p.tag(tagLink{repo: t.Repository, tag: t.Tag, digest: t.Digest})
}

// peerFetcher fetches one image.
type peerFetcher struct {
	r         *replicator
	ctx       context.Context //nolint:containedctx // of this one fetch: publisher's take has none
	peer      string
	repo      string
	p         publisher
	documents map[digest.Digest][]byte
}

// peerDocument is what is read of manifests and indexes, in OCI's form and docker's.
type peerDocument struct {
	Config    *ocispec.Descriptor  `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
	Manifests []ocispec.Descriptor `json:"manifests"`
}

// blobs are those that it leads to itself.
func (d peerDocument) blobs() []ocispec.Descriptor {
	blobs := slices.Clone(d.Layers)
	if d.Config != nil {
		blobs = append(blobs, *d.Config)
	}
	return blobs
}

func (f *peerFetcher) manifest(d digest.Digest, depth int) error {
	if depth > maxIndexDepth {
		return errors.New("its indexes lie too deep in one another")
	}
	data, err := f.read(d)
	if err != nil {
		return err
	}
	var doc peerDocument
	if err := json.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("reading %s: %w", d, err)
	}
	for _, m := range doc.Manifests {
		err := f.manifest(m.Digest, depth+1)
		if _, answered := errors.AsType[*peerError](err); answered { // a registry may have some of an index's platforms only
			continue
		}
		if err != nil {
			return err
		}
	}
	for _, b := range doc.blobs() {
		if !clusterimage.Distributable(b) {
			continue
		}
		if err := f.p.link(b, f.repo, "_layers"); err != nil {
			return err
		}
	}
	f.documents[d] = data
	return f.p.link(ocispec.Descriptor{Digest: d, Size: int64(len(data))}, f.repo, "_manifests/revisions")
}

// read gets a document and checks that it is the one.
func (f *peerFetcher) read(d digest.Digest) (_ []byte, err error) {
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("reading %q: %w", d, err)
	}
	ctx, cancel := context.WithTimeout(f.ctx, peerPatience)
	defer cancel()
	res, err := f.r.request(ctx, http.MethodGet, f.peer+"/v2/"+f.repo+"/manifests/"+d.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxPeerManifest))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", d, err)
	}
	if got := d.Algorithm().FromBytes(data); got != d {
		return nil, &clusterimage.DigestError{Want: d, Got: got}
	}
	return data, nil
}

// take gives a blob its place in the tree, unless it is there. Of two that want the same one, one waits.
func (f *peerFetcher) take(d ocispec.Descriptor, target string) (err error) {
	release, err := f.r.blobs.lock(f.ctx, d.Digest.String())
	if err != nil {
		return err
	}
	defer release()
	if have, err := os.Stat(target); err == nil && have.Size() == d.Size {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return fmt.Errorf("copying %s: %w", d.Digest, err)
	}
	if data, ok := f.documents[d.Digest]; ok {
		return copyVerified(bytes.NewReader(data), target, d.Digest)
	}
	res, err := f.r.request(f.ctx, http.MethodGet, f.peer+"/v2/"+f.repo+"/blobs/"+d.Digest.String(), http.NoBody)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	return copyVerified(io.LimitReader(res.Body, d.Size), target, d.Digest)
}
