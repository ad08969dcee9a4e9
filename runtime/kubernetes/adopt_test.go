// SPDX-License-Identifier: Apache-2.0

package kubernetes_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
	"github.com/sealerio/sealer/runtime/kubernetes"
)

func tarGz(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var buf bytes.Buffer
	zw := gzip.NewWriter(&buf)
	tw := tar.NewWriter(zw)
	for name, text := range files {
		require.NoError(t, tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(text))}))
		_, err := tw.Write([]byte(text))
		require.NoError(t, err)
	}
	require.NoError(t, tw.Close())
	require.NoError(t, zw.Close())
	return buf.Bytes()
}

// The real script, on a rootfs as sealos makes it: its scripts and templates are gone, its programs are where ours look.
func TestAdopt(t *testing.T) {
	rootfs := t.TempDir()
	for name, data := range map[string][]byte{
		"scripts/init.sh":           []byte("touch /run-by-sealos"),
		"etc/kubeadm.yml.tmpl":      []byte("{{ .registryDomain }}"),
		"bin/kubeadm":               []byte("kubeadm"),
		"bin/runc":                  []byte("runc of bin"),
		"cri/crictl":                []byte("crictl"),
		"cri/cri-containerd.tar.gz": tarGz(t, map[string]string{"usr/local/bin/containerd": "containerd", "usr/local/sbin/runc": "runc of cri", "opt/cni/bin/bridge": "bridge"}),
		"cri/shim.tgz":              tarGz(t, map[string]string{"containerd-shim-runc-v2": "shim", "ctr": "ctr"}),
	} {
		path := filepath.Join(rootfs, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, data, 0o644))
	}
	local, err := host.NewLocal(t.Context(), host.LocalConfig{Name: "here"})
	require.NoError(t, err)
	c := &runtime.Cluster{Digest: "sha256:x", Older: &runtime.Older{Tool: "sealos"}}
	steps := kubernetes.New().Adopt(c, &runtime.Host{Runner: local, Rootfs: rootfs})
	require.Len(t, steps, 1)
	require.Equal(t, "putting sealer's scripts in place of those of sealos", steps[0].Name)

	for range 2 {
		var log bytes.Buffer
		require.NoError(t, steps[0].Do(t.Context(), &log), log.String())
		for name, want := range map[string]string{
			"bin/containerd": "containerd", "bin/containerd-shim-runc-v2": "shim", "bin/ctr": "ctr", "bin/crictl": "crictl",
			"bin/runc": "runc of bin", "bin/kubeadm": "kubeadm", "cni/bridge": "bridge",
		} {
			data, err := os.ReadFile(filepath.Join(rootfs, name))
			require.NoError(t, err)
			require.Equal(t, want, string(data), name)
		}
		info, err := os.Stat(filepath.Join(rootfs, "bin/containerd"))
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o755), info.Mode().Perm())
		for _, ours := range []string{"scripts/lib.sh", "scripts/containerd.sh", "scripts/init-kube.sh", "etc/containerd/config.toml.tmpl"} {
			require.FileExists(t, filepath.Join(rootfs, ours))
		}
		for _, gone := range []string{"scripts/init.sh", "etc/kubeadm.yml.tmpl", ".adopt"} {
			require.NoFileExists(t, filepath.Join(rootfs, gone))
		}
	}
}
