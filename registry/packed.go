// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

// Target is where packed images go: repositories PREFIX/DOMAIN/path of a registry, in the form of RepositoryName. Images whose
// domain is Host itself keep their name.
type Target struct {
	Host   string // as in references: r.example.com:5000
	Prefix string // of the repositories; may be empty
}

// repository is where the target has an image.
func (t Target) repository(named reference.Named) string {
	if strings.EqualFold(reference.Domain(named), t.Host) {
		return reference.Path(named)
	}
	return path.Join(t.Prefix, RepositoryName(named))
}

// packedPush is one image that is to be pushed.
type packedPush struct {
	name   string
	target string // reference in the target
	desc   ocispec.Descriptor
}

// PackedError is what a registry other than the cluster's own cannot hold of an image's packed images.
type PackedError struct{ Problems []string }

func (e *PackedError) Error() string {
	return "the packed images cannot all be in one registry of the user's own:\n  " + strings.Join(e.Problems, "\n  ")
}

// Hint says what can be done.
func (e *PackedError) Hint() string {
	return "build the image with all platforms of these images, or without their digests; or use the cluster's own registry, which serves parts of an index"
}

// CheckPacked finds what PushPacked would stop at, without asking the registry: names with the digest of an index of which not all
// platforms are packed, which registries do not take, and two images that would be one there. The error is a *PackedError.
func CheckPacked(ctx context.Context, st *store.Store, img *clusterimage.Image, to Target) error {
	_, err := packedPushes(ctx, st, img, to)
	return err
}

// PushPacked sends all packed images of img to a registry: what it has is not sent again. Where not all platforms of an
// image are packed, its tag leads to those that are.
func (c *Client) PushPacked(ctx context.Context, st *store.Store, img *clusterimage.Image, to Target) (err error) {
	release, err := st.Hold(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	list, err := packedPushes(ctx, st, img, to)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(perJob)
	for _, p := range list {
		g.Go(func() error {
			if _, err := c.Push(ctx, st, p.desc, p.target); err != nil {
				return fmt.Errorf("pushing %s: %w", p.name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// LacksPacked are the names of img's packed images that PushPacked would send: what the names stand for there is not what is packed.
func (c *Client) LacksPacked(ctx context.Context, st *store.Store, img *clusterimage.Image, to Target) (lacks []string, err error) {
	release, err := st.Hold(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	list, err := packedPushes(ctx, st, img, to)
	if err != nil {
		return nil, err
	}
	missing := make([]bool, len(list))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(perJob)
	for i, p := range list {
		g.Go(func() error {
			src, err := c.parse(p.target)
			if err != nil {
				return err
			}
			src = src.direct()
			s, err := c.session(ctx, src, transport.PushScope) // some registries tell those who may only read that there is nothing
			if err != nil {
				return src.fail(err)
			}
			have, err := s.headManifest(ctx, src.identifier())
			if err != nil {
				return src.fail(err)
			}
			missing[i] = have != p.desc.Digest
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, p := range list {
		if missing[i] {
			lacks = append(lacks, p.name)
		}
	}
	return lacks, nil
}

// packedPushes are the images, each with what its name is to stand for.
func packedPushes(ctx context.Context, st *store.Store, img *clusterimage.Image, to Target) ([]packedPush, error) {
	byName := map[string][]clusterimage.PackedImage{}
	var names []string
	for _, p := range img.Images {
		if byName[p.Name] == nil {
			names = append(names, p.Name)
		}
		byName[p.Name] = append(byName[p.Name], p)
	}
	var list []packedPush
	taken := map[string]packedPush{}
	wrong := &PackedError{}
	for _, name := range names {
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return nil, fmt.Errorf("reading the image name %q: %w", name, err)
		}
		desc, err := standsFor(ctx, st, byName[name])
		if err != nil {
			return nil, fmt.Errorf("pushing %s: %w", name, err)
		}
		p := packedPush{name: name, target: to.Host + "/" + to.repository(named), desc: desc}
		pinned, isPinned := named.(reference.Digested)
		if isPinned && pinned.Digest() != desc.Digest {
			wrong.Problems = append(wrong.Problems, name+" names an index of which only some platforms are packed")
			continue
		}
		if tagged, ok := named.(reference.Tagged); ok {
			p.target += ":" + tagged.Tag()
		} else {
			p.target += "@" + desc.Digest.String()
		}
		if other, there := taken[p.target]; there && other.desc.Digest != desc.Digest {
			wrong.Problems = append(wrong.Problems, fmt.Sprintf("%s and %s would both be %s", other.name, name, p.target))
			continue
		}
		taken[p.target] = p
		list = append(list, p)
	}
	if len(wrong.Problems) > 0 {
		return nil, wrong
	}
	return list, nil
}

// standsFor is what a name is to lead to: its index where all of that is packed, or else the packed manifest, or a new index of several.
func standsFor(ctx context.Context, st *store.Store, packed []clusterimage.PackedImage) (ocispec.Descriptor, error) {
	if index := packed[0].Index; index != nil {
		if all, err := holds(ctx, st, *index, packed); err != nil || all {
			return *index, err
		}
	}
	if len(packed) == 1 {
		return packed[0].Manifest, nil
	}
	made := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, p := range packed {
		platform, err := platforms.Parse(p.Platform)
		if err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("reading the platform %q: %w", p.Platform, err)
		}
		d := p.Manifest
		d.Platform = &platform
		made.Manifests = append(made.Manifests, d)
	}
	data, err := json.Marshal(made)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: made.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return desc, storeDocument(ctx, st, desc, data)
}

// holds tells whether all manifests of an index are packed.
func holds(ctx context.Context, st *store.Store, desc ocispec.Descriptor, packed []clusterimage.PackedImage) (bool, error) {
	data, err := readDocument(ctx, st, desc)
	if err != nil {
		return false, err
	}
	index, err := parseIndex(document{desc: desc, data: data})
	if err != nil {
		return false, err
	}
	for _, d := range index.Manifests {
		if !slices.ContainsFunc(packed, func(p clusterimage.PackedImage) bool { return p.Manifest.Digest == d.Digest }) {
			return false, nil
		}
	}
	return true, nil
}

// Check asks a registry whether it is there and takes the credentials that the client has for it: Options.Logins, or else
// docker's. The error may be a *LoginError.
func (c *Client) Check(ctx context.Context, host string) error {
	h, err := c.host(ctx, host)
	if err != nil {
		return err
	}
	auth, err := c.credentials(source{host: host}, h)
	if err != nil {
		return err
	}
	if err := c.verifyLogin(ctx, host, auth); err != nil {
		return &LoginError{Host: host, Err: err}
	}
	return nil
}
