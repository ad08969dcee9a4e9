// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"net"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/registry"
)

// A registry that is named by an address of IPv6; its loopback address is asked in the clear, as that of IPv4 is. Packed images come
// from it, too.
func TestIPv6(t *testing.T) {
	t.Parallel()
	up := newUpstream(t)
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "[::1]:0")
	require.NoError(t, err)
	six := httptest.NewUnstartedServer(up.Config.Handler)
	six.Listener = ln
	six.Start()
	t.Cleanup(six.Close)
	st, c := newStore(t), newClient(t)
	host := ln.Addr().String()
	up.push(t, "a/b:1", image(t, "linux/amd64", layer(1, 1000)))
	desc, err := c.Pull(t.Context(), st, host+"/a/b:1", registry.PullOptions{})
	require.NoError(t, err)
	pushed, err := c.Push(t.Context(), st, desc, host+"/c/d:2")
	require.NoError(t, err)
	require.Equal(t, desc.Digest, pushed.Digest)
	require.NotEmpty(t, up.requests("PUT /v2/c/d/manifests/2"))
	clusterImage(t, c, st, "team/cluster:1", request(host+"/c/d:2"))
}
