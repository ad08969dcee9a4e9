// SPDX-License-Identifier: Apache-2.0

package clusterimage

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Tools whose images are read as if they were ClusterImages: ordinary images
// whose rootfs holds container images as a registry's folder.
const (
	ToolSealer = "sealer 0.9–0.11"
	ToolSealos = "sealos"
)

// Annotations of the manifests of sealer 0.9–0.11, and labels of sealos.
// See https://github.com/sealerio/sealer/blob/v0.11.0/pkg/define/image/v1/sealer_image.go
// and https://github.com/labring/sealos/blob/v5.0.1/pkg/types/v1beta1/utils.go
const (
	annotationExtension   = "sealer.image.extension"
	annotationImages      = "sealer.image.container.images"
	labelSealosType       = "sealos.io.type"
	labelSealosTypeOld    = "apps.sealos.io/type"
	labelSealosVersion    = "sealos.io.version"
	labelSealosRuntime    = "sealos.io.distribution"
	labelSealosKubernetes = "version"
	sealosRootfs          = "rootfs"
)

// maxOlderEntries bounds how many platforms of an older image are looked at.
const maxOlderEntries = 64

// RegistryTree is a registry's folder, registry/, in a rootfs of an older
// tool. Its images are served as they stand, under their path alone: these
// tools did not keep the domain.
type RegistryTree struct {
	// Tool made the folder: ToolSealer, ToolSealos.
	Tool string `json:"tool"`
	// Images are those that the tool has listed beside the folder. sealos lists none; ReadTree looks.
	Images []TreeImage `json:"images,omitempty"`
}

// TreeImage is a container image in a registry's folder.
type TreeImage struct {
	// Name is the reference with its domain; "" where nobody has written it down.
	Name string `json:"name,omitempty"`
	// Path is repository:tag, as the folder has it: library/nginx:1.27.
	Path     string `json:"path"`
	Platform string `json:"platform,omitempty"`
	App      string `json:"app,omitempty"`
	// Digest is that of the tag, and Size the bytes of what is there below it; both only from ReadTree.
	Digest string `json:"digest,omitempty"`
	Size   int64  `json:"size,omitempty"`
}

// olderExtension is the annotation sealer.image.extension.
type olderExtension struct {
	Type         string            `json:"type"`
	Applications []Application     `json:"applications"`
	Env          map[string]string `json:"env"`
	Launch       struct {
		Cmds     []string `json:"cmds"`
		AppNames []string `json:"app_names"`
	} `json:"launch"`
}

// olderImage is an entry of the annotation sealer.image.container.images.
type olderImage struct {
	Image    string           `json:"image"`
	AppName  string           `json:"appName"`
	Platform ocispec.Platform `json:"platform"`
}

// readOlder reads an image of an older tool: one manifest, or an index of them. ok is false for any other image.
func readOlder(ctx context.Context, p content.Provider, desc ocispec.Descriptor) (img *Image, ok bool, err error) {
	var doc struct {
		Config    ocispec.Descriptor   `json:"config"`
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	if err := ReadJSON(ctx, p, desc, &doc); err != nil {
		return nil, false, err
	}
	entries := doc.Manifests
	if doc.Config.Digest != "" {
		if !IsManifest(desc.MediaType) {
			desc.MediaType = ocispec.MediaTypeImageManifest
		}
		entries = []ocispec.Descriptor{desc}
	}
	img = &Image{Descriptor: desc, Index: ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}}
	for _, d := range entries[:min(len(entries), maxOlderEntries)] {
		if !IsManifest(d.MediaType) || d.Digest.Validate() != nil || d.Platform != nil && d.Platform.OS == "unknown" {
			continue
		}
		r, older, err := readOlderRootfs(ctx, p, d)
		if err != nil {
			return nil, false, err
		}
		if !older && !r.Absent {
			return nil, false, nil
		}
		img.Older = cmp.Or(img.Older, r.tool())
		d.Annotations = maps.Clone(d.Annotations)
		if d.Annotations == nil {
			d.Annotations = map[string]string{}
		}
		d.Annotations[AnnotationRole] = RoleRootfs
		img.Index.Manifests = append(img.Index.Manifests, d)
		img.Rootfs = append(img.Rootfs, r)
	}
	return img, img.Older != "", nil
}

func (r Rootfs) tool() string {
	if r.Extension.RegistryTree == nil {
		return ""
	}
	return r.Extension.RegistryTree.Tool
}

func readOlderRootfs(ctx context.Context, p content.Provider, d ocispec.Descriptor) (r Rootfs, older bool, err error) {
	r.Descriptor = d
	if d.Platform != nil {
		r.Platform = *d.Platform
	}
	err = ReadJSON(ctx, p, d, &r.Manifest)
	var config []byte
	if err == nil {
		config, err = ReadBlob(ctx, p, r.Manifest.Config)
	}
	if errdefs.IsNotFound(err) {
		return Rootfs{Descriptor: d, Platform: r.Platform, Absent: true}, false, nil
	}
	if err != nil {
		return r, false, err
	}
	if json.Unmarshal(config, &r.Config) != nil {
		return r, false, nil // an artifact's config may be anything
	}
	if d.Platform == nil {
		r.Platform = r.Config.Platform
	}
	switch labels := r.Config.Config.Labels; {
	case r.Manifest.Annotations[annotationExtension] != "":
		r.Extension, err = sealerExtension(r.Manifest.Annotations)
	case labels[labelSealosType] != "" || labels[labelSealosTypeOld] != "" || labels[labelSealosVersion] != "":
		r.Extension = sealosExtension(r.Config.Config)
	default:
		return r, false, nil
	}
	if err != nil {
		return r, false, fmt.Errorf("reading %s: %w", d.Digest, err)
	}
	r.Extension.SchemaVersion = SchemaVersion
	r.Config.Config.Labels = olderLabels(r)
	return r, true, nil
}

// sealerExtension reads the annotations of sealer 0.9–0.11.
func sealerExtension(annotations map[string]string) (Extension, error) {
	var old olderExtension
	if err := json.Unmarshal([]byte(annotations[annotationExtension]), &old); err != nil {
		return Extension{}, fmt.Errorf("annotation %s: %w", annotationExtension, err)
	}
	var images []olderImage
	if text := annotations[annotationImages]; text != "" {
		if err := json.Unmarshal([]byte(text), &images); err != nil {
			return Extension{}, fmt.Errorf("annotation %s: %w", annotationImages, err)
		}
	}
	tree := &RegistryTree{Tool: ToolSealer}
	for _, i := range images {
		named, err := reference.ParseNormalizedNamed(i.Image)
		if err != nil {
			return Extension{}, fmt.Errorf("annotation %s: image %q: %w", annotationImages, i.Image, err)
		}
		named = reference.TagNameOnly(named)
		t := TreeImage{Name: named.String(), Path: strings.TrimPrefix(named.String(), reference.Domain(named)+"/"), App: i.AppName}
		if i.Platform.OS != "" {
			t.Platform = formatPlatform(i.Platform)
		}
		tree.Images = append(tree.Images, t)
	}
	slices.SortFunc(tree.Images, func(a, b TreeImage) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Platform, b.Platform), cmp.Compare(a.App, b.App))
	})
	return Extension{
		Type: cmp.Or(old.Type, KubeInstaller), Applications: old.Applications, Env: old.Env, RegistryTree: tree,
		Launch: Launch{Cmds: old.Launch.Cmds, AppNames: old.Launch.AppNames},
	}, nil
}

// sealosExtension reads the config of a sealos image: its CMD is what it
// launches, each word a command of its own where the Dockerfile had the JSON form.
func sealosExtension(config ocispec.ImageConfig) Extension {
	e := Extension{Type: AppInstaller, RegistryTree: &RegistryTree{Tool: ToolSealos}}
	if cmp.Or(config.Labels[labelSealosType], config.Labels[labelSealosTypeOld]) == sealosRootfs {
		e.Type = KubeInstaller
	}
	for _, words := range [][]string{config.Entrypoint, config.Cmd} {
		if len(words) == 3 && words[1] == "-c" && strings.HasSuffix(words[0], "sh") {
			words = words[2:]
		}
		e.Launch.Cmds = append(e.Launch.Cmds, words...)
	}
	for _, kv := range config.Env {
		k, v, _ := strings.Cut(kv, "=")
		if k == "PATH" {
			continue // of the tool that built it
		}
		if e.Env == nil {
			e.Env = map[string]string{}
		}
		e.Env[k] = v
	}
	return e
}

// olderLabels adds the labels that say which distribution a rootfs holds, where the tool left them out.
func olderLabels(r Rootfs) map[string]string {
	labels := maps.Clone(r.Config.Config.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	if r.Extension.Type != KubeInstaller {
		return labels
	}
	if labels[LabelClusterRuntime] == "" {
		labels[LabelClusterRuntime] = cmp.Or(labels[labelSealosRuntime], "kubernetes")
	}
	if v := labels[labelSealosKubernetes]; labels[LabelClusterRuntimeVersion] == "" && r.tool() == ToolSealos && v != "" {
		labels[LabelClusterRuntimeVersion] = v
	}
	return labels
}

// Adopt writes, for a rootfs of an older tool, a manifest of the same layers
// whose config says in this format what the old one said in its own: builds
// start from that one.
func Adopt(ctx context.Context, cs content.Store, r Rootfs) (ocispec.Descriptor, error) {
	data, err := ReadBlob(ctx, cs, r.Manifest.Config)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("adopting %s: %w", r.Descriptor.Digest, err)
	}
	// Fields of the config that OCI does not name stay.
	var config map[string]any
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&config); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("adopting %s: %w", r.Descriptor.Digest, err)
	}
	inner, _ := config["config"].(map[string]any)
	if inner == nil {
		inner = map[string]any{}
	}
	labels := maps.Clone(r.Config.Config.Labels)
	labels[LabelExtension] = string(r.Extension.Marshal())
	inner["Labels"] = labels
	delete(inner, "Entrypoint") // it is in the extension
	config["config"] = inner
	c, err := writeDocument(ctx, cs, r.Manifest.Config.MediaType, bytes.TrimRight(mustJSON(config), "\n"))
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("adopting %s: %w", r.Descriptor.Digest, err)
	}
	m := r.Manifest
	m.Config = c
	desc, err := writeDocument(ctx, cs, cmp.Or(m.MediaType, ocispec.MediaTypeImageManifest), bytes.TrimRight(mustJSON(m), "\n"))
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("adopting %s: %w", r.Descriptor.Digest, err)
	}
	desc.Platform = &r.Platform
	return desc, nil
}
