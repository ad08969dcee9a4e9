// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime"
)

func TestService_Await(t *testing.T) {
	never := func(context.Context) (bool, error) { return false, nil }
	patience := runtime.Patience{Timeout: 20 * time.Millisecond, Interval: time.Millisecond, Secrets: []host.Secret{"hunter2 "}}
	service := func(init string, answers map[string]hosttest.Answer) runtime.Service {
		r := hosttest.New("h").On("is-failed|crashed", hosttest.Answer{Code: 1})
		for pattern, a := range answers {
			r.On(pattern, a)
		}
		return runtime.Service{Host: &runtime.Host{Runner: r, Facts: runtime.Facts{Init: init}}, Name: "x"}
	}

	// What a question's program answers may be too early; everything else ends the wait.
	tries := 0
	require.NoError(t, service("systemd", nil).Await(t.Context(), patience, func(context.Context) (bool, error) {
		tries++
		if tries < 3 {
			return false, &host.ExitError{Code: 1}
		}
		return true, nil
	}))
	gone := errors.New("the connection is gone")
	require.ErrorIs(t, service("systemd", nil).Await(t.Context(), patience, func(context.Context) (bool, error) { return false, gone }), gone)

	var start *runtime.StartError
	err := service("systemd", map[string]hosttest.Answer{"journalctl": {Stdout: "password hunter2\n"}}).Await(t.Context(), patience, never)
	require.ErrorAs(t, err, &start)
	require.EqualError(t, err, "h: x does not come up: it is not part of the cluster after 20ms; the last it wrote:\npassword [redacted]")
	require.Equal(t, "look at journalctl -u x on the host", start.Hint())

	err = service(runtime.OpenRC, map[string]hosttest.Answer{"crashed": {}}).Await(t.Context(), patience, never)
	require.ErrorAs(t, err, &start)
	require.EqualError(t, err, "h: x does not come up: it has failed")
	require.Equal(t, "look at /var/log/x.log and /var/log/x.err on the host", start.Hint())

	// Whoever waits may go.
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	require.ErrorIs(t, service("systemd", nil).Await(ctx, patience, never), gone)
}
