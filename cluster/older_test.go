// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/clusterimage"
)

// An image of an older tool, for a distribution that has nothing to put in place of the tool's scripts.
func TestRun_OlderImage(t *testing.T) {
	ext := clusterimage.Extension{RegistryTree: &clusterimage.RegistryTree{
		Tool: clusterimage.ToolSealos, Images: []clusterimage.TreeImage{{Path: "kube-apiserver:v1.36.3"}},
	}}
	b := newBedOf(t, oneHost, ext, nil)
	b.opts.Image.Rootfs[0].Manifest.Layers = nil // the bed's is no tar
	err := b.run(t)
	var older *cluster.OlderError
	require.ErrorAs(t, err, &older)
	require.ErrorContains(t, err, "is one of sealos: its own scripts are not run, and for fake sealer has no others")
	for _, call := range b.hosts["10.0.0.1"].Calls() {
		require.False(t, call.Mutates, call.String())
	}
}
