// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/build/attest"
	"github.com/sealerio/sealer/build/policy"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/signature"
)

// ReadPolicy reads the file of --policy. Keys are found relative to it. A mistake in it is policy.Errors.
func ReadPolicy(file string) (*policy.Policy, error) {
	src, err := readText(file)
	if err != nil {
		return nil, fmt.Errorf("reading the policy: %w", err)
	}
	return policy.Parse(file, src, func(key string) ([]byte, error) {
		if !filepath.IsAbs(key) {
			key = filepath.Join(filepath.Dir(file), key)
		}
		return readText(key)
	})
}

// checkBases refuses images that the rootfs would be made of, before any registry is asked for them.
func checkBases(ctx context.Context, o Options, in *inputs, pack *packer) error {
	if o.Policy == nil {
		return nil
	}
	var all []policy.Violation
	for _, img := range baseImages(o, in, nil) {
		all = append(all, o.Policy.Names(img)...)
	}
	if len(all) == 0 {
		return nil
	}
	images, _ := pack.imagesInContext(ctx)
	reqs, err := pack.likely(images)
	if err != nil {
		return err
	}
	_, denied := permitted(o, reqs)
	return o.Policy.Error(append(all, denied...))
}

// baseImages are the images of FROM and COPY --from, with what they were found to be, and the one that RUN runs in.
func baseImages(o Options, in *inputs, from bases) []policy.Image {
	var out []policy.Image
	if name := toolboxName(o, in); name != "" {
		out = append(out, policy.Image{Name: name, Origins: []string{"toolbox"}, Base: true})
	}
	for _, id := range slices.Sorted(maps.Keys(in.bases)) {
		for _, w := range in.bases[id] {
			img := policy.Image{Name: w.name, Origins: []string{fmt.Sprintf("%s:%d", in.file.Name, w.line)}, Base: true}
			if b, ok := from[id][w.name]; ok {
				img.Digests = []ocispec.Descriptor{b.top}
				if b.manifest.Digest != b.top.Digest {
					img.Digests = append(img.Digests, b.manifest)
				}
			}
			out = append(out, img)
		}
	}
	return out
}

// permitted takes away what the policy refuses by name.
func permitted(o Options, reqs []registry.ImageRequest) (allowed []registry.ImageRequest, denied []policy.Violation) {
	if o.Policy == nil {
		return reqs, nil
	}
	for _, r := range reqs {
		violations := o.Policy.Names(policy.Image{Name: r.Name, Origins: r.Origins})
		if len(violations) == 0 {
			allowed = append(allowed, r)
		}
		denied = append(denied, violations...)
	}
	return allowed, denied
}

// decide asks the policy about everything, and returns what it says for the attestation.
func decide(ctx context.Context, o Options, in *inputs, from bases, images []clusterimage.PackedImage, denied []policy.Violation) ([]attest.Statement, error) {
	if o.Policy == nil {
		return nil, nil
	}
	task := o.Display.Task("checking the policy " + o.Policy.Name)
	all := baseImages(o, in, from)
	for _, pi := range images {
		img := policy.Image{Name: pi.Name, Origins: pi.Origins}
		if pi.Index != nil {
			img.Digests = append(img.Digests, *pi.Index)
		}
		img.Digests = append(img.Digests, pi.Manifest)
		var err error
		if img.License, err = imageLicense(ctx, o.Store.Content(), pi); err != nil {
			task.Done(err)
			return nil, err
		}
		all = append(all, img)
	}
	decision, violations, err := o.Policy.Check(ctx, all, func(ctx context.Context, name string) ([]signature.Source, error) {
		sources := []signature.Source{signature.InStore(o.Store)}
		repo, err := o.Registry.Repository(ctx, name)
		if err != nil {
			return sources, nil //nolint:nilerr // offline: what the store has is what counts
		}
		return append(sources, signature.InRegistry(repo)), nil
	})
	if err == nil {
		err = o.Policy.Error(append(violations, denied...))
	}
	task.Done(err)
	if err != nil {
		return nil, err
	}
	return []attest.Statement{{PredicateType: policy.PredicateType, Predicate: decision}}, nil
}
