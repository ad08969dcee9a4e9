// SPDX-License-Identifier: Apache-2.0

package ship

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

// dockerImage is an entry of manifest.json.
// See https://github.com/moby/docker-image-spec/blob/v1.3.1/spec.md
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// NewDockerPlan lays out an archive in Docker's own format, for tools that read
// nothing else: of a ClusterImage the rootfs for one platform, without the
// packed images; of another image that platform. Layers are unpacked, so that
// they are read twice: once for their size. The caller holds the store until
// the archive is written.
func NewDockerPlan(ctx context.Context, st *store.Store, images []store.Tagged, want ocispec.Platform) (*Plan, error) {
	p := &Plan{st: st}
	var list []dockerImage
	for _, img := range sortedImages(images) {
		entry, err := p.dockerImage(ctx, img, want)
		if errdefs.IsNotFound(err) {
			return nil, p.incomplete(ctx, img, "", err)
		}
		if err != nil {
			return nil, fmt.Errorf("saving %s: %w", img.Name, err)
		}
		list = append(list, entry)
		p.contents.Images = append(p.contents.Images, member(img, []ocispec.Platform{want}))
	}
	data, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("laying out an archive: %w", err)
	}
	if err := p.add(entry{name: dockerFile, data: data}); err != nil {
		return nil, err
	}
	p.size += 2 * block // the tar's end
	p.contents.Size = p.size
	return p, nil
}

func (p *Plan) dockerImage(ctx context.Context, img store.Tagged, want ocispec.Platform) (dockerImage, error) {
	m, err := manifestFor(ctx, naming{p.st.Content()}, img.Descriptor, want)
	if err != nil {
		return dockerImage{}, err
	}
	data, err := clusterimage.ReadBlob(ctx, naming{p.st.Content()}, m.Config)
	if err != nil {
		return dockerImage{}, err
	}
	var config ocispec.Image
	if err := json.Unmarshal(data, &config); err != nil {
		return dockerImage{}, fmt.Errorf("reading config %s: %w", m.Config.Digest, err)
	}
	if len(config.RootFS.DiffIDs) != len(m.Layers) {
		return dockerImage{}, fmt.Errorf("config %s has %d layers, the manifest %d", m.Config.Digest, len(config.RootFS.DiffIDs), len(m.Layers))
	}
	out := dockerImage{Config: m.Config.Digest.Encoded() + ".json", RepoTags: []string{img.Name}}
	if err := p.once(entry{name: out.Config, data: data}); err != nil {
		return dockerImage{}, err
	}
	for i, l := range m.Layers {
		diff := config.RootFS.DiffIDs[i]
		if err := diff.Validate(); err != nil {
			return dockerImage{}, fmt.Errorf("config %s: layer %q: %w", m.Config.Digest, diff, err)
		}
		name := diff.Encoded() + "/layer.tar"
		out.Layers = append(out.Layers, name)
		e, err := p.unpackedLayer(ctx, name, l, diff)
		if err != nil {
			return dockerImage{}, err
		}
		if err := p.once(e); err != nil {
			return dockerImage{}, err
		}
	}
	return out, nil
}

// once adds an entry unless one of its name is there.
func (p *Plan) once(e entry) error {
	for _, have := range p.entries {
		if have.name == e.name {
			return nil
		}
	}
	return p.add(e)
}

// unpackedLayer is the entry of a layer: as it stands where it is a plain tar,
// else with a function that unpacks it.
func (p *Plan) unpackedLayer(ctx context.Context, name string, l ocispec.Descriptor, diff digest.Digest) (entry, error) {
	if l.Digest == diff {
		have, err := present(ctx, p.st, l)
		if err == nil && !have {
			err = &MissingError{Digest: l.Digest}
		}
		return entry{name: name, size: l.Size, digest: l.Digest}, err
	}
	e := entry{name: name, digest: diff, open: func(ctx context.Context) (io.ReadCloser, error) { return p.unpack(ctx, l) }}
	r, err := e.open(ctx)
	if err != nil {
		return entry{}, err
	}
	defer r.Close()
	e.size, err = io.Copy(io.Discard, &waiting{ctx: ctx, r: r})
	if err != nil {
		return entry{}, fmt.Errorf("unpacking layer %s: %w", l.Digest, err)
	}
	return e, nil
}

// unpack reads a layer's tar.
func (p *Plan) unpack(ctx context.Context, l ocispec.Descriptor) (io.ReadCloser, error) {
	ra, err := naming{p.st.Content()}.ReaderAt(ctx, l)
	if err != nil {
		return nil, fmt.Errorf("reading layer %s: %w", l.Digest, err)
	}
	plain, err := decompress(content.NewReader(ra))
	if err == nil && plain == nil {
		err = errors.New("its compression is not known")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("unpacking layer %s: %w", l.Digest, err), ra.Close())
	}
	return &unpacked{Reader: bufio.NewReaderSize(plain, copyBuffer), plain: plain, blob: ra}, nil
}

type unpacked struct {
	io.Reader
	plain, blob io.Closer
}

func (u *unpacked) Close() error { return errors.Join(u.plain.Close(), u.blob.Close()) }

// waiting ends a long copy with its context.
type waiting struct {
	ctx context.Context //nolint:containedctx // for the time of one copy
	r   io.Reader
}

func (w *waiting) Read(p []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	return w.r.Read(p)
}

// manifestFor is the manifest of an image for a platform.
func manifestFor(ctx context.Context, p content.Provider, desc ocispec.Descriptor, want ocispec.Platform) (ocispec.Manifest, error) {
	var m ocispec.Manifest
	if clusterimage.IsManifest(desc.MediaType) {
		return m, clusterimage.ReadJSON(ctx, p, desc, &m)
	}
	img, err := clusterimage.Read(ctx, p, desc)
	if err == nil {
		r, err := img.Platform(want)
		if err == nil && r.Absent {
			err = &MissingError{Digest: r.Descriptor.Digest}
		}
		return r.Manifest, err
	}
	if !errors.Is(err, clusterimage.ErrNotClusterImage) {
		return m, err
	}
	var index ocispec.Index
	if err := clusterimage.ReadJSON(ctx, p, desc, &index); err != nil {
		return m, err
	}
	child, err := clusterimage.ChooseEntry(desc, index, want)
	if err != nil {
		return m, err
	}
	return m, clusterimage.ReadJSON(ctx, p, child, &m)
}
