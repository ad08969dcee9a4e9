// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/host"
)

func output(t *testing.T, r host.Runner, argv ...string) string {
	t.Helper()
	out, err := host.Output(t.Context(), r, host.Command{Argv: argv})
	require.NoError(t, err)
	return string(out)
}

// testRunner is what every Runner must do. The runner's host is this machine: that is how the tests look at the results.
func testRunner(t *testing.T, r host.Runner) {
	t.Run("argv arrives as it was given", func(t *testing.T) {
		argv := []string{"", "a b", "it's", "$HOME", "`x`", "a\nb", "\\", "*", "-n", "!", "é\t\""}
		got := output(t, r, append([]string{"printf", `%s\0`}, argv...)...)
		require.Equal(t, strings.Join(argv, "\x00")+"\x00", got)
	})
	t.Run("environment and folder", func(t *testing.T) {
		dir := t.TempDir()
		var out bytes.Buffer
		require.NoError(t, r.Run(t.Context(), host.Command{
			Argv: []string{"sh", "-c", `printf '%s|%s|' "$A" "$PATH"; pwd`},
			Env:  []string{"A=one\ntwo 'three' $4"}, Dir: dir, Stdout: &out,
		}))
		parts := strings.Split(out.String(), "|")
		require.Equal(t, "one\ntwo 'three' $4", parts[0])
		require.True(t, strings.HasPrefix(parts[1], "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), parts[1])
		require.Equal(t, dir+"\n", parts[2])
	})
	t.Run("the environment is in no process list", func(t *testing.T) {
		out, err := host.Output(t.Context(), r, host.Command{
			Argv: []string{"sh", "-c", `for p in $$ $PPID; do tr '\0' ' ' </proc/$p/cmdline; done`}, Env: []string{"TOKEN=hunter2"},
		})
		require.NoError(t, err)
		require.NotContains(t, string(out), "hunter2")
	})
	t.Run("input and both outputs", func(t *testing.T) {
		in := strings.Repeat("0123456789abcdef\n", 200_000)
		var out, errs bytes.Buffer
		require.NoError(t, r.Run(t.Context(), host.Command{
			Argv: []string{"sh", "-c", "cat; echo done >&2"}, Stdin: strings.NewReader(in), Stdout: &out, Stderr: &errs,
		}))
		require.Equal(t, len(in), out.Len())
		require.True(t, in == out.String())
		require.Equal(t, "done\n", errs.String())
	})
	t.Run("one writer for both", func(t *testing.T) {
		var out bytes.Buffer
		require.NoError(t, r.Run(t.Context(), host.Command{Argv: []string{"sh", "-c", "echo a; echo b >&2"}, Stdout: &out, Stderr: &out}))
		require.ElementsMatch(t, []string{"a", "b"}, strings.Fields(out.String()))
	})
	t.Run("no input is an empty one", func(t *testing.T) {
		require.Empty(t, output(t, r, "cat"))
	})
	t.Run("input that nobody reads", func(t *testing.T) {
		require.NoError(t, r.Run(t.Context(), host.Command{Argv: []string{"true"}, Stdin: strings.NewReader(strings.Repeat("x", 8<<20))}))
	})
	t.Run("exit status and last output", func(t *testing.T) {
		err := r.Run(t.Context(), host.Command{Argv: []string{"sh", "-c", "seq 1 10000; echo why >&2; exit 7"}})
		var exit *host.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, 7, exit.Code)
		require.Equal(t, r.String(), exit.Host)
		require.LessOrEqual(t, len(exit.Output), 8<<10)
		require.Contains(t, exit.Output, "why\n")
		require.Contains(t, exit.Output, "9999\n10000\n")
		require.ErrorContains(t, err, "exit status 7")
	})
	t.Run("ended by a signal", func(t *testing.T) {
		var exit *host.ExitError
		require.ErrorAs(t, r.Run(t.Context(), host.Command{Argv: []string{"sh", "-c", "kill -KILL $$"}}), &exit)
		require.Equal(t, 137, exit.Code)
		require.Equal(t, "KILL", exit.Signal)
	})
	t.Run("no such program", func(t *testing.T) {
		var exit *host.ExitError
		require.ErrorAs(t, r.Run(t.Context(), host.Command{Argv: []string{"no-such-program"}}), &exit)
		require.Equal(t, 127, exit.Code)
		require.Contains(t, exit.Output, "no-such-program")
	})
	t.Run("no such folder", func(t *testing.T) {
		var exit *host.ExitError
		require.ErrorAs(t, r.Run(t.Context(), host.Command{Argv: []string{"true"}, Dir: "/no/such/folder"}), &exit)
		require.Equal(t, 126, exit.Code)
	})
	t.Run("a secret command stays out of its error", func(t *testing.T) {
		err := r.Run(t.Context(), host.Command{Argv: []string{"sh", "-c", "echo hunter2; exit 1", "hunter2"}, Secret: true})
		require.ErrorContains(t, err, "sh [redacted]")
		require.NotContains(t, err.Error(), "hunter2")
	})
	t.Run("refused before it runs", func(t *testing.T) {
		require.ErrorContains(t, r.Run(t.Context(), host.Command{}), "no program")
		require.ErrorContains(t, r.Run(t.Context(), host.Command{Argv: []string{"a\x00b"}}), "zero byte")
		require.ErrorContains(t, r.Run(t.Context(), host.Command{Argv: []string{"a"}, Env: []string{"1x=2"}}), `"1x"`)
	})
	t.Run("cancel ends the whole process group", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("enough")
		pids := make(chan string, 1)
		err := r.Run(ctx, host.Command{
			Argv:   []string{"sh", "-c", "sleep 600 & echo $! $$; wait"},
			Stdout: writerFunc(func(p []byte) (int, error) { pids <- string(p); cancel(cause); return len(p), nil }),
		})
		require.ErrorIs(t, err, cause)
		for f := range strings.FieldsSeq(<-pids) {
			pid, err := strconv.Atoi(f)
			require.NoError(t, err)
			require.Eventually(t, func() bool { return gone(pid) }, 5*time.Second, 10*time.Millisecond, "process %d", pid)
		}
	})
	t.Run("input that breaks is no end of input", func(t *testing.T) {
		broken := errors.New("disk on fire")
		file := filepath.Join(t.TempDir(), "done")
		err := r.Run(t.Context(), host.Command{
			Argv:  []string{"sh", "-c", `cat >/dev/null && echo whole >"$1"`, "sh", file},
			Stdin: io.MultiReader(strings.NewReader("part"), iotest.ErrReader(broken)),
		})
		require.ErrorIs(t, err, broken)
		require.NoFileExists(t, file)
	})
	t.Run("output that is not taken", func(t *testing.T) {
		full := errors.New("disk full")
		err := r.Run(t.Context(), host.Command{
			Argv: []string{"yes"}, Stdout: writerFunc(func([]byte) (int, error) { return 0, full }),
		})
		require.ErrorIs(t, err, full)
	})
	t.Run("many at once", func(t *testing.T) {
		var wg sync.WaitGroup
		errs := make([]error, 40)
		for i := range errs {
			wg.Go(func() {
				out, err := host.Output(t.Context(), r, host.Command{Argv: []string{"sh", "-c", "sleep 0.05; echo $1", "sh", strconv.Itoa(i)}})
				if err == nil && string(out) != strconv.Itoa(i)+"\n" {
					err = errors.New(string(out))
				}
				errs[i] = err
			})
		}
		wg.Wait()
		require.NoError(t, errors.Join(errs...))
	})
	t.Run("files", func(t *testing.T) { testFiles(t, r) })
}

func testFiles(t *testing.T, r host.Runner) {
	file := filepath.Join(t.TempDir(), "new folder", "it's a file")
	data := []byte("first\x00\n")
	require.NoError(t, host.WriteFile(t.Context(), r, file, data, 0o640))
	requireFile(t, file, data, 0o640)
	require.NoError(t, host.WriteFile(t.Context(), r, file, nil, 0o600))
	requireFile(t, file, nil, 0o600)

	got, err := host.ReadFile(t.Context(), r, file)
	require.NoError(t, err)
	require.Empty(t, got)
	_, err = host.ReadFile(t.Context(), r, file+".none")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, host.WriteFile(t.Context(), r, filepath.Dir(file), data, 0o600), "it is a folder")
	require.ErrorContains(t, host.WriteFile(t.Context(), r, "relative", data, 0o600), "not absolute")

	big := bytes.Repeat([]byte("sealer!\n"), 1<<17) // 1 MiB
	sum := sha256.Sum256(big)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	upload := func(rd io.Reader, size int64, mode fs.FileMode) error {
		return host.Upload(t.Context(), r, rd, size, digest, file, mode)
	}
	var wrong *host.DigestError
	require.ErrorAs(t, upload(bytes.NewReader(bytes.ToUpper(big)), int64(len(big)), 0o755), &wrong)
	require.Error(t, upload(bytes.NewReader(big), int64(len(big)-1), 0o755))
	require.ErrorIs(t, upload(bytes.NewReader(big[1:]), int64(len(big)), 0o755), io.ErrUnexpectedEOF)
	requireFile(t, file, nil, 0o600) // still the old one
	require.NoError(t, upload(bytes.NewReader(big), int64(len(big)), 0o755))
	requireFile(t, file, big, 0o755)
	require.NoError(t, upload(iotest.ErrReader(errors.New("nobody should read")), int64(len(big)), 0o700))
	requireFile(t, file, big, 0o700)

	entries, err := os.ReadDir(filepath.Dir(file))
	require.NoError(t, err)
	require.Len(t, entries, 1, "temporary files were left")
}

func requireFile(t *testing.T, file string, data []byte, mode fs.FileMode) {
	t.Helper()
	got, err := os.ReadFile(file)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, mode, info.Mode())
}

// gone tells whether a process has ended; one that waits for its parent to look has.
func gone(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z")
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
