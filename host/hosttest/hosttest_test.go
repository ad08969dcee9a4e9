// SPDX-License-Identifier: Apache-2.0

package hosttest_test

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/host/hosttest"
)

func TestRunner_AnswersAndRecords(t *testing.T) {
	down := errors.New("down")
	r := hosttest.New("10.0.0.7").
		On("^kubeadm ", hosttest.Answer{Stdout: "ok\n"}).
		On("^kubeadm reset", hosttest.Answer{Stderr: "busy", Code: 3, Times: 1}).
		On("^reboot", hosttest.Answer{Err: down}).
		On("^cat$", hosttest.Answer{Do: func(_ context.Context, c hosttest.Call) hosttest.Answer {
			return hosttest.Answer{Stdout: strings.ToUpper(string(c.Stdin))}
		}})
	var runner host.Runner = r
	out, err := host.Output(t.Context(), runner, host.Command{Argv: []string{"kubeadm", "init"}, Env: []string{"A=b"}, Mutates: true})
	require.NoError(t, err)
	require.Equal(t, "ok\n", string(out))
	reset := host.Command{Argv: []string{"kubeadm", "reset"}}
	var exit *host.ExitError
	require.ErrorAs(t, r.Run(t.Context(), reset), &exit)
	require.Equal(t, 3, exit.Code)
	require.NoError(t, r.Run(t.Context(), reset), "the answer was for once")
	require.ErrorIs(t, r.Run(t.Context(), host.Command{Argv: []string{"reboot"}}), down)
	out, err = host.Output(t.Context(), r, host.Command{Argv: []string{"cat"}, Stdin: strings.NewReader("in")})
	require.NoError(t, err)
	require.Equal(t, "IN", string(out))

	require.Equal(t, []string{"kubeadm init", "kubeadm reset", "kubeadm reset", "reboot", "cat"}, r.Commands())
	require.Equal(t, []string{"A=b"}, r.Calls()[0].Env)
	require.True(t, r.Calls()[0].Mutates)
	require.Equal(t, "in", string(r.Calls()[4].Stdin))
	require.ErrorAs(t, r.Strict().Run(t.Context(), host.Command{Argv: []string{"what"}}), &exit)
	require.Equal(t, 127, exit.Code)
}

func TestRunner_Files(t *testing.T) {
	r := hosttest.New("h").Put("/etc/os-release", "ID=debian\n", 0o644)
	got, err := host.ReadFile(t.Context(), r, "/etc/os-release")
	require.NoError(t, err)
	require.Equal(t, "ID=debian\n", string(got))
	_, err = host.ReadFile(t.Context(), r, "/none")
	require.ErrorIs(t, err, fs.ErrNotExist)

	require.NoError(t, host.WriteFile(t.Context(), r, "/etc/x", []byte("y"), 0o600))
	require.Equal(t, hosttest.File{Data: []byte("y"), Mode: 0o600}, r.Files()["/etc/x"])
	const zeros = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	var wrong *host.DigestError
	require.ErrorAs(t, host.Upload(t.Context(), r, strings.NewReader("z"), 1, zeros, "/etc/x", 0o600), &wrong)
	require.Equal(t, "y", string(r.Files()["/etc/x"].Data))
	require.Empty(t, r.Calls())
}
