// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build/engine"
	"github.com/sealerio/sealer/internal/cli"
)

// asSealer makes this test binary a sealer: only a process of its own has arguments to wipe.
const asSealer = "SEALER_TEST_AS_SEALER"

func TestMain(m *testing.M) {
	engine.Reexec() // builds run steps in processes of their own
	if os.Getenv(asSealer) == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop)
	os.Exit(cli.Run(ctx, os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}

// A password given as an argument is not in the process list, nor in what is printed.
func TestPasswordArgument(t *testing.T) {
	const word = "correct-horse-battery"
	silent, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0") // takes connections, and says nothing
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, silent.Close()) })
	_, port, err := net.SplitHostPort(silent.Addr().String())
	require.NoError(t, err)
	for _, flag := range [][]string{{"-p", word}, {"-p" + word}, {"--passwd=" + word}, {"--passwd", word}, {"--pk-passwd", word}} {
		t.Run(strings.Join(flag, " "), func(t *testing.T) {
			args := append([]string{"delete", "--all", "--yes", "--masters", "127.0.0.1", "--progress", "plain"}, flag...)
			cmd := exec.CommandContext(t.Context(), os.Args[0], append(args, "--port", port)...)
			cmd.Env = append(os.Environ(), asSealer+"=1", "SEALER_ROOT="+t.TempDir(), "HOME="+t.TempDir(), "SSH_AUTH_SOCK=", "SEALER_SSH_PASSWD=other")
			var printed bytes.Buffer
			cmd.Stdout, cmd.Stderr = &printed, &printed
			require.NoError(t, cmd.Start())
			require.Eventually(t, func() bool {
				line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
				return err == nil && bytes.Contains(line, []byte("*\x00--port\x00"+port)) && !bytes.Contains(line, []byte(word))
			}, 20*time.Second, 10*time.Millisecond)
			require.NoError(t, cmd.Process.Signal(os.Interrupt))
			require.Error(t, cmd.Wait())
			require.Equal(t, 130, cmd.ProcessState.ExitCode(), printed.String())
			require.NotContains(t, printed.String(), word)
		})
	}
}
