// SPDX-License-Identifier: Apache-2.0

package templates_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/goldenfile"
	"github.com/sealerio/sealer/internal/node"
)

// containerd's configuration for both of its formats, as sealer-node renders it on a host. TestConfigurations in test/e2e has containerd
// read them.
func TestContainerdConfig(t *testing.T) {
	dir := written(t, "kubernetes")
	_, err := node.Render(dir, node.Rendering{Values: node.Values{"PauseImage": "registry.k8s.io/pause:3.10.2"}})
	require.NoError(t, err)
	for _, name := range []string{"config.toml", "config-1.7.toml"} {
		text, err := os.ReadFile(filepath.Join(dir, "etc/containerd", name))
		require.NoError(t, err)
		goldenfile.Equal(t, "testdata/containerd-"+name, string(text))
	}
}
