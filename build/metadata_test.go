// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterimage"
)

func TestMetadata(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, kubefile string
		want           clusterimage.Metadata
		err            string
	}{
		{"binaries", "FROM scratch\nCOPY x bin/kubeadm\nCOPY x bin/containerd\n", clusterimage.Metadata{ClusterRuntime: "kubernetes", ContainerRuntime: "containerd"}, ""},
		{"label", "FROM scratch\nLABEL cluster.alpha.sealer.io/cluster-runtime-type=k3s cluster.alpha.sealer.io/cluster-runtime-version=v1.36.3+k3s1\nCOPY x bin/k3s\n",
			clusterimage.Metadata{ClusterRuntime: "k3s", KubeVersion: "v1.36.3", ClusterRuntimeVersion: "v1.36.3+k3s1", ContainerRuntime: "embedded"}, ""},
		{"file", "FROM scratch\nCOPY Metadata .\n", clusterimage.Metadata{ClusterRuntime: "k0s", KubeVersion: "v1.30.0", ContainerRuntime: "embedded"}, ""},
		{"disagree", "FROM scratch\nCOPY Metadata .\nCOPY x bin/kubeadm\n", clusterimage.Metadata{}, "the cluster runtime is not clear: the file Metadata says k0s, but bin/kubeadm is of kubernetes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, map[string]string{"Kubefile": c.kubefile, "x": "x", "Metadata": `{"clusterRuntime":"k0s","kubeVersion":"v1.30.0"}`})
			r, err := b.build()
			if c.err != "" {
				require.EqualError(t, err, c.err)
				return
			}
			require.NoError(t, err)
			img := b.read(r)
			got, err := clusterimage.ParseMetadata([]byte(b.files(img, 0)["Metadata"].text))
			require.NoError(t, err)
			c.want.Version, c.want.Arch = "v1", runtime.GOARCH
			require.Equal(t, c.want, got)
			require.Equal(t, clusterimage.KubeInstaller, img.Rootfs[0].Extension.Type)
			require.Equal(t, c.want.ClusterRuntime, img.Rootfs[0].Config.Config.Labels[clusterimage.LabelClusterRuntime])
		})
	}
}
