// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Hosts that cannot be asked are findings, as all else is.
func TestCheck_Unreachable(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "")
	b := newNewBench(t)
	dir := filepath.Join(b.dir, "context")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "etc"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "etc", "x"), []byte("x"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Kubefile"), []byte("FROM scratch\nLABEL cluster.alpha.sealer.io/cluster-runtime-type=k3s\n"+
		"LABEL cluster.alpha.sealer.io/cluster-runtime-version=v1.36.1+k3s1\nCOPY etc etc\n"), 0o600))
	b.must("build", "-t", "checked:v1", dir)
	out, stderr, err := b.run("check", "--pre", "checked:v1", "-m", "127.0.0.1", "-n", "127.0.0.2", "--port", "1", "-p", "x", "-o", "json")
	require.Error(t, err)
	require.Contains(t, stderr, "2 things are not as they should be")
	var found []struct{ Host, Check, What, Fix string }
	require.NoError(t, json.Unmarshal([]byte(out), &found), out)
	require.Len(t, found, 2)
	for i, host := range []string{"127.0.0.1", "127.0.0.2"} {
		require.Equal(t, host+" ssh", found[i].Host+" "+found[i].Check)
		require.Contains(t, found[i].What, "connection refused")
	}
}
