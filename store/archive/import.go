// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
)

// ImportOptions say how layers are brought into the store.
type ImportOptions struct {
	// Compression of layers that the archive holds as plain tars, in docker save's format: Zstd or Gzip. "" is Zstd.
	Compression string
	// Advance is told of bytes as they are read. nil: silent.
	Advance func(n int64)
}

// Import brings images of the archive into the store, and returns them in the same order. What the store has is not read.
// Every blob is verified: by its digest, or where the archive has none by the digest of the unpacked layer in the image's
// config. A blob appears whole or not at all; what had come when an archive turns out to be cut stays for the next time.
// The caller holds the store. An error is an *Error.
func (a *Archive) Import(ctx context.Context, st *store.Store, images []Image, o ImportOptions) ([]clusterimage.PackedImage, error) {
	if o.Compression == "" {
		o.Compression = Zstd
	}
	if o.Advance == nil {
		o.Advance = func(int64) {}
	}
	in := &importing{a: a, st: st, o: o, jobs: map[int]*job{}, made: map[digest.Digest]ocispec.Descriptor{}}
	out, err := in.run(ctx, images)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, &Error{Source: a.Name, Err: err}
	}
	return out, nil
}

type importing struct {
	a    *Archive
	st   *store.Store
	o    ImportOptions
	jobs map[int]*job                         // by the entry's place
	made map[digest.Digest]ocispec.Descriptor // of docker save's layers, by the digest of the plain tar
}

// job is a file of the archive that becomes a blob.
type job struct {
	desc   ocispec.Descriptor // of an OCI blob
	diffID digest.Digest      // of a layer in docker save's format
	kind   string             // its compression
	how    string
	size   int64
	done   bool
}

func (in *importing) run(ctx context.Context, images []Image) ([]clusterimage.PackedImage, error) {
	for _, image := range images {
		if err := in.plan(ctx, image); err != nil {
			return nil, fmt.Errorf("image %s: %w", image.called(image.Config.Digest), err)
		}
	}
	if err := in.fetch(ctx); err != nil {
		return nil, err
	}
	out := make([]clusterimage.PackedImage, len(images))
	for i, image := range images {
		var err error
		if out[i], err = in.finish(ctx, image); err != nil {
			return nil, fmt.Errorf("image %s: %w", image.called(image.Config.Digest), err)
		}
	}
	return out, nil
}

// plan notes which files are needed.
func (in *importing) plan(ctx context.Context, image Image) error {
	for _, l := range image.parsed.Layers {
		if !clusterimage.Distributable(l) || present(ctx, in.st, l) {
			continue
		}
		e, err := in.a.resolve(blobName(l.Digest))
		if err != nil {
			return fmt.Errorf("layer %s: %w", l.Digest, err)
		}
		if e.size != l.Size {
			return fmt.Errorf("layer %s has %d bytes and %d by its manifest: %w", l.Digest, e.size, l.Size, io.ErrUnexpectedEOF)
		}
		in.jobs[e.at] = &job{desc: bare(l), size: e.size}
	}
	for _, l := range image.layers {
		if _, ok := in.made[l.diffID]; ok {
			continue
		}
		e, err := in.a.resolve(l.entry)
		if err != nil {
			return fmt.Errorf("layer %s: %w", l.diffID, err)
		}
		if d, ok := in.st.Derived(l.diffID, in.how(e)); ok {
			in.made[l.diffID] = d
			continue
		}
		if other, ok := in.jobs[e.at]; ok && other.diffID != l.diffID {
			return fmt.Errorf("%q is said to be both layer %s and layer %s", e.name, other.diffID, l.diffID)
		}
		in.jobs[e.at] = &job{diffID: l.diffID, size: e.size, kind: e.kind, how: in.how(e)}
	}
	return nil
}

// how names the way in which a layer becomes a blob. One that is compressed already stays as it is: what is noted for it
// must not be taken for another that unpacks to the same.
func (in *importing) how(e entry) string {
	if e.kind == "" {
		return in.o.Compression
	}
	return fmt.Sprintf("%s-of-%d", e.kind, e.size)
}

func present(ctx context.Context, st *store.Store, d ocispec.Descriptor) bool {
	info, err := st.Content().Info(ctx, d.Digest)
	return err == nil && info.Size == d.Size
}

// fetch goes through the archive once for all that is needed.
func (in *importing) fetch(ctx context.Context) error {
	left := len(in.jobs)
	if left == 0 {
		return nil
	}
	err := in.a.content.walk(ctx, func(e entry, r io.Reader) error {
		j, ok := in.jobs[e.at]
		if !ok || j.done {
			return nil
		}
		r = &counted{ctx: ctx, r: io.LimitReader(r, j.size), advance: in.o.Advance}
		var err error
		if j.diffID == "" {
			err = in.copy(ctx, j, r)
		} else {
			err = in.layer(ctx, j, r)
		}
		if err != nil {
			return err
		}
		j.done = true
		if left--; left == 0 {
			return errStop
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, at := range slices.Sorted(maps.Keys(in.jobs)) {
		if j := in.jobs[at]; !j.done {
			return fmt.Errorf("layer %s%s has gone from it: %w", j.desc.Digest, j.diffID, io.ErrUnexpectedEOF)
		}
	}
	return nil
}

// counted reports what is read, and ends with the context.
type counted struct {
	ctx     context.Context
	r       io.Reader
	advance func(int64)
}

func (c *counted) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.r.Read(p)
	c.advance(int64(n))
	return n, err
}

// copy brings a blob in as it is.
func (in *importing) copy(ctx context.Context, j *job, r io.Reader) error {
	return in.blob(ctx, j.desc, func(w content.Writer) (digest.Digest, error) {
		if _, err := io.Copy(w, r); err != nil {
			return "", fmt.Errorf("layer %s: %w", j.desc.Digest, err)
		}
		got, err := digestAs(w, j.desc.Digest)
		if err != nil {
			return "", err
		}
		if got != j.desc.Digest {
			return "", &clusterimage.DigestError{Want: j.desc.Digest, Got: got}
		}
		return got, nil
	})
}

func digestAs(w content.Writer, want digest.Digest) (digest.Digest, error) {
	got := w.Digest()
	if got.Algorithm() != want.Algorithm() {
		return "", fmt.Errorf("%s: digests of this kind are not read from archives", want)
	}
	return got, nil
}

// blob writes a blob whose digest is known.
func (in *importing) blob(ctx context.Context, desc ocispec.Descriptor, write func(content.Writer) (digest.Digest, error)) error {
	w, err := in.st.Ingest(ctx, desc)
	return ingest(ctx, w, err, write, func() error { return in.st.AbortIngest(ctx, desc.Digest) })
}

// making writes a blob whose digest shows when it is made. ref keeps others from making the same meanwhile.
func (in *importing) making(ctx context.Context, ref string, write func(content.Writer) (digest.Digest, error)) error {
	w, err := content.OpenWriter(ctx, in.st.Content(), content.WithRef(ref))
	return ingest(ctx, w, err, write, func() error { return in.st.Content().Abort(ctx, ref) })
}

// ingest writes a blob that appears whole or not at all; that it is there already is fine.
func ingest(ctx context.Context, w content.Writer, err error, write func(content.Writer) (digest.Digest, error), abort func() error) error {
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("writing to the store: %w", err)
	}
	defer w.Close() // after Commit there is nothing to close
	// From the start: an archive is cheap to read again, and what is left may be of another one.
	if err := w.Truncate(0); err != nil {
		return fmt.Errorf("writing to the store: %w", err)
	}
	d, err := write(w)
	if err != nil {
		return errors.Join(err, w.Truncate(0), w.Close(), abort())
	}
	if err := w.Commit(ctx, 0, d); err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("storing %s: %w", d, err)
	}
	return nil
}

// finish writes an image's documents, now that its layers are there.
func (in *importing) finish(ctx context.Context, image Image) (clusterimage.PackedImage, error) {
	packed := clusterimage.PackedImage{
		Name: image.Name, Platform: platforms.Format(image.Platform), Manifest: image.Manifest, Index: image.Index,
	}
	parsed := image.parsed
	if image.Manifest.Digest == "" {
		data, m, err := in.manifest(image)
		if err != nil {
			return packed, err
		}
		parsed = m
		packed.Manifest = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(data), Size: int64(len(data))}
		if err := in.document(ctx, packed.Manifest, data); err != nil {
			return packed, err
		}
		if err := in.document(ctx, image.Config, image.config); err != nil {
			return packed, err
		}
	} else {
		docs := []ocispec.Descriptor{image.Config, image.Manifest}
		if image.Index != nil {
			docs = append(docs, *image.Index)
		}
		for _, d := range docs {
			data, err := in.a.blob(d)
			if err != nil {
				return packed, err
			}
			if err := in.document(ctx, d, data); err != nil {
				return packed, err
			}
		}
	}
	packed.Size = packed.Manifest.Size + parsed.Config.Size
	for _, l := range parsed.Layers {
		if clusterimage.Distributable(l) {
			packed.Size += l.Size
		}
	}
	return packed, nil
}

// manifest makes the manifest that docker save leaves out.
func (in *importing) manifest(image Image) ([]byte, ocispec.Manifest, error) {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    image.Config,
		Layers:    []ocispec.Descriptor{},
	}
	for _, l := range image.layers {
		m.Layers = append(m.Layers, in.made[l.diffID])
	}
	data, err := json.Marshal(m)
	return data, m, err
}

func (in *importing) document(ctx context.Context, d ocispec.Descriptor, data []byte) error {
	if present(ctx, in.st, d) {
		return nil
	}
	return in.blob(ctx, d, func(w content.Writer) (digest.Digest, error) {
		_, err := io.Copy(w, bytes.NewReader(data))
		return d.Digest, err
	})
}
