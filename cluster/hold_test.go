// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The scripts, as a host's shell runs them.
func TestHoldScripts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "operator")
	run := func(script string, args ...string) (string, int) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "sh", append([]string{"-c", script, "sh", file}, args...)...).Output()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return string(out) + string(exit.Stderr), exit.ExitCode()
		}
		require.NoError(t, err)
		return string(out), 0
	}
	take := func(who, says string) (string, int) {
		t.Helper()
		return run(takeHold, who, says, "60")
	}
	step := func(wantOut string, wantCode int) func(string, int) {
		return func(out string, code int) {
			t.Helper()
			require.Equal(t, wantOut, out)
			require.Equal(t, wantCode, code)
		}
	}
	step("", 0)(take("ada", `{"user":"ada"}`))
	step("{\"user\":\"ada\"}\n", exitHeld)(take("bob", `{"user":"bob"}`))
	step("", 0)(take("ada", `{"user":"ada","pid":2}`))
	step("", 0)(run(letGo, "bob"))
	step("{\"user\":\"ada\",\"pid\":2}\n", exitHeld)(take("bob", `{"user":"bob"}`))
	step("", 0)(run(letGo, "ada"))
	step("", 0)(run(letGo, "ada"))
	step("", 0)(take("bob", `{"user":"bob"}`))
	for _, silent := range []time.Duration{61 * time.Second, -time.Hour} { // a clock that was put back ends a hold, too
		then := time.Now().Add(-silent)
		require.NoError(t, os.Chtimes(file, then, then))
		step("", 0)(take("ada", `{"user":"ada"}`))
		step("{\"user\":\"ada\"}\n", exitHeld)(take("bob", `{"user":"bob"}`))
	}
}
