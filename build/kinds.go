// SPDX-License-Identifier: Apache-2.0

package build

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/imagelist"
)

// Mode says what goes into a ClusterImage.
type Mode string

// The modes. Lite leaves all container images out, those of the base too; the cluster fetches them when it runs.
const (
	All  Mode = "all"
	Lite Mode = "lite"
)

// ParseMode reads the value of --build-mode; empty means All.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case "":
		return All, nil
	case All, Lite:
		return m, nil
	}
	return "", fmt.Errorf("unknown build mode %q: all and lite are known", s)
}

// Pull says when a registry is asked for an image that FROM or COPY --from names.
type Pull string

// When a registry is asked.
const (
	Missing Pull = "missing" // what the store lacks
	Always  Pull = "always"  // whether the name stands for something newer
	Never   Pull = "never"   // what the store lacks is an error
)

// ParsePull reads the value of --pull; empty means Missing. The words of other tools are known too.
func ParsePull(s string) (Pull, error) {
	switch s {
	case "", "false", string(Missing):
		return Missing, nil
	case "true", "ifnewer", "newer", string(Always):
		return Always, nil
	case string(Never):
		return Never, nil
	}
	return "", fmt.Errorf("unknown value %q: missing, always and never are known", s)
}

// ParseType reads the value of --type; empty means that the rootfs decides.
func ParseType(s string) (string, error) {
	switch s {
	case "", clusterimage.KubeInstaller, clusterimage.AppInstaller:
		return s, nil
	}
	return "", fmt.Errorf("unknown type %q: %s and %s are known", s, clusterimage.KubeInstaller, clusterimage.AppInstaller)
}

// Annotation is one of the image index, of the rootfs' manifests, or of both.
type Annotation struct {
	Key, Value      string
	Index, Manifest bool
	Platform        *ocispec.Platform // of the manifest; nil: of all
}

// ParseAnnotation reads [PLACE[,PLACE]:]KEY=VALUE as docker buildx has it, where PLACE is index, manifest or
// manifest[PLATFORM]. Without a place it is the index, which is what the image's name stands for.
func ParseAnnotation(s string) (Annotation, error) {
	places, rest, ok := strings.Cut(s, ":")
	if equals := strings.IndexByte(s, '='); !ok || equals >= 0 && equals < len(places) {
		places, rest = "index", s
	}
	key, value, ok := strings.Cut(rest, "=")
	if !ok || key == "" {
		return Annotation{}, fmt.Errorf("annotation %q is not KEY=VALUE", s)
	}
	a := Annotation{Key: key, Value: value}
	for place := range strings.SplitSeq(places, ",") {
		name, platform, limited := strings.Cut(place, "[")
		switch {
		case place == "index":
			a.Index = true
		case name == "manifest" && !limited:
			a.Manifest = true
		case name == "manifest" && strings.HasSuffix(platform, "]"):
			p, err := platforms.Parse(strings.TrimSuffix(platform, "]"))
			if err != nil {
				return Annotation{}, fmt.Errorf("annotation %q: %w", s, err)
			}
			p = platforms.Normalize(p)
			a.Manifest, a.Platform = true, &p
		default:
			return Annotation{}, fmt.Errorf("annotation %q: unknown place %q: index, manifest and manifest[PLATFORM] are known", s, place)
		}
	}
	return a, nil
}

func indexAnnotations(list []Annotation) map[string]string {
	var out map[string]string
	for _, a := range list {
		if a.Index {
			if out == nil {
				out = map[string]string{}
			}
			out[a.Key] = a.Value
		}
	}
	return out
}

// manifestAnnotations are attributes of BuildKit's exporter.
func manifestAnnotations(list []Annotation) map[string]string {
	out := map[string]string{}
	for _, a := range list {
		if a.Manifest {
			out[exptypes.AnnotationManifestKey(a.Platform, a.Key)] = a.Value
		}
	}
	return out
}

// names are all names of the result, each once.
func (o *Options) names() []string {
	out := []string{o.Tag}
	for _, name := range o.Tags {
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// completeNames normalises the names.
func (o *Options) completeNames() []error {
	if o.Tag == "" {
		return []error{errors.New("the image needs a name (-t)")}
	}
	var errs []error
	o.Tags = slices.Clone(o.Tags)
	for i, written := range append([]string{o.Tag}, o.Tags...) {
		name, err := imagelist.Normalize(written)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("name of the image: %w", err))
		case strings.Contains(name, "@"):
			errs = append(errs, fmt.Errorf("name of the image: %q holds a digest, which the build only makes", written))
		case i == 0:
			o.Tag = name
		default:
			o.Tags[i-1] = name
		}
	}
	return errs
}

// completeKinds checks what has a few known values.
func (o *Options) completeKinds() []error {
	var errs []error
	check := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	var err error
	o.Mode, err = ParseMode(string(o.Mode))
	check(err)
	o.Pull, err = ParsePull(string(o.Pull))
	check(err)
	_, err = ParseType(o.Type)
	check(err)
	if o.Provenance.Mode == "" {
		o.Provenance.Mode = Min
	}
	for _, key := range slices.Sorted(maps.Keys(o.Labels)) {
		if key == "" {
			check(errors.New("a label has no name"))
		}
	}
	check(CheckBuilder(o.Builder, o.BuilderCerts))
	for _, secret := range o.Secrets {
		check(secret.check())
	}
	for _, c := range o.CacheFrom {
		check(c.check(false))
	}
	for _, c := range o.CacheTo {
		check(c.check(true))
	}
	return errs
}
