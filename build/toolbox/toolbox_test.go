// SPDX-License-Identifier: Apache-2.0

package toolbox_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build/toolbox"
)

func TestUnpack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	layout, image, err := toolbox.Unpack(dir, runtime.GOARCH)
	if _, missing := errors.AsType[*toolbox.MissingError](err); missing {
		t.Skip("this binary carries no toolbox: hack/toolbox.sh makes it")
	}
	require.NoError(t, err)
	require.Equal(t, runtime.GOARCH, image.Platform.Architecture)

	blob := func(d ocispec.Descriptor) []byte {
		data, err := os.ReadFile(filepath.Join(layout, "blobs", "sha256", d.Digest.Encoded()))
		require.NoError(t, err)
		require.Equal(t, d.Digest, digest.FromBytes(data))
		return data
	}
	var manifest ocispec.Manifest
	require.NoError(t, json.Unmarshal(blob(image), &manifest))
	blob(manifest.Config)
	require.Len(t, manifest.Layers, 1)
	blob(manifest.Layers[0])

	again, same, err := toolbox.Unpack(dir, runtime.GOARCH)
	require.NoError(t, err)
	require.Equal(t, layout, again)
	require.Equal(t, image.Digest, same.Digest)

	// A folder that a crash or a hand broke is replaced.
	require.NoError(t, os.Remove(filepath.Join(layout, "index.json")))
	_, same, err = toolbox.Unpack(dir, runtime.GOARCH)
	require.NoError(t, err)
	require.Equal(t, image.Digest, same.Digest)
}

func TestUnpack_NotCarried(t *testing.T) {
	t.Parallel()
	_, _, err := toolbox.Unpack(t.TempDir(), "vax")
	require.EqualError(t, err, "this sealer binary carries no toolbox for linux/vax, which RUN needs")
}
