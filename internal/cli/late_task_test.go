// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/progress"
	"github.com/sealerio/sealer/registry"
)

// What ends a command is shown as the failure of its transfers only where it is one.
func TestLateTask_FailsWithTransfersAlone(t *testing.T) {
	shown := func(err error) string {
		t.Helper()
		var out bytes.Buffer
		display, openErr := progress.Open(&out, progress.Plain, nil)
		require.NoError(t, openErr)
		task := &lateTask{display: display, name: "fetching from registries"}
		task.track("blob", 1).Done(nil)
		task.done(err)
		require.NoError(t, display.Close())
		return out.String()
	}
	drift := shown(&driftError{changes: 1})
	require.Contains(t, drift, "fetching from registries")
	require.NotContains(t, drift, "ERROR")
	require.NotContains(t, drift, "> fetching from registries:")
	require.Contains(t, shown(&registry.ImageError{Image: "a:1", Err: errors.New("cut off")}), "ERROR: a:1: cut off")
}
