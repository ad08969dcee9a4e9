// SPDX-License-Identifier: Apache-2.0

// Package olderimage makes images as sealer 0.9–0.11 and sealos make them: a
// rootfs whose last layer holds container images as a registry's folder,
// written here by the real docker-registry.
package olderimage

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/sealerio/sealer/test/testregistry"
)

// Tools that the images are as of.
const (
	Sealer = "sealer"
	Sealos = "sealos"
)

// Options say what to make.
type Options struct {
	// Tool is Sealer or Sealos.
	Tool string
	// Files of the rootfs, by path.
	Files map[string]string
	// Links of the rootfs, by path: where they lead.
	Links map[string]string
	// Version is what a label of sealos says of its Kubernetes; the default is v1.28.0.
	Version string
	// Packed are the images in the registry's folder, by full name with
	// domain: what each was made of. Small random ones are made where the value is nil.
	Packed map[string]v1.Image
	// Application makes it one that installs no Kubernetes.
	Application bool
	// Cmd is launched.
	Cmd []string
}

// Push makes the image and pushes it to ref, in a registry that speaks plain HTTP. It returns the digest.
func Push(ctx context.Context, ref string, o Options) (string, error) {
	tag, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		return "", fmt.Errorf("making an image of %s: %w", o.Tool, err)
	}
	img, err := Image(ctx, o)
	if err != nil {
		return "", fmt.Errorf("making an image of %s: %w", o.Tool, err)
	}
	if err := remote.Write(tag, img, remote.WithContext(ctx)); err != nil {
		return "", fmt.Errorf("pushing an image of %s: %w", o.Tool, err)
	}
	d, err := img.Digest()
	return d.String(), err
}

// Image makes the image.
func Image(ctx context.Context, o Options) (v1.Image, error) {
	tree, err := registryTree(ctx, o.Packed)
	if err != nil {
		return nil, err
	}
	files, err := layer(func(tw *tar.Writer) error {
		for _, path := range slices.Sorted(maps.Keys(o.Files)) {
			if err := add(tw, path, []byte(o.Files[path])); err != nil {
				return err
			}
		}
		for _, path := range slices.Sorted(maps.Keys(o.Links)) {
			if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: path, Linkname: o.Links[path], Mode: 0o777}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1), files, tree)
	if err != nil {
		return nil, err
	}
	config := v1.Config{}
	if o.Tool == Sealos {
		config.Cmd = o.Cmd
		config.Labels = map[string]string{
			"sealos.io.type": "rootfs", "sealos.io.version": "v1beta1", "sealos.io.distribution": "kubernetes", "version": cmp.Or(o.Version, "v1.28.0"),
		}
		if o.Application {
			config.Labels = map[string]string{"sealos.io.type": "application"}
		}
	} else {
		config.Labels = map[string]string{"io.sealer.version": "v0.11.0", "io.buildah.version": "1.27.1"}
	}
	config.Env = []string{"PATH=/usr/local/sbin:/usr/bin", "GREETING=hello"}
	if img, err = mutate.ConfigFile(img, withConfig(img, config)); err != nil {
		return nil, err
	}
	if o.Tool == Sealer {
		annotated, ok := mutate.Annotations(img, annotations(o)).(v1.Image)
		if !ok {
			return nil, errors.New("annotating gave no image")
		}
		img = annotated
	}
	return img, nil
}

func withConfig(img v1.Image, config v1.Config) *v1.ConfigFile {
	file, err := img.ConfigFile()
	if err != nil {
		file = &v1.ConfigFile{}
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", runtime.GOARCH, config
	return file
}

// annotations are what sealer 0.11 writes to the manifest.
func annotations(o Options) map[string]string {
	type packed struct {
		Image    string            `json:"image"`
		AppName  string            `json:"appName"`
		Platform map[string]string `json:"platform"`
	}
	list := []packed{}
	for _, image := range slices.Sorted(maps.Keys(o.Packed)) {
		list = append(list, packed{Image: image, Platform: map[string]string{"os": "linux", "architecture": runtime.GOARCH}})
	}
	kind := "kube-installer"
	if o.Application {
		kind = "app-installer"
	}
	extension := map[string]any{
		"buildClient":   map[string]string{"sealerVersion": "v0.11.0", "buildahVersion": "1.27.1"},
		"schemaVersion": "v1alpha1", "type": kind, "env": map[string]string{"GREETING": "hello"},
		"launch": map[string]any{"cmds": o.Cmd, "app_names": []string{}},
	}
	out := map[string]string{}
	for key, value := range map[string]any{"sealer.image.extension": extension, "sealer.image.container.images": list} {
		text, err := json.Marshal(value)
		if err != nil {
			panic(err) // strings and maps of them
		}
		out[key] = string(text)
	}
	return out
}

// registryTree pushes images to a docker-registry, under their paths without domain, and makes a layer of its folder.
func registryTree(ctx context.Context, images map[string]v1.Image) (_ v1.Layer, err error) {
	reg, err := testregistry.Start(ctx, testregistry.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	for _, full := range slices.Sorted(maps.Keys(images)) {
		if err := pack(ctx, reg.Address, full, images[full]); err != nil {
			return nil, err
		}
	}
	return layer(func(tw *tar.Writer) error {
		return filepath.WalkDir(reg.Dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			rel, err := filepath.Rel(reg.Dir, path)
			if err != nil {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return add(tw, "registry/"+filepath.ToSlash(rel), data)
		})
	})
}

func pack(ctx context.Context, registry, full string, img v1.Image) error {
	if img == nil {
		layers, err := random.Image(512, 2)
		if err != nil {
			return err
		}
		if img, err = mutate.ConfigFile(layers, withConfig(layers, v1.Config{Cmd: []string{full}})); err != nil {
			return err
		}
	}
	_, path, _ := strings.Cut(full, "/")
	ref, err := name.ParseReference(registry+"/"+path, name.Insecure)
	if err != nil {
		return err
	}
	return remote.Write(ref, img, remote.WithContext(ctx))
}

func layer(write func(*tar.Writer) error) (v1.Layer, error) {
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	if err := cmp.Or(write(tw), tw.Close()); err != nil {
		return nil, fmt.Errorf("making a layer: %w", err)
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer))
}

func add(tw *tar.Writer, path string, data []byte) error {
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o755, Size: int64(len(data))}); err != nil {
		return err
	}
	_, err := tw.Write(data)
	return err
}
