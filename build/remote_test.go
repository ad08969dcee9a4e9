// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/build/engine"
)

// serve starts a builder that others reach over a socket.
func serve(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	e, err := engine.Open(t.Context(), engine.Options{Root: filepath.Join(dir, "state"), Isolation: engine.Chroot})
	require.NoError(t, err)
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- e.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-served)
		require.NoError(t, e.Close())
	})
	return "unix://" + l.Addr().String()
}

func TestRemoteBuilder_MakesTheSame(t *testing.T) {
	t.Parallel()
	needToolbox(t)
	b := newBench(t, sample(t))
	here := b.mustBuild()
	address := serve(t)
	other := newBench(t, sample(t))
	there := other.mustBuild(func(o *build.Options) { o.Builder = address })
	// The config names the layers' contents. How they are compressed differs: a daemon's layers are written twice.
	require.Equal(t, here.Rootfs[0].Manifest.Config.Digest, there.Rootfs[0].Manifest.Config.Digest)

	// FROM and errors work over there too.
	other.write(map[string]string{"Kubefile": "FROM test/cluster:v1\nCOPY a more\n"})
	img := other.mustBuild(func(o *build.Options) { o.Builder, o.Tag = address, "test/child:v1" })
	require.Contains(t, names(other.files(img, 0)), "more")
	other.write(map[string]string{"Kubefile": "FROM scratch\nRUN exit 3\n"})
	_, err := other.build(func(o *build.Options) { o.Builder = address })
	require.ErrorContains(t, err, "Kubefile:2: process")
}

func TestRemoteBuilder_DoesNotAnswer(t *testing.T) {
	t.Parallel()
	b := newBench(t, map[string]string{"Kubefile": "FROM scratch\nCOPY f .\n", "f": "x"})
	_, err := b.build(func(o *build.Options) { o.Builder = "unix:///no/such/socket" })
	var builder *engine.BuilderError
	require.ErrorAs(t, err, &builder)
}
