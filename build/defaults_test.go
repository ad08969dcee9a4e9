// SPDX-License-Identifier: Apache-2.0

package build_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterfile"
)

// An image carries its default Clusterfile and its plugins, and those of its base before them.
func TestBuild_Defaults(t *testing.T) {
	b := newBench(t, map[string]string{
		"Kubefile":        "FROM scratch\nCOPY etc etc\nCOPY plugins plugins\n",
		"etc/Clusterfile": "apiVersion: sealer.io/v2\nkind: Cluster\nmetadata: {name: x}\nspec: {env: [A=1, B=1]}\n",
		"plugins/a.yaml":  "apiVersion: sealer.io/v1\nkind: Plugin\nmetadata: {name: a}\nspec: {type: SHELL, action: post-install, data: echo a}\n",
		"plugins/README":  "not one",
	})
	img := b.mustBuild()
	files := img.Rootfs[0].Extension.Clusterfiles
	require.Len(t, files, 1)
	f, err := clusterfile.ParseBase("x", []byte(files[0]))
	require.NoError(t, err)
	require.Equal(t, "1", f.Env["A"])
	require.Len(t, f.Plugins, 1)

	for text, want := range map[string]string{
		"kind: Clustr\n": `etc/Clusterfile:1:7: unknown kind "Clustr" (did you mean Cluster?)`,
		"apiVersion: sealer.io/v2\nkind: Cluster\nspec: {ssh: {passwd: abc}}\n": "etc/Clusterfile:3: passwd: a secret in clear would be in the image for everyone to read",
	} {
		b.write(map[string]string{"etc/Clusterfile": text})
		_, err := b.build()
		require.ErrorContains(t, err, want)
	}
}
