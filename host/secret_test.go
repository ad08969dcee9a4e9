// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/host"
)

func TestSecret_ShowsNowhere(t *testing.T) {
	cfg := host.Config{Address: "h", Password: "hunter2"}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "password", cfg.Password, "config", cfg.Password)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&log, verb, cfg.Password)
		fmt.Fprintf(&log, verb, struct{ P host.Secret }{cfg.Password})
	}
	text, err := json.Marshal(map[string]host.Secret{"p": cfg.Password})
	require.NoError(t, err)
	log.Write(text)
	require.NotContains(t, log.String(), "hunter2")
	require.NotContains(t, log.String(), "68756e74657232")
	require.Contains(t, log.String(), "[redacted]")
	require.Equal(t, "hunter2", cfg.Password.Reveal())
	require.Empty(t, host.Secret("").String())
}

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
