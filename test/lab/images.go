// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"text/template"
)

// Version is that of the lab's Kubernetes: KubernetesVersion, PreviousVersion or PatchVersion.
func (l *Lab) Version() string { return l.version }

// BaseImage is the name of the Kubernetes base image in the lab's registry.
func (l *Lab) BaseImage() string { return l.Registry + "/sealer/kubernetes:" + l.version }

// ShopImage is the name of the image with a workload on top of BaseImage.
func (l *Lab) ShopImage() string {
	if l.version != KubernetesVersion {
		return l.Registry + "/team/shop:" + l.version
	}
	return l.Registry + "/team/shop:v1"
}

// BuildBase builds BaseImage out of the repository's template and the components.
func (l *Lab) BuildBase(ctx context.Context, root string) (digest string, err error) {
	dir := filepath.Join(l.Dir, "base-"+l.version)
	if err := l.WriteBase(dir); err != nil {
		return "", err
	}
	return l.Run(ctx, root, "build", "-t", l.BaseImage(), dir)
}

// WriteBase puts a build context for BaseImage into dir.
func (l *Lab) WriteBase(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clearing the base image's folder: %w", err)
	}
	for from, to := range map[string]string{
		filepath.Join(l.Source, "rootfs-templates", "shared"):     dir,
		filepath.Join(l.Source, "rootfs-templates", "kubernetes"): dir,
		filepath.Join(l.Components, "bin"):                        filepath.Join(dir, runtime.GOARCH, "bin"),
		filepath.Join(l.Components, "cni"):                        filepath.Join(dir, runtime.GOARCH, "cni"),
	} {
		if err := linkTree(from, to); err != nil {
			return err
		}
	}
	all, err := os.ReadFile(filepath.Join(l.Components, "images.txt"))
	if err != nil {
		return fmt.Errorf("reading the list of images: %w", err)
	}
	var kube []string
	for line := range strings.Lines(string(all)) {
		if strings.HasPrefix(line, "registry.k8s.io/") {
			kube = append(kube, line)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "imageList"), []byte(strings.Join(kube, "")), 0o600); err != nil {
		return fmt.Errorf("writing imageList: %w", err)
	}
	return nil
}

// linkTree makes to a copy of from, of hard links where it can be.
func linkTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case entry.IsDir():
			return os.MkdirAll(target, 0o755)
		case entry.Type() == fs.ModeSymlink:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		}
		if err := os.Link(path, target); err == nil || errors.Is(err, fs.ErrExist) {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, info.Mode().Perm())
	})
}

// shopKubefile puts a pod network and a workload on top of the base image.
const shopKubefile = `FROM {{.Base}}
COPY manifests manifests
COPY imageList imageList
CMD kubectl apply -f manifests/podnet.yaml
CMD kubectl apply -f manifests/hello.yaml
`

// BuildShop builds ShopImage on BaseImage, which must be in root's store or in the registry.
func (l *Lab) BuildShop(ctx context.Context, root string) (digest string, err error) {
	dir := filepath.Join(l.Dir, "shop-"+l.version)
	if err := l.WriteShop(dir); err != nil {
		return "", err
	}
	return l.Run(ctx, root, "build", "-t", l.ShopImage(), dir)
}

// WriteShop puts a build context for ShopImage into dir.
func (l *Lab) WriteShop(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clearing the shop image's folder: %w", err)
	}
	if err := linkTree(filepath.Join(l.Components, "manifests"), filepath.Join(dir, "manifests")); err != nil {
		return err
	}
	var kubefile bytes.Buffer
	if err := template.Must(template.New("Kubefile").Parse(shopKubefile)).Execute(&kubefile, map[string]string{"Base": l.BaseImage()}); err != nil {
		return fmt.Errorf("writing the Kubefile: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Kubefile"), kubefile.Bytes(), 0o600); err != nil {
		return fmt.Errorf("writing the Kubefile: %w", err)
	}
	list := "# no manifest names these: the tests pull them by hand\n" +
		"docker.io/sealer-test/multi:v1\nquay.io/sealer-test/hello:v1\n"
	if err := os.WriteFile(filepath.Join(dir, "imageList"), []byte(list), 0o600); err != nil {
		return fmt.Errorf("writing imageList: %w", err)
	}
	return nil
}
