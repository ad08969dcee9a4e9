// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/store"
)

// While a build is at work, with blobs that no name needs yet, a prune waits for
// it; then it removes what nobody needs, and nothing of what was built.
func TestPrune_BesideABuild(t *testing.T) {
	t.Parallel()
	needToolbox(t)
	u := newUpstream(t)
	u.push("a:1")
	reached, goOn := make(chan struct{}), make(chan struct{})
	site := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(reached)
		<-goOn
	}))
	t.Cleanup(site.Close)
	b := newBench(t, map[string]string{
		"Kubefile":  "FROM scratch\nARG SITE\nCOPY f .\nCOPY imageList imageList\nRUN wget -q $SITE/wait -O waited\n",
		"imageList": u.host + "/a:1\n", "f": "x",
	})
	loose := []byte("nobody needs this")
	d := ocispec.Descriptor{Digest: digest.FromBytes(loose), Size: int64(len(loose))}
	w, err := content.OpenWriter(t.Context(), b.store.Content(), content.WithRef("loose"), content.WithDescriptor(d))
	require.NoError(t, err)
	_, err = w.Write(loose)
	require.NoError(t, err)
	require.NoError(t, w.Commit(t.Context(), d.Size, d.Digest))

	type built struct {
		result build.Result
		err    error
	}
	buildDone := make(chan built, 1)
	go func() {
		r, err := b.build(func(o *build.Options) { o.BuildArgs = map[string]string{"SITE": site.URL} })
		buildDone <- built{r, err}
	}()
	select {
	case <-reached:
	case r := <-buildDone:
		t.Fatal("the build ended before its RUN: ", r.err)
	}

	waits := make(chan []store.Holder, 1)
	type pruned struct {
		result store.PruneResult
		err    error
	}
	pruneDone := make(chan pruned, 1)
	go func() {
		r, err := b.store.Prune(context.WithoutCancel(t.Context()), store.PruneOptions{Waiting: func(h []store.Holder) { waits <- h }})
		pruneDone <- pruned{r, err}
	}()
	holders := <-waits
	require.NotEmpty(t, holders)
	select {
	case <-pruneDone:
		t.Fatal("the prune did not wait")
	default:
	}
	close(goOn)
	done := <-buildDone
	require.NoError(t, done.err)
	r := <-pruneDone
	require.NoError(t, r.err)
	var removed []digest.Digest
	for _, gone := range r.result.Removed {
		removed = append(removed, gone.Digest)
	}
	require.Contains(t, removed, d.Digest)

	img := b.read(done.result)
	blobs, err := img.Descriptors(t.Context(), b.store.Content(), nil)
	require.NoError(t, err)
	require.NotEmpty(t, img.Images)
	for _, blob := range blobs {
		require.NotContains(t, removed, blob.Digest)
		info, err := b.store.Content().Info(t.Context(), blob.Digest)
		require.NoError(t, err)
		require.Equal(t, blob.Size, info.Size)
	}
	again, err := b.store.Prune(t.Context(), store.PruneOptions{})
	require.NoError(t, err)
	require.Empty(t, again.Removed, "one prune takes all")
}
