// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterfile"
)

// All mistakes of a file are printed, and what was joined to them.
func TestPrintError_ShowsAllThatIsThere(t *testing.T) {
	_, err := clusterfile.Parse("Clusterfile", []byte("apiVersion: sealer.io/v2\nkind: Cluster\nspec:\n  image: a/b:v1\n  ssh: {port: 99999}\n  unknown: 1\n"))
	const mistakes = `Clusterfile:5:15: 99999 must be a port between 1 and 65535
      ssh: {port: 99999}
                  ^
Clusterfile:6:3: unknown field "unknown" of ClusterSpec
      unknown: 1
      ^`
	for _, c := range []struct {
		err  error
		want string
	}{
		{err, mistakes},
		{fmt.Errorf("reading: %w", err), mistakes},
		{errors.Join(errors.New("another"), err, errors.New("and one more")), "another\n" + mistakes + "\nand one more"},
		{errors.New("nothing to show"), "nothing to show"},
	} {
		var out bytes.Buffer
		printError(&out, c.err)
		require.Equal(t, "sealer: "+c.want+"\n", out.String())
	}
}
