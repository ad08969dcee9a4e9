// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// PatchVersion is the patch release before KubernetesVersion, and as long.
const PatchVersion = "v1.36.2"

// Patch is this lab with the Kubernetes of PatchVersion: the same programs, which say that they are of this version. What the linker has
// stamped into them is replaced where it stands, since to link them again takes a minute. It is not to be closed.
func (l *Lab) Patch(ctx context.Context) (*Lab, error) {
	patch := *l
	patch.version, patch.Components = PatchVersion, filepath.Join(l.Dir, "components-"+PatchVersion)
	if err := os.RemoveAll(patch.Components); err != nil {
		return nil, fmt.Errorf("clearing the folder of the patch release: %w", err)
	}
	for _, folder := range []string{"bin", "cni", "manifests"} {
		if err := linkTree(filepath.Join(l.Components, folder), filepath.Join(patch.Components, folder)); err != nil {
			return nil, fmt.Errorf("copying the programs of a patch release: %w", err)
		}
	}
	for file, mode := range map[string]os.FileMode{filepath.Join("bin", "kube"): 0o755, "images.txt": 0o600} {
		text, err := os.ReadFile(filepath.Join(l.Components, file))
		if err != nil {
			return nil, fmt.Errorf("reading what a patch release is made of: %w", err)
		}
		to := filepath.Join(patch.Components, file)
		if err := os.Remove(to); err != nil && !errors.Is(err, os.ErrNotExist) { // a link to what it is made of
			return nil, fmt.Errorf("writing a patch release: %w", err)
		}
		if err := os.WriteFile(to, stampPatch(text), mode); err != nil {
			return nil, fmt.Errorf("writing a patch release: %w", err)
		}
	}
	out, err := exec.CommandContext(ctx, filepath.Join(patch.Components, "bin", "kubelet"), "--version").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("asking the kubelet of the patch release for its version: %w: %s", err, out)
	}
	if said := strings.TrimSpace(string(out)); said != "Kubernetes "+PatchVersion {
		return nil, fmt.Errorf("the kubelet of the patch release %s says %q", PatchVersion, said)
	}
	return &patch, l.pushPatch(ctx)
}

func stampPatch(content []byte) []byte {
	return bytes.ReplaceAll(content, []byte(KubernetesVersion), []byte(PatchVersion))
}

// pushPatch puts the images of the patch release beside those of KubernetesVersion.
func (l *Lab) pushPatch(ctx context.Context) error {
	list, err := os.ReadFile(filepath.Join(l.Components, "images.txt"))
	if err != nil {
		return fmt.Errorf("reading the list of images: %w", err)
	}
	layers := map[v1.Hash]v1.Layer{} // the images have one in common, with all the programs
	for image := range strings.Lines(string(list)) {
		if image = strings.TrimSpace(image); !strings.HasSuffix(image, ":"+KubernetesVersion) {
			continue
		}
		from, err := name.ParseReference(l.Registry+"/"+image, name.Insecure)
		if err != nil {
			return fmt.Errorf("naming an image of the patch release: %w", err)
		}
		img, err := remote.Image(from, remote.WithContext(ctx))
		if err != nil {
			return fmt.Errorf("reading %s: %w", from, err)
		}
		if img, err = patched(img, layers); err != nil {
			return fmt.Errorf("making the patch release of %s: %w", from, err)
		}
		if err := remote.Write(from.Context().Tag(PatchVersion), img, remote.WithContext(ctx)); err != nil {
			return fmt.Errorf("pushing the patch release of %s: %w", from, err)
		}
	}
	return nil
}

// patched is an image in whose layers the version is another one.
func patched(img v1.Image, known map[v1.Hash]v1.Layer) (v1.Image, error) {
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	manifest, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.RootFS.DiffIDs, config.History = nil, nil
	made, err := mutate.ConfigFile(mutate.ConfigMediaType(mutate.MediaType(empty.Image, manifest.MediaType), manifest.Config.MediaType), config)
	if err != nil {
		return nil, err
	}
	for i, l := range layers {
		digest := manifest.Layers[i].Digest
		if known[digest] == nil {
			if known[digest], err = patchedLayer(l); err != nil {
				return nil, err
			}
		}
		if made, err = mutate.Append(made, mutate.Addendum{Layer: known[digest], MediaType: manifest.Layers[i].MediaType}); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// patchedLayer is a layer whose files say that they are of PatchVersion; the layer itself where none says its version.
func patchedLayer(l v1.Layer) (_ v1.Layer, err error) {
	r, err := l.Uncompressed()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	content, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if !bytes.Contains(content, []byte(KubernetesVersion)) {
		return l, nil
	}
	content = stampPatch(content)
	mediaType, err := l.MediaType()
	if err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		tarball.WithCompressedCaching, tarball.WithCompressionLevel(1), tarball.WithMediaType(mediaType))
}
