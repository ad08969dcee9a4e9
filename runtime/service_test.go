// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime"
)

// here runs commands for real, with programs of the test first in PATH.
type here struct{ path string }

func (here) String() string { return "here" }

func (r here) Run(ctx context.Context, c host.Command) error {
	cmd := exec.CommandContext(ctx, "env", append([]string{"PATH=" + r.path + ":" + os.Getenv("PATH")}, c.Argv...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	var out bytes.Buffer
	if cmd.Stderr == nil {
		cmd.Stderr = &out
	}
	err := cmd.Run()
	if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // exec's own, as it stands
		return &host.ExitError{Host: "here", Command: c.String(), Code: exit.ExitCode(), Output: out.String()}
	}
	return err
}

// recorder is a host whose systemctl and OpenRC write down what they are asked; fail is what they refuse.
func recorder(t *testing.T, fail string) (h *runtime.Host, calls func() string) {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	script := fmt.Sprintf("#!/bin/sh\nprintf '%%s %%s\\n' \"${0##*/}\" \"$*\" >>%s\ncase \"$*\" in *%s*) exit 1 ;; esac\n", log, fail)
	for _, name := range []string{"systemctl", "rc-service", "rc-update"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
	}
	return &runtime.Host{Runner: here{dir}}, func() string {
		data, err := os.ReadFile(log)
		if os.IsNotExist(err) {
			return ""
		}
		require.NoError(t, err)
		require.NoError(t, os.Remove(log))
		return string(data)
	}
}

func TestService_Systemd(t *testing.T) {
	h, calls := recorder(t, "nothing")
	s := runtime.Service{Host: h, Name: "x"}
	require.Equal(t, "/etc/systemd/system/x.service", s.File())
	require.NoError(t, s.Start(t.Context(), io.Discard))
	require.Equal(t, "systemctl daemon-reload\nsystemctl reset-failed x\nsystemctl enable --quiet x\nsystemctl --no-block start x\n", calls())
	require.NoError(t, s.Restart(t.Context(), io.Discard))
	require.Contains(t, calls(), "systemctl stop x\nsystemctl --no-block start x\n")
	require.NoError(t, s.Stop(t.Context(), io.Discard))
	require.Equal(t, "systemctl disable --quiet x\nsystemctl stop x\nsystemctl reset-failed x\n", calls())
	active, err := s.Active(t.Context())
	require.NoError(t, err)
	require.True(t, active)
}

// Nothing is started where the guard does not hold.
func TestService_Guard(t *testing.T) {
	h, calls := recorder(t, "nothing")
	s := runtime.Service{Host: h, Name: "x", Guard: "[ -s /nonexistent ] || { echo no token >&2; exit 1; }"}
	require.ErrorContains(t, s.Start(t.Context(), nil), "no token")
	require.ErrorContains(t, s.Restart(t.Context(), nil), "no token")
	require.Empty(t, calls())
}

func TestService_StopMissing(t *testing.T) {
	h, _ := recorder(t, " x") // unknown to systemd: nothing works, and it is not active
	require.NoError(t, runtime.Service{Host: h, Name: "x"}.Stop(t.Context(), io.Discard))
	h.Facts.Init = runtime.OpenRC
	require.NoError(t, runtime.Service{Host: h, Name: "x"}.Stop(t.Context(), io.Discard))
}

func TestService_OpenRC(t *testing.T) {
	h, calls := recorder(t, "nothing")
	h.Facts.Init = runtime.OpenRC
	s := runtime.Service{Host: h, Name: "x"}
	require.Equal(t, "/etc/init.d/x", s.File())
	require.NoError(t, s.Start(t.Context(), io.Discard))
	require.Equal(t, "rc-update --quiet add x default\nrc-service --quiet --ifcrashed x zap\nrc-service --quiet x start\n", calls())
	_, err := s.Active(t.Context())
	require.NoError(t, err)
	require.Equal(t, "rc-service --quiet x status\n", calls())
}

func TestService_Log(t *testing.T) {
	r := hosttest.New("h").On("journalctl --unit x --lines 5", hosttest.Answer{Stdout: "a\nb\n"})
	require.Equal(t, "a\nb", runtime.Service{Host: &runtime.Host{Runner: r}, Name: "x"}.Log(t.Context(), 5))
	open := &runtime.Host{Runner: hosttest.New("h").On("sh 5 /var/log/k0s.log /var/log/k0s.err$", hosttest.Answer{Stdout: "c\n"}), Facts: runtime.Facts{Init: runtime.OpenRC}}
	require.Equal(t, "c", runtime.Service{Host: open, Name: "k0scontroller", LogName: "k0s"}.Log(t.Context(), 5))
	r.On("journalctl", hosttest.Answer{Code: 1})
	require.Empty(t, runtime.Service{Host: &runtime.Host{Runner: r}, Name: "x"}.Log(t.Context(), 5))
}

// Root's kubeconfig is given, and taken back with what was there before.
func TestRootKubeconfig(t *testing.T) {
	dir := t.TempDir()
	home, kept, admin := filepath.Join(dir, "home"), filepath.Join(dir, "kept"), filepath.Join(dir, "admin.conf")
	require.NoError(t, os.MkdirAll(filepath.Join(home, ".kube"), 0o700))
	config := filepath.Join(home, ".kube", "config")
	require.NoError(t, os.WriteFile(config, []byte("mine"), 0o600))
	require.NoError(t, os.WriteFile(admin, []byte("client-certificate-data: x"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "getent"), []byte("#!/bin/sh\necho root:x:0:0::"+home+":/bin/sh\n"), 0o755))
	h := &runtime.Host{Runner: here{dir}}
	step := runtime.RootKubeconfig(h, kept, admin)
	done, err := step.Done(t.Context())
	require.NoError(t, err)
	require.False(t, done)
	require.NoError(t, step.Do(t.Context(), io.Discard))
	data, err := os.ReadFile(config)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(data), "client-certificate"))
	done, err = step.Done(t.Context())
	require.NoError(t, err)
	require.True(t, done)
	require.NoError(t, runtime.ForgetRootKubeconfig(t.Context(), h, kept, io.Discard))
	data, err = os.ReadFile(config)
	require.NoError(t, err)
	require.Equal(t, "mine", string(data))
}
