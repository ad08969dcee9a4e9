// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime"
)

// What the control planes serve is elsewhere before any host asks there, and goes when none asks them any more. When they serve again,
// all is done for it anew.
func TestRun_RegistrySwitch(t *testing.T) {
	own := strings.Replace(elsewhere, elsewhereRegistry, "", 1)
	b := newBed(t, own)
	b.opts.Pusher = &pusher{}
	first := b.hosts["10.0.0.1"]
	first.On("registry push --to hub.corp.example --prefix mirror$", hosttest.Answer{Stdout: `{"images":3,"others":1}`})
	require.NoError(t, b.run(t))
	state := func() (s runtime.HostState) {
		require.NoError(t, json.Unmarshal(first.Files()[runtime.StateFile].Data, &s))
		return s
	}
	const publish = "publishing the packed images"
	require.Contains(t, state().Steps, publish)
	to := func(text string) []string {
		t.Helper()
		f, err := clusterfile.Parse("Clusterfile", []byte("apiVersion: sealer.io/v2\nkind: Cluster\nmetadata: {name: prod}\n"+text))
		require.NoError(t, err)
		b.opts.Clusterfile = f
		before := len(first.did())
		require.NoError(t, b.run(t))
		return first.did()[before:]
	}
	at := func(lines []string, what string) int {
		t.Helper()
		i := slices.IndexFunc(lines, func(line string) bool { return strings.Contains(line, what) })
		require.GreaterOrEqual(t, i, 0, "%s: %s", what, strings.Join(lines, "\n"))
		return i
	}
	did := to(elsewhere)
	require.Less(t, at(did, "[redacted]"), at(did, "registry remove"))
	require.NotContains(t, strings.Join(did, "\n"), "very-secret")
	require.NotContains(t, state().Steps, publish)
	require.NotContains(t, strings.Join(to(elsewhere), "\n"), "registry remove", "once is enough")

	did = to(own)
	require.Less(t, at(did, "[redacted]"), at(did, "registry publish"))
	require.Less(t, at(did, "registry publish"), at(did, "registry install"))
	require.Contains(t, state().Steps, publish)
}
