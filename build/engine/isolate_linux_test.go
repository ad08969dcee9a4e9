// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/sealerio/sealer/build/engine"
)

// sleepingBuild is a program like sealer build: it isolates itself and runs a step that does not end. It says "sleeping"
// when the step runs and "interrupted" when a signal ended it.
func sleepingBuild(root, bin string) int {
	ctx, stop := signalContext()
	defer stop()
	code, done, err := engine.Isolate(ctx)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if done {
		return code
	}
	e, err := engine.Open(ctx, engine.Options{Root: root, Isolation: engine.Isolation(os.Getenv("ENGINE_TEST_ISOLATION")), Command: "sleeping"})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer func() { _ = e.Close() }()
	data, err := os.ReadFile(bin)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	st := llb.Scratch().File(llb.Mkfile("/step", 0o755, data)).Run(llb.Args([]string{"/step", "sleep"}),
		llb.AddMount("/file", llb.Scratch().File(llb.Mkfile("/a", 0o644, nil)), llb.SourcePath("/a"), llb.Readonly)).AddMount("/out", llb.Scratch())
	def, err := st.Marshal(ctx)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	status := make(chan *client.SolveStatus)
	go func() {
		for s := range status {
			for _, l := range s.Logs {
				fmt.Print(string(l.Data))
			}
		}
	}()
	_, err = e.Client().Solve(ctx, def, client.SolveOpt{}, status)
	if ctx.Err() != nil {
		fmt.Println("interrupted")
		return 130
	}
	fmt.Println(err)
	return 1
}

// start runs sleepingBuild and waits until its step runs.
func start(t *testing.T, root, bin string, i engine.Isolation, env ...string) (*exec.Cmd, io.Reader) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), "ENGINE_TEST_ROOT="+root, "ENGINE_TEST_STEP="+bin, "ENGINE_TEST_ISOLATION="+string(i))
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	out := bufio.NewReader(pipe)
	line, err := out.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "sleeping\n", line)
	require.Len(t, stepsBelow(t, root), 1)
	return cmd, out
}

func TestIsolate_KilledLeavesNothing(t *testing.T) {
	t.Parallel()
	isolations(t, func(t *testing.T, i engine.Isolation) {
		needRoot(t)
		root := t.TempDir()
		cmd, _ := start(t, root, stepBinary(t), i)

		// The lock names the process by the number that others see.
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := engine.Open(ctx, engine.Options{Root: root})
		require.ErrorContains(t, err, "(sleeping), running since")
		require.NotContains(t, err.Error(), "process 1 ")

		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait())
		// The kernel ends the others on its own time; the lock is free when the last of them is gone.
		e, err := engine.Open(t.Context(), engine.Options{Root: root})
		require.NoError(t, err)
		require.NoError(t, e.Close())
		require.Eventually(t, func() bool { return len(stepsBelow(t, root)) == 0 }, 10*time.Second, 10*time.Millisecond)
		requireNothing(t, root)
	})
}

func TestIsolate_PassesSignalsAndExitCode(t *testing.T) {
	t.Parallel()
	needRoot(t)
	root, temporary := t.TempDir(), t.TempDir()
	cmd, out := start(t, root, stepBinary(t), engine.Chroot, "TMPDIR="+temporary)
	require.NoError(t, cmd.Process.Signal(unix.SIGINT))
	rest, err := io.ReadAll(out)
	require.NoError(t, err)
	require.Equal(t, "interrupted", strings.TrimSpace(string(rest)))
	require.Error(t, cmd.Wait())
	require.Equal(t, 130, cmd.ProcessState.ExitCode())
	requireNothing(t, root)
	left, err := os.ReadDir(temporary)
	require.NoError(t, err)
	require.Empty(t, left)
}

// signalContext is what main does: the first signal cancels, a second one kills.
func signalContext() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
