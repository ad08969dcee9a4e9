// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/host"
)

// A plan shows no secret, however deep it is in a value that has changed as a whole.
func TestShown(t *testing.T) {
	require.Equal(t, `["a"]`, shown("names", []any{"a"}))
	for key, value := range map[string]any{
		"datastore-endpoint": host.Secret("postgres://hunter2"),
		"dataSource":         "mysql://hunter2",
		"vrrpInstances":      []any{map[string]any{"authPass": "hunter2"}},
		"repositories":       []any{map[string]any{"name": "a", "password": "hunter2"}},
		"helm":               map[string]any{"repositories": []any{map[string]any{"password": "hunter2"}}},
	} {
		require.Empty(t, shown(key, value), key)
	}
}
