// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/registry"
)

// Lists of a real registry, from page to page, and bounded.
func TestTags_Catalog(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	host := dockerRegistry(t)
	img := image(t, "linux/amd64", layer(1, 10))
	for i := range 7 {
		pushImage(t, fmt.Sprintf("%s/team/shop:v%d", host, i), img)
	}
	pushImage(t, host+"/team/other:1", img)
	pushImage(t, host+"/zoo:1", img)
	c := newClient(t)
	tags, more, err := c.Tags(ctx, host+"/team/shop", 100)
	require.NoError(t, err)
	require.False(t, more)
	require.Len(t, tags, 7)
	tags, more, err = c.Tags(ctx, host+"/team/shop", 3)
	require.NoError(t, err)
	require.True(t, more)
	require.Len(t, tags, 3)
	_, _, err = c.Tags(ctx, host+"/team/none", 3)
	require.True(t, errdefs.IsNotFound(err), "%v", err)

	repositories, more, err := c.Catalog(ctx, host, func(r string) bool { return strings.HasPrefix(r, "team/") }, 100)
	require.NoError(t, err)
	require.False(t, more)
	require.Equal(t, []string{"team/other", "team/shop"}, repositories)
}

// Registries that answer in small pages, without end, with other lists, or not at all.
func TestCatalog_Hostile(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	up := newUpstream(t)
	c := newClient(t)
	all := func(string) bool { return true }
	answer := func(link, body string) {
		up.step(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/_catalog") {
				return false
			}
			if r.URL.Query().Get("last") == "b" {
				_, _ = w.Write([]byte(`{"repositories":["c"]}`))
				return true
			}
			if link != "" {
				w.Header().Set("Link", link)
			}
			_, _ = w.Write([]byte(body))
			return true
		})
	}
	answer(`<https://elsewhere.example/v2/_catalog?last=b&n=2>; rel="next"`, `{"repositories":["a","b"]}`)
	got, _, err := c.Catalog(ctx, up.host, all, 10)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b", "c"}, got, "the host of a link does not count")
	answer(`</v2/_catalog?last=a>; rel="next"`, `{"repositories":["a"]}`)
	got, more, err := c.Catalog(ctx, up.host, all, 10)
	require.NoError(t, err)
	require.True(t, more)
	require.Len(t, got, 10)
	answer(`</v2/secret/x>; rel="next"`, `{"repositories":["a"]}`)
	_, _, err = c.Catalog(ctx, up.host, all, 10)
	require.ErrorContains(t, err, "another list")
	answer("", "<html>")
	_, _, err = c.Catalog(ctx, up.host, all, 10)
	require.Error(t, err)
	up.step(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/_catalog") {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	})
	_, _, err = c.Catalog(ctx, up.host, all, 10)
	var refused *registry.StatusError
	require.True(t, errors.As(err, &refused), "%v", err)
}
