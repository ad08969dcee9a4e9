// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/host"
)

// A host that is named by an address of IPv6, also by one of a link, as jump hosts may be: its key is kept as OpenSSH writes it, and
// known the next time.
func TestDial_IPv6(t *testing.T) {
	d := startSSHD(t)
	for _, address := range []string{"::1", "::1%lo"} {
		kept := filepath.Join(t.TempDir(), "known_hosts")
		cfg := host.Config{Address: address, Port: d.port, KeyFile: d.key, KnownHosts: []string{}, NewHostKeys: kept, AcceptNewHostKeys: true}
		for range 2 {
			c, err := host.Dial(t.Context(), cfg)
			require.NoError(t, err)
			out, err := host.Output(t.Context(), c, host.Command{Argv: []string{"echo", "here"}})
			require.NoError(t, err)
			require.Equal(t, "here\n", string(out))
			require.NoError(t, c.Close())
			cfg.AcceptNewHostKeys = false
		}
		lines, err := os.ReadFile(kept)
		require.NoError(t, err)
		require.Contains(t, string(lines), fmt.Sprintf("[%s]:%d ssh-ed25519 ", address, d.port))
	}
}
