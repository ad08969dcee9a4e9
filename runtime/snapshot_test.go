// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// A byte that is another one, wherever it is, is found before anything is stopped for the snapshot.
func TestCheckEtcdSnapshot(t *testing.T) {
	local, err := host.NewLocal(t.Context(), host.LocalConfig{})
	require.NoError(t, err)
	h := &runtime.Host{Runner: local}
	data := make([]byte, 8192)
	sum := sha256.Sum256(data)
	whole := append(slices.Clone(data), sum[:]...)
	flipped := func(at int) []byte {
		b := slices.Clone(whole)
		b[at] ^= 1
		return b
	}
	for name, c := range map[string]struct {
		data []byte
		err  string
	}{
		"whole":                     {whole, ""},
		"the first byte":            {flipped(0), "is damaged"},
		"in the middle":             {flipped(4096), "is damaged"},
		"the last byte of the data": {flipped(8191), "is damaged"},
		"the checksum":              {flipped(8200), "is damaged"},
		"cut":                       {whole[:8000], "or was cut"},
		"cut by the checksum":       {whole[:8192], "no snapshot of etcd"},
		"cut by a page":             {slices.Concat(whole[:4096], sum[:]), "is damaged"},
		"empty":                     {nil, "there is no snapshot"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "it's a snapshot.db")
			require.NoError(t, os.WriteFile(file, c.data, 0o600))
			err := runtime.CheckEtcdSnapshot(t.Context(), h, file, io.Discard)
			if c.err == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.err)
		})
	}
}
