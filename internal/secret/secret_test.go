// SPDX-License-Identifier: Apache-2.0

package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/secret"
)

func TestText_ShowsNowhere(t *testing.T) {
	cfg := struct {
		Address  string
		Password secret.Text
	}{"h", "hunter2"}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "password", cfg.Password, "config", cfg)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&log, verb, cfg.Password)
		fmt.Fprintf(&log, verb, struct{ P secret.Text }{cfg.Password})
	}
	text, err := json.Marshal(map[string]secret.Text{"p": cfg.Password})
	require.NoError(t, err)
	log.Write(text)
	require.NotContains(t, log.String(), "hunter2")
	require.NotContains(t, log.String(), "68756e74657232")
	require.Contains(t, log.String(), "[redacted]")
	require.Equal(t, "hunter2", cfg.Password.Reveal())
	require.Empty(t, secret.Text("").String())
}
