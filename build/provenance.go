// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/build/attest"
	"github.com/sealerio/sealer/clusterimage"
)

// Provenance says how much an image tells of its own making.
type Provenance struct {
	Mode    ProvenanceMode // "" is Min
	Builder string         // URI of the builder's identity; "" is attest.DefaultBuilder
}

// ProvenanceMode is a level of detail.
type ProvenanceMode string

// The levels. Min names what went in: images, downloads, the digest of the Kubefile. Max adds build arguments, labels, the
// IDs of secrets, and the Kubefile's text.
const (
	NoProvenance ProvenanceMode = "none"
	Min          ProvenanceMode = "min"
	Max          ProvenanceMode = "max"
)

// ParseProvenance reads the value of --provenance: true, false, min, max, or mode=min|max,builder-id=URI.
func ParseProvenance(s string) (Provenance, error) {
	if s != "" && !strings.Contains(s, "=") {
		s = "mode=" + s
	}
	fields, err := parseFields(s)
	if err != nil {
		return Provenance{}, fmt.Errorf("%q: %w", s, err)
	}
	out := Provenance{Builder: fields["builder-id"]}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if key != "mode" && key != "builder-id" {
			return out, fmt.Errorf("unknown key %q: mode and builder-id are known", key)
		}
	}
	switch mode := fields["mode"]; mode {
	case "", "true", string(Min):
		out.Mode = Min
	case "false", string(NoProvenance):
		out.Mode = NoProvenance
	case string(Max):
		out.Mode = Max
	default:
		return out, fmt.Errorf("unknown mode %q: min, max and false are known", mode)
	}
	return out, nil
}

// attestations writes what is said of each rootfs; more is said of all of them.
func attestations(ctx context.Context, o Options, in *inputs, from bases, made *solved, images []clusterimage.PackedImage, more []attest.Statement) ([]ocispec.Descriptor, error) {
	var out []ocispec.Descriptor
	for _, rootfs := range made.rootfs {
		var statements []attest.Statement
		if o.Provenance.Mode != NoProvenance {
			s, err := provenance(ctx, o, in, from, made, rootfs, images)
			if err != nil {
				return nil, err
			}
			statements = append(statements, s)
		}
		if o.SBOM {
			s, err := billOfMaterials(ctx, o, rootfs, images)
			if err != nil {
				return nil, err
			}
			statements = append(statements, s)
		}
		statements = append(statements, more...)
		if len(statements) == 0 {
			continue
		}
		d, err := attest.Write(ctx, o.Store.Content(), rootfs, statements)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

func provenance(ctx context.Context, o Options, in *inputs, from bases, made *solved, rootfs ocispec.Descriptor, images []clusterimage.PackedImage) (attest.Statement, error) {
	p := attest.Provenance{
		BuilderID: o.Provenance.Builder, Version: o.Version, Kubefile: in.file.Name, Source: in.file.Source, Target: o.Target,
		Max: o.Provenance.Mode == Max, BuildArgs: o.BuildArgs, Labels: o.Labels, Lite: o.Mode == Lite,
	}
	for _, s := range o.Secrets {
		p.Secrets = append(p.Secrets, s.ID)
	}
	for _, s := range o.SSH {
		name, _, _ := strings.Cut(s, "=")
		p.SSH = append(p.SSH, name)
	}
	for _, e := range made.exported {
		if clusterimage.About(e) != rootfs.Digest {
			continue
		}
		predicates, err := attest.Predicates(ctx, o.Store.Content(), e, attest.PredicateSLSA)
		if err != nil {
			return attest.Statement{}, err
		}
		for _, one := range predicates {
			fetched, err := attest.Fetched(one)
			if err != nil {
				return attest.Statement{}, err
			}
			p.Dependencies = append(p.Dependencies, fetched...)
		}
	}
	used, err := imageDependencies(in, from, made.toolbox, *rootfs.Platform, images)
	if err != nil {
		return attest.Statement{}, fmt.Errorf("writing the provenance: %w", err)
	}
	p.Dependencies = append(p.Dependencies, used...)
	return p.Statement(), nil
}

// toolboxImage is what RUN ran in.
type toolboxImage struct {
	name   string // "" is the one in this binary
	digest digest.Digest
}

// imageDependencies are the images that the rootfs was made of and with, and those that are packed.
func imageDependencies(in *inputs, from bases, tools toolboxImage, p ocispec.Platform, images []clusterimage.PackedImage) ([]attest.Dependency, error) {
	var out []attest.Dependency
	add := func(use, name string, p ocispec.Platform, d digest.Digest) error {
		dep, err := attest.Image(use, name, p, d)
		out = append(out, dep)
		return err
	}
	target := platforms.FormatAll(platforms.Normalize(p))
	for id, list := range in.bases {
		for _, w := range list {
			if !slices.Contains(w.targets, target) {
				continue
			}
			if err := add("base", w.name, w.platform, from[id][w.name].top.Digest); err != nil {
				return nil, err
			}
		}
	}
	switch {
	case tools.name != "":
		if err := add("toolbox", tools.name, buildPlatform(), tools.digest); err != nil {
			return nil, err
		}
	case tools.digest != "":
		out = append(out, attest.Dependency{
			Name: "toolbox", URI: "pkg:generic/sealer-toolbox?platform=" + platforms.Format(buildPlatform()),
			Digest: map[string]string{tools.digest.Algorithm().String(): tools.digest.Encoded()},
		})
	}
	match := clusterimage.Matcher(p)
	for _, pi := range images {
		ip, err := platforms.Parse(pi.Platform)
		if err != nil {
			return nil, err
		}
		if !match.Match(ip) {
			continue
		}
		if err := add("image", pi.Name, ip, pi.Manifest.Digest); err != nil {
			return nil, err
		}
		out[len(out)-1].Annotations = map[string]any{"origins": pi.Origins}
	}
	return out, nil
}
