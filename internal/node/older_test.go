// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/store"
	"github.com/sealerio/sealer/test/olderimage"
)

// The images that sealer 0.11 or sealos packed are served to containerd.
func TestRegistry_ServesOlderImages(t *testing.T) {
	for _, tool := range []string{olderimage.Sealer, olderimage.Sealos} {
		t.Run(tool, func(t *testing.T) {
			m := newMachine(t)
			t.Cleanup(func() { m.run(nil, "clean") })
			useFakeSystemd(t, m)
			img, err := olderimage.Image(t.Context(), olderimage.Options{Tool: tool, Packed: map[string]v1.Image{
				"docker.io/library/nginx:1.27": nil, "registry.k8s.io/pause:3.6": nil,
			}})
			require.NoError(t, err)
			st := must(store.Open(filepath.Join(t.TempDir(), "operator")))
			for _, l := range must(img.Layers()) {
				put(t, st, "", must(io.ReadAll(must(l.Compressed()))))
			}
			put(t, st, "", must(img.RawConfigFile()))
			desc := put(t, st, ocispec.MediaTypeImageManifest, must(img.RawManifest()))
			read := must(clusterimage.Read(t.Context(), st.Content(), desc))
			m.load(st, desc, must(read.Descriptors(t.Context(), st.Content(), nil)))
			port := freePort(t)
			access := m.initRegistry("--address", "127.0.0.1", "--port", strconv.Itoa(port))
			m.run(nil, "registry", "install", "--timeout", "5m")
			m.run(nil, "registry", "publish", "--image", desc.Digest.String())
			for _, path := range []string{"library/nginx/manifests/1.27?ns=docker.io", "pause/manifests/3.6?ns=registry.k8s.io"} {
				code, body := get(t, access, fmt.Sprintf("https://127.0.0.1:%d/v2/%s", port, path), true)
				require.Equal(t, 200, code, string(body))
			}
		})
	}
}
