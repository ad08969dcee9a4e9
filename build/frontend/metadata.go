// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/build/convert"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/imagelist"
)

const (
	metadataName    = "Metadata"
	metadataVersion = "v1"
	embedded        = "embedded" // the container runtime of distributions that bring their own
)

// binaries say which distribution a rootfs holds.
func binaries() []binary {
	return []binary{{"bin/k3s", "k3s"}, {"k3s", "k3s"}, {"bin/k0s", "k0s"}, {"k0s", "k0s"}, {"bin/kubeadm", "kubernetes"}}
}

type binary struct{ path, runtime string }

// findings are what was read from a solved rootfs.
type findings struct {
	images   []imagelist.Image
	files    fs.FS
	file     *clusterimage.Metadata // the context's own; nil: none
	binaries []string               // of the list above, those that are there
	hasCRI   bool                   // bin/containerd
}

// look reads what the Kubefile added. Only a base that is no ClusterImage is read as a whole: it says nothing of itself.
func (b *builder) look(ctx context.Context, made *convert.Result) (*findings, error) {
	st := made.Added
	if made.Base != nil && made.Base.Config.Config.Labels[clusterimage.LabelExtension] == "" {
		st = made.State
	}
	files := newRefFS(ctx, nil)
	if st.Output() != nil {
		ref, err := b.solve(ctx, st, true)
		if err != nil {
			return nil, err
		}
		files = newRefFS(ctx, ref)
	}
	f := &findings{files: files}
	found, err := imagelist.Discover(ctx, files, b.discovery(made)...)
	if err != nil {
		return nil, fmt.Errorf("looking for images in the rootfs: %w", err)
	}
	for _, p := range found.Problems {
		b.say(ctx, p.String())
	}
	f.images = found.Images
	if err := b.applications(ctx, made, files); err != nil {
		return nil, err
	}
	if err := defaults(made, files); err != nil {
		return nil, err
	}
	data, err := fs.ReadFile(files, metadataName)
	switch {
	case err == nil:
		m, err := clusterimage.ParseMetadata(data)
		if err != nil {
			return nil, err
		}
		f.file = &m
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("reading Metadata: %w", err)
	}
	for _, bin := range binaries() {
		if info, err := files.Stat(bin.path); err == nil && !info.IsDir() {
			f.binaries = append(f.binaries, bin.path)
		}
	}
	if info, err := files.Stat("bin/containerd"); err == nil && !info.IsDir() {
		f.hasCRI = true
	}
	return f, nil
}

// claim is one place that says which distribution it is.
type claim struct{ runtime, where string }

// RuntimeError is returned where two places name different distributions.
type RuntimeError struct{ One, Other string }

func (e *RuntimeError) Error() string {
	return fmt.Sprintf("the cluster runtime is not clear: %s, but %s", e.One, e.Other)
}

// Hint says what decides.
func (*RuntimeError) Hint() string {
	return "leave one of them out; LABEL " + clusterimage.LabelClusterRuntime + "=… is enough where the files say nothing"
}

func (f *findings) runtime(made *convert.Result) (string, error) {
	var claims []claim
	add := func(runtime, where string) {
		if runtime != "" {
			claims = append(claims, claim{runtime, where + " says " + runtime})
		}
	}
	add(made.Labels[clusterimage.LabelClusterRuntime], "LABEL "+clusterimage.LabelClusterRuntime)
	if f.file != nil {
		add(f.file.ClusterRuntime, "the file Metadata")
	}
	if made.Base != nil {
		add(made.Base.Config.Config.Labels[clusterimage.LabelClusterRuntime], "the base image "+made.Base.Name)
	}
	for _, bin := range binaries() {
		for _, have := range f.binaries {
			if have == bin.path {
				claims = append(claims, claim{bin.runtime, bin.path + " is of " + bin.runtime})
			}
		}
	}
	for _, c := range claims {
		if c.runtime != claims[0].runtime {
			return "", &RuntimeError{One: claims[0].where, Other: c.where}
		}
	}
	if len(claims) == 0 {
		return "", nil
	}
	return claims[0].runtime, nil
}

// metadata is what is stamped: LABEL, then the context's file, then the base, then what the files show.
func (f *findings) metadata(made *convert.Result, target ocispec.Platform) (clusterimage.Metadata, error) {
	runtime, err := f.runtime(made)
	if err != nil {
		return clusterimage.Metadata{}, err
	}
	m := clusterimage.Metadata{Version: metadataVersion, Arch: target.Architecture, Variant: target.Variant, ClusterRuntime: runtime}
	if runtime == "" {
		return m, nil
	}
	file := clusterimage.Metadata{}
	if f.file != nil {
		file = *f.file
	}
	base := map[string]string{}
	if made.Base != nil {
		base = made.Base.Config.Config.Labels
	}
	packed := f.kubeVersion()
	m.ClusterRuntimeVersion = cmp.Or(made.Labels[clusterimage.LabelClusterRuntimeVersion], file.ClusterRuntimeVersion, base[clusterimage.LabelClusterRuntimeVersion])
	if m.ClusterRuntimeVersion == "" && runtime == "kubernetes" {
		m.ClusterRuntimeVersion = cmp.Or(file.KubeVersion, packed)
	}
	upstream, _, _ := strings.Cut(m.ClusterRuntimeVersion, "+") // v1.36.3+k3s1
	m.KubeVersion = cmp.Or(file.KubeVersion, upstream, packed)
	m.ContainerRuntime = cmp.Or(made.Labels[clusterimage.LabelContainerRuntime], file.ContainerRuntime, base[clusterimage.LabelContainerRuntime])
	switch {
	case m.ContainerRuntime != "":
	case runtime == "k3s" || runtime == "k0s":
		m.ContainerRuntime = embedded
	case f.hasCRI:
		m.ContainerRuntime = "containerd"
	}
	return m, nil
}

// kubeVersion is the tag of a packed kube-apiserver; "" where there is none, or two differ.
func (f *findings) kubeVersion() string {
	version := ""
	for _, img := range f.images {
		name, _, _ := strings.Cut(img.Name, "@")
		repository, tag, ok := strings.Cut(name[strings.LastIndexByte(name, '/')+1:], ":")
		if !ok || repository != "kube-apiserver" {
			continue
		}
		if version != "" && version != tag {
			return ""
		}
		version = tag
	}
	return version
}

// describe puts what is known into the config's labels. kind is the type that was asked for, "" where none was.
func describe(made *convert.Result, m clusterimage.Metadata, version, kind string) {
	made.Extension.Type = clusterimage.AppInstaller
	if m.ClusterRuntime != "" {
		made.Extension.Type = clusterimage.KubeInstaller
	}
	if kind != "" {
		made.Extension.Type = kind
	}
	labels := made.Config.Config.Labels
	for k, v := range map[string]string{
		clusterimage.LabelVersion:               version,
		clusterimage.LabelClusterRuntime:        m.ClusterRuntime,
		clusterimage.LabelClusterRuntimeVersion: m.ClusterRuntimeVersion,
		clusterimage.LabelContainerRuntime:      m.ContainerRuntime,
		clusterimage.LabelExtension:             string(made.Extension.Marshal()),
	} {
		if v != "" {
			labels[k] = v
		}
	}
}
