// SPDX-License-Identifier: Apache-2.0

package process_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/process"
)

func TestID(t *testing.T) {
	t.Setenv("SEALER_OUTER_PID", "")
	require.Equal(t, os.Getpid(), process.ID())
	require.NoError(t, process.SetID("4711"))
	require.Equal(t, 4711, process.ID())
}

func TestCommand_IsOfTheProgramAndNotOfItsName(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	args := os.Args
	defer func() { os.Args = args }()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"sealer-isolated", "build", "--secret", "id=x"}, " build"},
		{[]string{"sealer-isolated", "--token=x", "build"}, ""},
		{[]string{"sealer-isolated"}, ""},
	} {
		os.Args = c.args
		require.Equal(t, filepath.Base(self)+c.want, process.Command())
	}
}
