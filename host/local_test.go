// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/host"
)

func TestLocal(t *testing.T) {
	l, err := host.NewLocal(t.Context(), host.LocalConfig{})
	require.NoError(t, err)
	testRunner(t, l)
}
