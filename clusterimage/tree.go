// SPDX-License-Identifier: Apache-2.0

package clusterimage

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TreeRoot is where the rootfs of an older tool holds a registry's files.
// See https://github.com/distribution/distribution/blob/v3.1.2/registry/storage/paths.go
const TreeRoot = "registry/docker/registry/v2"

// Limits on what is kept of a registry's folder while it is read.
const (
	maxTreeFiles    = 1 << 20
	maxTreeDocument = 1 << 20
	maxTreeMemory   = 256 << 20
	maxLink         = 256
)

// ReadTree finds the images of a registry's folder in the layers of a rootfs:
// it reads, and verifies, all of them. Names are paths, without domain.
func ReadTree(ctx context.Context, p content.Provider, layers []ocispec.Descriptor) ([]TreeImage, error) {
	t := tree{files: map[string]treeFile{}}
	for _, l := range layers {
		if err := t.layer(ctx, p, l); err != nil {
			return nil, fmt.Errorf("looking for images in layer %s: %w", l.Digest, err)
		}
	}
	return t.images(), nil
}

// treeFile is a file of the folder; data is there for links and for what may be a manifest.
type treeFile struct {
	size int64
	data []byte
}

type tree struct {
	files map[string]treeFile // by path below TreeRoot
	held  int
}

func (t *tree) layer(ctx context.Context, p content.Provider, l ocispec.Descriptor) error {
	fresh := map[string]bool{}
	return WalkLayer(ctx, p, l, func(f LayerFile) error { return t.take(f, fresh) })
}

// take takes a file of a layer over those of the layers below.
func (t *tree) take(f LayerFile, fresh map[string]bool) error {
	if f.Whiteout {
		t.remove(f.Path, fresh)
		return nil
	}
	rel, ok := strings.CutPrefix(f.Path, TreeRoot+"/")
	if !ok || f.Header.Typeflag != tar.TypeReg {
		return nil
	}
	fresh[rel] = true
	return t.add(rel, f.Header.Size, f.Content)
}

// remove takes away what lower layers have at a path and below.
func (t *tree) remove(name string, fresh map[string]bool) {
	for file := range t.files {
		full := TreeRoot + "/" + file
		if !fresh[file] && (full == name || strings.HasPrefix(full, name+"/") || name == "") {
			t.held -= len(t.files[file].data)
			delete(t.files, file)
		}
	}
}

func (t *tree) add(rel string, size int64, r io.Reader) error {
	f := treeFile{size: size}
	var limit int64
	switch {
	case strings.HasSuffix(rel, "/link"):
		limit = maxLink
	case strings.HasSuffix(rel, "/data"):
		limit = maxTreeDocument
	default:
		return nil
	}
	if size <= limit {
		br := bufio.NewReaderSize(r, 512)
		// A manifest is a JSON object; layers, which may be as small, are not.
		if first, _ := br.Peek(1); limit == maxLink || bytes.Equal(first, []byte("{")) {
			data, err := io.ReadAll(io.LimitReader(br, limit))
			if err != nil {
				return err
			}
			f.data = data
		}
	}
	t.held += len(f.data) - len(t.files[rel].data)
	t.files[rel] = f
	if t.held > maxTreeMemory || len(t.files) > maxTreeFiles {
		return errors.New("the folder registry/ has more files than a registry of images does")
	}
	return nil
}

// images are the tags of the folder, with what is there below each.
func (t *tree) images() []TreeImage {
	var out []TreeImage
	for file, f := range t.files {
		rest, ok := strings.CutPrefix(file, "repositories/")
		if !ok {
			continue
		}
		repo, tag, ok := strings.Cut(rest, "/_manifests/tags/")
		tag, isCurrent := strings.CutSuffix(tag, "/current/link")
		d := digest.Digest(strings.TrimSpace(string(f.data)))
		if !ok || !isCurrent || d.Validate() != nil {
			continue
		}
		i := TreeImage{Path: repo + ":" + tag, Digest: d.String()}
		seen := map[digest.Digest]bool{}
		var have []string
		i.Size = t.size(d, seen, &have, 0)
		slices.Sort(have)
		i.Platform = strings.Join(slices.Compact(have), ",")
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b TreeImage) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// size sums what the folder has of a manifest or index, and notes the platforms.
func (t *tree) size(d digest.Digest, seen map[digest.Digest]bool, have *[]string, depth int) int64 {
	f, ok := t.blob(d)
	if !ok || seen[d] || depth > 2 {
		return 0
	}
	seen[d] = true
	var doc struct {
		Config    ocispec.Descriptor   `json:"config"`
		Layers    []ocispec.Descriptor `json:"layers"`
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	if json.Unmarshal(f.data, &doc) != nil {
		return f.size
	}
	total := f.size
	for _, child := range doc.Manifests {
		total += t.size(child.Digest, seen, have, depth+1)
	}
	if doc.Config.Digest != "" {
		config, _ := t.blob(doc.Config.Digest)
		var p ocispec.Platform
		if json.Unmarshal(config.data, &p) == nil && p.OS != "" {
			*have = append(*have, formatPlatform(p))
		}
		for _, l := range append(doc.Layers, doc.Config) {
			if blob, ok := t.blob(l.Digest); ok && !seen[l.Digest] {
				seen[l.Digest] = true
				total += blob.size
			}
		}
	}
	return total
}

func (t *tree) blob(d digest.Digest) (treeFile, bool) {
	if d.Validate() != nil {
		return treeFile{}, false
	}
	f, ok := t.files[path.Join("blobs", d.Algorithm().String(), d.Encoded()[:2], d.Encoded(), "data")]
	return f, ok
}

func formatPlatform(p ocispec.Platform) string { return platforms.Format(platforms.Normalize(p)) }
