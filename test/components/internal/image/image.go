// SPDX-License-Identifier: Apache-2.0

// Package image makes the container images of a cluster out of compiled programs and Debian packages, and keeps
// them in one OCI layout, where images share their layers.
package image

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/sealerio/sealer/test/components/internal/debian"
	"github.com/sealerio/sealer/test/components/internal/layer"
	"github.com/sealerio/sealer/test/components/internal/recipe"
)

// RefName is the annotation that holds an image's full reference in the layout's index.
const RefName = "org.opencontainers.image.ref.name"

const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Inputs is what images are made of.
type Inputs struct {
	Programs   string            // folder of compiled programs
	Other      string            // folder with hello for OtherArch
	Packages   []string          // .deb files for kube-proxy
	Carrier    []string          // .deb files for keepalived; none: there is no such image
	Kubeadm    []string          // the references that kubeadm asks for
	Versions   map[string]string // of modules
	Arch       string
	OtherArch  string
	LayoutPath string // where the OCI layout goes; must not exist
}

// Write makes all images and returns their references in the order of the layout: kubeadm's first.
func Write(ctx context.Context, in Inputs) ([]string, error) {
	p, err := layout.Write(in.LayoutPath, empty.Index)
	if err != nil {
		return nil, fmt.Errorf("making the OCI layout: %w", err)
	}
	w := &writer{inputs: in, path: p, layers: make(map[string]*layer.Layer)}
	for _, reference := range in.Kubeadm {
		if err := w.kubernetes(ctx, reference); err != nil {
			return nil, fmt.Errorf("making image %s: %w", reference, err)
		}
	}
	if err := w.tests(ctx); err != nil {
		return nil, err
	}
	return w.references, nil
}

type writer struct {
	inputs     Inputs
	path       layout.Path
	layers     map[string]*layer.Layer // by purpose: each is packed once
	references []string
}

// kubernetes makes one of the images that kubeadm asks for. They have Docker's media types, as the published ones do.
func (w *writer) kubernetes(ctx context.Context, reference string) error {
	repository, tag, ok := cutTag(reference)
	if !ok {
		return fmt.Errorf("the reference has no tag")
	}
	_, name, _ := strings.Cut(repository, "/")
	switch name {
	case "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy":
		if err := recipe.CheckTag(reference, tag, w.inputs.Versions[recipe.ModuleKubernetes]); err != nil {
			return err
		}
		return w.kube(ctx, reference, name)
	case "etcd":
		if err := recipe.CheckTag(reference, tag, w.inputs.Versions[recipe.ModuleEtcd]); err != nil {
			return err
		}
		return w.simple(ctx, reference, docker(), v1.Config{Entrypoint: []string{"/usr/local/bin/etcd"}},
			"usr/local/bin/etcd", "usr/local/bin/etcdctl", "usr/local/bin/etcdutl")
	case "coredns/coredns":
		if err := recipe.CheckTag(reference, tag, w.inputs.Versions[recipe.ModuleCoreDNS]); err != nil {
			return err
		}
		return w.simple(ctx, reference, docker(), v1.Config{Entrypoint: []string{"/coredns"}, ExposedPorts: ports("53/tcp", "53/udp")}, "coredns")
	case "pause":
		return w.simple(ctx, reference, docker(), v1.Config{Entrypoint: []string{"/pause"}, User: "65535:65535"}, "pause")
	default:
		return fmt.Errorf("nothing here makes it")
	}
}

// kube makes an image around the multi-call program: its layer is shared, the image's own layer is a link.
func (w *writer) kube(ctx context.Context, reference, name string) error {
	base := w.base
	if name == "kube-proxy" {
		base = w.proxyBase
	}
	baseLayer, err := base(ctx)
	if err != nil {
		return err
	}
	program, err := w.programs(ctx, "usr/local/bin/kube")
	if err != nil {
		return err
	}
	t := layer.NewTree()
	t.Link("usr/local/bin/"+name, "kube")
	link, err := w.layer(ctx, "link "+name, t)
	if err != nil {
		return err
	}
	return w.append(reference, docker(), v1.Config{Entrypoint: []string{"/usr/local/bin/" + name}}, baseLayer, program, link)
}

// tests makes the images that stand in for users' own. They have OCI's media types.
func (w *writer) tests(ctx context.Context) error {
	if err := w.simple(ctx, recipe.ImagePodnet, oci(), v1.Config{Entrypoint: []string{"/usr/local/bin/podnet"}}, "usr/local/bin/podnet"); err != nil {
		return fmt.Errorf("making image %s: %w", recipe.ImagePodnet, err)
	}
	for _, reference := range []string{recipe.ImageHello, recipe.ImageHelloNext, recipe.ImageHelloQuay} {
		if err := w.hello(ctx, reference); err != nil {
			return fmt.Errorf("making image %s: %w", reference, err)
		}
	}
	if err := w.multi(ctx, recipe.ImageMulti); err != nil {
		return fmt.Errorf("making image %s: %w", recipe.ImageMulti, err)
	}
	if len(w.inputs.Carrier) == 0 {
		return nil
	}
	if err := w.carrier(ctx, recipe.ImageCarrier); err != nil {
		return fmt.Errorf("making image %s: %w", recipe.ImageCarrier, err)
	}
	return nil
}

// carrier is keepalived with its libraries, and nothing else: no shell, no curl.
func (w *writer) carrier(ctx context.Context, reference string) error {
	t := layer.NewTree()
	if err := debian.Unpack(ctx, t, w.inputs.Carrier); err != nil {
		return err
	}
	if err := t.Only("usr/sbin/keepalived"); err != nil {
		return err
	}
	addBase(t)
	l, err := w.layer(ctx, "carrier", t)
	if err != nil {
		return err
	}
	return w.append(reference, oci(), v1.Config{Entrypoint: []string{"/usr/sbin/keepalived"}}, l)
}

func (w *writer) hello(ctx context.Context, reference string) error {
	img, err := w.helloImage(ctx, reference, w.inputs.Arch, w.inputs.Programs)
	if err != nil {
		return err
	}
	return w.add(reference, img)
}

func (w *writer) multi(ctx context.Context, reference string) error {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, platform := range []struct{ arch, programs string }{
		{w.inputs.Arch, w.inputs.Programs},
		{w.inputs.OtherArch, w.inputs.Other},
	} {
		img, err := w.helloImage(ctx, reference, platform.arch, platform.programs)
		if err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        img,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: platform.arch}},
		})
	}
	annotation := layout.WithAnnotations(map[string]string{RefName: reference})
	if err := w.path.AppendIndex(index, annotation); err != nil {
		return err
	}
	w.references = append(w.references, reference)
	return nil
}

// helloImage is the workload. What it answers stands in a layer of its own, so that images differ in content, not
// in configuration alone.
func (w *writer) helloImage(ctx context.Context, reference, arch, programs string) (v1.Image, error) {
	program := layer.NewTree()
	if err := program.File("hello", 0o755, filepath.Join(programs, "hello")); err != nil {
		return nil, err
	}
	programLayer, err := w.layer(ctx, "hello "+arch, program)
	if err != nil {
		return nil, err
	}
	greeting := layer.NewTree()
	greeting.Bytes("greeting", 0o644, []byte("hello from "+reference+"\n"))
	greetingLayer, err := w.layer(ctx, "greeting "+reference, greeting)
	if err != nil {
		return nil, err
	}
	config := v1.Config{Entrypoint: []string{"/hello"}, ExposedPorts: ports("8080/tcp"), User: "65532:65532"}
	return build(oci(), arch, config, programLayer, greetingLayer)
}

// Doubles makes the images that a distribution's double asks for, under their real names, and writes them to a layout.
// Each does nothing, and differs from the others in what it holds.
func Doubles(ctx context.Context, layoutPath, programs, arch string, references []string) error {
	p, err := layout.Write(layoutPath, empty.Index)
	if err != nil {
		return fmt.Errorf("making the OCI layout: %w", err)
	}
	w := &writer{inputs: Inputs{Programs: programs, Arch: arch, LayoutPath: layoutPath}, path: p, layers: make(map[string]*layer.Layer)}
	for _, reference := range references {
		program, err := w.programs(ctx, "pause")
		if err != nil {
			return fmt.Errorf("making image %s: %w", reference, err)
		}
		t := layer.NewTree()
		t.Bytes("image", 0o644, []byte(reference+"\n"))
		own, err := w.layer(ctx, reference, t)
		if err != nil {
			return fmt.Errorf("making image %s: %w", reference, err)
		}
		if err := w.append(reference, docker(), v1.Config{Entrypoint: []string{"/pause"}}, program, own); err != nil {
			return fmt.Errorf("making image %s: %w", reference, err)
		}
	}
	return nil
}

// simple makes an image of static programs; each is named after the last part of its path.
func (w *writer) simple(ctx context.Context, reference string, f format, config v1.Config, paths ...string) error {
	base, err := w.base(ctx)
	if err != nil {
		return err
	}
	programs, err := w.programs(ctx, paths...)
	if err != nil {
		return err
	}
	return w.append(reference, f, config, base, programs)
}

func (w *writer) programs(ctx context.Context, paths ...string) (*layer.Layer, error) {
	t := layer.NewTree()
	for _, p := range paths {
		if err := t.File(p, 0o755, filepath.Join(w.inputs.Programs, filepath.Base(p))); err != nil {
			return nil, err
		}
	}
	return w.layer(ctx, strings.Join(paths, " "), t)
}

// base is what a program expects of a system beside itself.
func (w *writer) base(ctx context.Context) (*layer.Layer, error) {
	t := layer.NewTree()
	addBase(t)
	return w.layer(ctx, "base", t)
}

// proxyBase is a Debian system as far as iptables, nft and conntrack need one.
func (w *writer) proxyBase(ctx context.Context) (*layer.Layer, error) {
	t := layer.NewTree()
	if err := debian.Unpack(ctx, t, w.inputs.Packages); err != nil {
		return nil, err
	}
	addBase(t)
	t.Dir("run", 0o755) // iptables-legacy locks in there
	// Debian makes these links when a package is configured. They lead to nftables' iptables, as on a Debian host.
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, program := range []string{"", "-restore", "-save"} {
			t.Link("usr/sbin/"+family+program, "xtables-nft-multi")
		}
	}
	if err := t.CheckLibraries(); err != nil {
		return nil, err
	}
	return w.layer(ctx, "proxy base", t)
}

func addBase(t *layer.Tree) {
	t.Bytes("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n"))
	t.Bytes("etc/group", 0o644, []byte("root:x:0:\nnogroup:x:65534:\n"))
	t.Dir("root", 0o700)
	t.Dir("tmp", 0o777|fs.ModeSticky)
}

func (w *writer) layer(ctx context.Context, purpose string, t *layer.Tree) (*layer.Layer, error) {
	if l, ok := w.layers[purpose]; ok {
		return l, nil
	}
	l, err := layer.Write(ctx, t, filepath.Join(w.inputs.LayoutPath, "blobs", "sha256"))
	if err != nil {
		return nil, err
	}
	w.layers[purpose] = l
	return l, nil
}

func (w *writer) append(reference string, f format, config v1.Config, layers ...*layer.Layer) error {
	img, err := build(f, w.inputs.Arch, config, layers...)
	if err != nil {
		return err
	}
	return w.add(reference, img)
}

func (w *writer) add(reference string, img v1.Image) error {
	annotation := layout.WithAnnotations(map[string]string{RefName: reference})
	platform := layout.WithPlatform(v1.Platform{OS: "linux", Architecture: w.inputs.Arch})
	if err := w.path.AppendImage(img, annotation, platform); err != nil {
		return err
	}
	w.references = append(w.references, reference)
	return nil
}

// format is a family of media types.
type format struct {
	manifest, config, layer types.MediaType
}

func docker() format {
	return format{manifest: types.DockerManifestSchema2, config: types.DockerConfigJSON, layer: types.DockerLayer}
}

func oci() format {
	return format{manifest: types.OCIManifestSchema1, config: types.OCIConfigJSON, layer: types.OCILayer}
}

func build(f format, arch string, config v1.Config, layers ...*layer.Layer) (v1.Image, error) {
	config.Env = append(config.Env, searchPath)
	if config.WorkingDir == "" {
		config.WorkingDir = "/"
	}
	epoch := v1.Time{Time: layer.Epoch()}
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		Architecture: arch,
		OS:           "linux",
		Created:      epoch,
		Config:       config,
		RootFS:       v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		img, err = mutate.Append(img, mutate.Addendum{
			Layer:     l.As(f.layer),
			MediaType: f.layer,
			History:   v1.History{Created: epoch, CreatedBy: "sealer test components"},
		})
		if err != nil {
			return nil, err
		}
	}
	return mutate.ConfigMediaType(mutate.MediaType(img, f.manifest), f.config), nil
}

func ports(names ...string) map[string]struct{} {
	m := make(map[string]struct{})
	for _, name := range names {
		m[name] = struct{}{}
	}
	return m
}

// cutTag splits a reference at its tag's colon, which is not that of a port.
func cutTag(reference string) (repository, tag string, ok bool) {
	i := strings.LastIndexByte(reference, ':')
	if i < 0 || strings.Contains(reference[i:], "/") {
		return reference, "", false
	}
	return reference[:i], reference[i+1:], true
}
