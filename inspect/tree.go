// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
)

// Tree is what is inside an image, blob by blob.
type Tree struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
	// Size is that of all blobs, each once, in bytes.
	Size   int64  `json:"size"`
	Blobs  int    `json:"blobs"`
	Rootfs []Node `json:"rootfs"`
	Images []Node `json:"images"`
	// Others are images of the store with which it has blobs in common.
	Others []Sharing `json:"sharedWith,omitempty"`
}

// Node is a rootfs or a packed image.
type Node struct {
	Name     string `json:"name"`
	Platform string `json:"platform"`
	Digest   string `json:"digest"`
	Size     int64  `json:"size"`
	// Own is what nothing else in the image has: it would go with it.
	Own    int64   `json:"own"`
	Layers []Layer `json:"layers"`
}

// Layer is one layer of it.
type Layer struct {
	Digest    string `json:"digest"`
	MediaType string `json:"mediaType"`
	Size      int64  `json:"size"`
	// SharedWith names what else in the image has it.
	SharedWith []string `json:"sharedWith,omitempty"`
}

// Sharing is another image, with how much the two have in common.
type Sharing struct {
	Name  string `json:"name"`
	Blobs int    `json:"blobs"`
	Size  int64  `json:"size"`
}

// MakeTree reads what is inside a ClusterImage. others are looked at for what they share with it.
func MakeTree(ctx context.Context, s *Subject, others []*Subject) (*Tree, error) {
	img, err := s.Image(ctx)
	if err != nil {
		return nil, err
	}
	blobs, err := s.blobs(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", s.Name, err)
	}
	t := &Tree{Name: s.Name, Digest: s.Descriptor.Digest.String(), Blobs: len(blobs), Rootfs: []Node{}, Images: []Node{}}
	sizes := map[digest.Digest]int64{}
	for _, b := range blobs {
		t.Size += b.Size
		sizes[b.Digest] = b.Size
	}
	for _, r := range img.Rootfs {
		if !r.Absent {
			name := "rootfs " + platforms.Format(r.Platform)
			t.Rootfs = append(t.Rootfs, makeNode(name, platforms.Format(r.Platform), r.Descriptor, r.Manifest))
		}
	}
	for _, i := range img.Images {
		var m ocispec.Manifest
		if err := clusterimage.ReadJSON(ctx, s.Content, i.Manifest, &m); err != nil {
			return nil, fmt.Errorf("reading %s: %w", i.Name, err)
		}
		t.Images = append(t.Images, makeNode(i.Name, i.Platform, i.Manifest, m))
	}
	t.share()
	for _, o := range others {
		if o.Descriptor.Digest == s.Descriptor.Digest {
			continue
		}
		sharing, err := shared(ctx, o, sizes)
		if err != nil {
			return nil, err
		}
		if sharing.Blobs > 0 {
			t.Others = append(t.Others, sharing)
		}
	}
	return t, nil
}

func makeNode(name, platform string, desc ocispec.Descriptor, m ocispec.Manifest) Node {
	n := Node{Name: name, Platform: platform, Digest: desc.Digest.String(), Size: desc.Size + m.Config.Size, Layers: []Layer{}}
	for _, l := range m.Layers {
		if clusterimage.Distributable(l) {
			n.Layers = append(n.Layers, Layer{Digest: l.Digest.String(), MediaType: l.MediaType, Size: l.Size})
			n.Size += l.Size
		}
	}
	return n
}

// share finds who has a layer beside each of its owners. Several names of one manifest are one owner.
func (t *Tree) share() {
	all := slices.Concat(t.Rootfs, t.Images)
	users := map[string]map[string]string{} // layer, then manifest: name
	for _, n := range all {
		for _, l := range n.Layers {
			if users[l.Digest] == nil {
				users[l.Digest] = map[string]string{}
			}
			if _, ok := users[l.Digest][n.Digest]; !ok {
				users[l.Digest][n.Digest] = n.label()
			}
		}
	}
	for _, nodes := range [][]Node{t.Rootfs, t.Images} {
		for i := range nodes {
			n := &nodes[i]
			n.Own = n.Size
			for j := range n.Layers {
				l := &n.Layers[j]
				for manifest, name := range users[l.Digest] {
					if manifest != n.Digest {
						l.SharedWith = append(l.SharedWith, name)
					}
				}
				slices.Sort(l.SharedWith)
				if len(l.SharedWith) > 0 {
					n.Own -= l.Size
				}
			}
		}
	}
}

func (n Node) label() string {
	if strings.HasPrefix(n.Name, "rootfs ") {
		return n.Name
	}
	return n.Name + " " + n.Platform
}

// shared is what another image has of the given blobs.
func shared(ctx context.Context, o *Subject, sizes map[digest.Digest]int64) (Sharing, error) {
	s := Sharing{Name: o.Name}
	blobs, err := o.blobs(ctx)
	if err != nil {
		return s, fmt.Errorf("reading %s: %w", o.Name, err)
	}
	for _, b := range blobs {
		if size, ok := sizes[b.Digest]; ok {
			s.Blobs++
			s.Size += size
		}
	}
	return s, nil
}
