// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"
)

// Images is a set of container images that a registry has.
type Images struct {
	Name   string
	Refs   []string // repository and tag, without the registry
	Unique int64    // bytes of their blobs, each counted once
	Blobs  []Blob
}

// Blob is one of the unique blobs, and a repository that has it.
type Blob struct {
	Repository, Digest string
	Size               int64
}

// shape says what a set is made of. Content is random: it does not compress, like most layers, which are compressed.
type shape struct {
	name   string
	images int
	base   int64 // bytes of a layer that all of them share; 0 for none
	layers int   // of each image's own
	layer  int64 // bytes of each of those
	seed   uint64
}

// The sets that the figures are about.
var (
	small = shape{name: "small", images: 3, base: 76 << 20, layers: 2, layer: 20 << 20, seed: 1}
	wide  = shape{name: "wide", images: 20, base: 30 << 20, layers: 5, layer: 4 << 20, seed: 2}
	many  = shape{name: "many", images: 200, layers: 12, layer: 64 << 10, seed: 3}
	big   = shape{name: "big", images: 1, layers: 1, layer: 2 << 30, seed: 4}
)

// pushImages makes the images of a shape and pushes them to the registry at address.
func pushImages(ctx context.Context, address string, s shape) (*Images, error) {
	set := &Images{Name: s.name}
	var base v1.Layer
	var err error
	if s.base > 0 {
		if base, err = randomLayer(s.seed, s.base); err != nil {
			return nil, err
		}
	}
	seen := map[string]bool{}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for i := range s.images {
		repository := fmt.Sprintf("bench/%s%d", s.name, i)
		var layers []v1.Layer
		if base != nil {
			layers = append(layers, base)
		}
		for j := range s.layers {
			layer, err := randomLayer(s.seed<<32|uint64(i)<<16|uint64(j+1), s.layer)
			if err != nil {
				return nil, err
			}
			layers = append(layers, layer)
		}
		image, err := assemble(layers)
		if err != nil {
			return nil, err
		}
		if err := set.count(repository, image, seen); err != nil {
			return nil, err
		}
		set.Refs = append(set.Refs, repository+":1")
		group.Go(func() error {
			ref, err := name.NewTag(address+"/"+repository+":1", name.Insecure)
			if err != nil {
				return err
			}
			return remote.Write(ref, image, remote.WithContext(ctx))
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("pushing the images of %q: %w", s.name, err)
	}
	return set, nil
}

func (set *Images) count(repository string, image v1.Image, seen map[string]bool) error {
	manifest, err := image.Manifest()
	if err != nil {
		return fmt.Errorf("reading a manifest: %w", err)
	}
	for _, d := range append([]v1.Descriptor{manifest.Config}, manifest.Layers...) {
		if !seen[d.Digest.String()] {
			seen[d.Digest.String()] = true
			set.Unique += d.Size
			set.Blobs = append(set.Blobs, Blob{repository, d.Digest.String(), d.Size})
		}
	}
	return nil
}

func assemble(layers []v1.Layer) (v1.Image, error) {
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.AppendLayers(image, layers...)
	if err != nil {
		return nil, fmt.Errorf("assembling an image: %w", err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("assembling an image: %w", err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	return mutate.ConfigFile(image, config)
}

// addLayer pushes an image again with one more layer of about size bytes.
func addLayer(ctx context.Context, reference string, size int64) error {
	ref, err := name.NewTag(reference, name.Insecure)
	if err != nil {
		return err
	}
	image, err := remote.Image(ref, remote.WithContext(ctx))
	if err != nil {
		return err
	}
	layer, err := randomLayer(99, size)
	if err != nil {
		return err
	}
	if image, err = mutate.AppendLayers(image, layer); err != nil {
		return err
	}
	return remote.Write(ref, image, remote.WithContext(ctx))
}

// randomLayer is a layer of one file of about size bytes. Large ones are made anew each time they are read, and so
// need no memory.
func randomLayer(seed uint64, size int64) (v1.Layer, error) {
	open := func() (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() { w.CloseWithError(writeLayer(w, seed, size)) }()
		return r, nil
	}
	if size <= 16<<20 { // else every reader makes it again
		var content bytes.Buffer
		if err := writeLayer(&content, seed, size); err != nil {
			return nil, err
		}
		open = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content.Bytes())), nil }
	}
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer))
}

func writeLayer(w io.Writer, seed uint64, size int64) error {
	compressed, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return fmt.Errorf("making a layer: %w", err)
	}
	archive := tar.NewWriter(compressed)
	header := tar.Header{Typeflag: tar.TypeReg, Name: "data-" + strconv.FormatUint(seed, 16), Mode: 0o644, Size: size}
	if err := archive.WriteHeader(&header); err != nil {
		return fmt.Errorf("making a layer: %w", err)
	}
	if _, err := io.CopyN(archive, random(seed), size); err != nil {
		return fmt.Errorf("making a layer: %w", err)
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("making a layer: %w", err)
	}
	return compressed.Close()
}

// random is an endless reader, the same for the same seed.
func random(seed uint64) io.Reader {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	return rand.NewChaCha8(key)
}

// writeTree writes files of random content: a few large ones, and count small ones.
func writeTree(dir string, large int64, count int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	const parts = 8
	for i := range parts {
		if err := writeFile(filepath.Join(dir, fmt.Sprintf("large-%d", i)), uint64(100+i), large/parts); err != nil {
			return err
		}
	}
	for i := range count {
		folder := filepath.Join(dir, "small", strconv.Itoa(i/100))
		if i%100 == 0 {
			if err := os.MkdirAll(folder, 0o755); err != nil {
				return err
			}
		}
		if err := writeFile(filepath.Join(folder, strconv.Itoa(i%100)), uint64(1000+i), 1<<10); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(path string, seed uint64, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := io.CopyN(f, random(seed), size); err != nil {
		_ = f.Close() // the first error counts
		return err
	}
	return f.Close()
}
