// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build/engine"
)

func TestCollectLate(t *testing.T) {
	before := debug.SetGCPercent(77)
	defer debug.SetGCPercent(before)
	t.Setenv("GOGC", "77")
	engine.CollectLate()
	require.Equal(t, 77, debug.SetGCPercent(77), "what the user says")
	t.Setenv("GOGC", "")
	engine.CollectLate()
	require.Equal(t, 400, debug.SetGCPercent(77))
}
