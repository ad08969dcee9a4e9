// SPDX-License-Identifier: Apache-2.0

package image

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/sealerio/sealer/test/components/internal/recipe"
)

// inputs has small files in the place of programs, and no kube-proxy, which would need Debian.
func inputs(t *testing.T) Inputs {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"kube", "etcd", "etcdctl", "etcdutl", "coredns", "pause", "podnet", "hello"} {
		for _, folder := range []string{"programs", "other"} {
			path := filepath.Join(dir, folder, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(folder+name), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	return Inputs{
		Programs: filepath.Join(dir, "programs"),
		Other:    filepath.Join(dir, "other"),
		Kubeadm: []string{
			"registry.k8s.io/kube-apiserver:v1.36.3",
			"registry.k8s.io/kube-scheduler:v1.36.3",
			"registry.k8s.io/coredns/coredns:v1.14.2",
			"registry.k8s.io/pause:3.10.2",
			"registry.k8s.io/etcd:3.6.8-0",
		},
		Versions: map[string]string{
			recipe.ModuleKubernetes: "v1.36.3",
			recipe.ModuleEtcd:       "v3.6.8",
			recipe.ModuleCoreDNS:    "v1.14.2",
		},
		Arch:       "amd64",
		OtherArch:  "arm64",
		LayoutPath: filepath.Join(dir, "images"),
	}
}

func TestWrite_Valid(t *testing.T) {
	in := inputs(t)
	references, err := Write(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if want := len(in.Kubeadm) + 5; len(references) != want {
		t.Errorf("got %d images, want %d: %v", len(references), want, references)
	}
	index, err := layout.ImageIndexFromPath(in.LayoutPath)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	digests := make(map[string]string)
	for i, d := range manifest.Manifests {
		digests[d.Annotations[RefName]] = d.Digest.String()
		if d.Annotations[RefName] != references[i] {
			t.Errorf("image %d is %s, want %s", i, d.Annotations[RefName], references[i])
		}
	}
	if digests[recipe.ImageHello] == digests[recipe.ImageHelloQuay] {
		t.Error("hello of two domains has to differ")
	}
	blobs, err := os.ReadDir(filepath.Join(in.LayoutPath, "blobs", "sha256"))
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(blobs, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") }) {
		t.Errorf("temporary files were left: %v", blobs)
	}
}

func TestWrite_SameInputsSameIndex(t *testing.T) {
	var indexes []string
	for range 2 {
		in := inputs(t)
		if _, err := Write(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(filepath.Join(in.LayoutPath, "index.json"))
		if err != nil {
			t.Fatal(err)
		}
		indexes = append(indexes, string(content))
	}
	if indexes[0] != indexes[1] {
		t.Errorf("two indexes of the same inputs:\n%s\n%s", indexes[0], indexes[1])
	}
}

func TestWrite_Mistakes(t *testing.T) {
	for reference, text := range map[string]string{
		"registry.k8s.io/etcd:3.6.9-0":   "version v3.6.8",
		"registry.k8s.io/new-thing:v1":   "nothing here makes it",
		"127.0.0.1:5000/kube-apiserver":  "no tag",
		"registry.k8s.io/kube-proxy:v1.": "version v1.36.3",
	} {
		in := inputs(t)
		in.Kubeadm = []string{reference}
		if _, err := Write(t.Context(), in); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: got %v, want an error with %q", reference, err, text)
		}
	}
}
