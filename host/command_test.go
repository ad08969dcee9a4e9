// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/host"
)

func TestCommand_String(t *testing.T) {
	for want, c := range map[string]host.Command{
		"":                        {},
		"kubeadm init --config x": {Argv: []string{"kubeadm", "init", "--config", "x"}, Env: []string{"A=b"}},
		`echo '' 'a b' 'it'\''s'`: {Argv: []string{"echo", "", "a b", "it's"}},
		"k3s [redacted]":          {Argv: []string{"k3s", "token"}, Secret: true},
	} {
		require.Equal(t, want, c.String())
	}
}
