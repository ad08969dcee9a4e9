// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/store"
)

// InStore looks for signatures in a store, under whatever repository's name
// they came: what counts is the digest that they sign.
func InStore(st *store.Store) Source { return storeSource{Provider: st.Content(), st: st} }

type storeSource struct {
	content.Provider
	st *store.Store
}

func (s storeSource) Signatures(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error) {
	tags, err := s.st.Signatures(ctx, d)
	if err != nil {
		return nil, err
	}
	out := make([]ocispec.Descriptor, 0, len(tags))
	for _, t := range tags {
		out = append(out, t.Descriptor)
	}
	return out, nil
}

// InRegistry looks for signatures in a repository of a registry. Nothing goes
// into a store.
func InRegistry(repo *registry.Repository) Source { return registrySource{repo} }

type registrySource struct{ *registry.Repository }

func (r registrySource) Signatures(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error) {
	desc, err := r.Resolve(ctx, store.SignatureTag(d))
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []ocispec.Descriptor{desc}, nil
}

// Pull brings the signatures that the registry has of an image into the store,
// beside those that are there, and returns how many there are. name is what
// the image was pulled by.
func Pull(ctx context.Context, c *registry.Client, st *store.Store, name string, desc ocispec.Descriptor) (int, error) {
	repo, err := c.Repository(ctx, name)
	if err != nil {
		return 0, fmt.Errorf("pulling signatures: %w", err)
	}
	all, err := read(ctx, InRegistry(repo), desc)
	if err != nil {
		return 0, fmt.Errorf("pulling signatures: %w", err)
	}
	if len(all) == 0 {
		return 0, nil
	}
	named, err := repository(name)
	if err != nil {
		return 0, err
	}
	return len(all), add(ctx, st, named, desc.Digest, all)
}

// Push sends the signatures that the store has of an image, under whatever
// name, to where the image was pushed to, and returns how many there are. What
// the registry has already stays.
func Push(ctx context.Context, c *registry.Client, st *store.Store, desc ocispec.Descriptor, name string) (_ int, err error) {
	release, err := st.Hold(ctx) // what is written here has no tag
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, release()) }()
	all, err := read(ctx, InStore(st), desc)
	if err != nil || len(all) == 0 {
		return 0, err
	}
	repo, err := c.Repository(ctx, name)
	if err != nil {
		return 0, fmt.Errorf("pushing signatures: %w", err)
	}
	there, err := read(ctx, InRegistry(repo), desc)
	if err != nil {
		return 0, fmt.Errorf("pushing signatures: %w", err)
	}
	merged := there
	for _, s := range all {
		if !slices.ContainsFunc(there, s.same) {
			merged = append(merged, s)
		}
	}
	if len(merged) == len(there) {
		return len(all), nil
	}
	manifest, err := write(ctx, st.Content(), merged)
	if err != nil {
		return 0, fmt.Errorf("pushing signatures: %w", err)
	}
	named, err := repository(name)
	if err != nil {
		return 0, err
	}
	if _, err := c.Push(ctx, st, manifest, named.Name()+":"+store.SignatureTag(desc.Digest)); err != nil {
		return 0, fmt.Errorf("pushing signatures: %w", err)
	}
	return len(all), nil
}
