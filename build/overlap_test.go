// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Images are fetched while the rootfs is made: a RUN waits until an image's layer is asked for, and that waits for the RUN.
func TestOverlap(t *testing.T) {
	t.Parallel()
	needToolbox(t)
	u := newUpstream(t)
	u.push("a:1")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	running, fetching := make(chan struct{}), make(chan struct{})
	var once, onceMore sync.Once
	meet := func(mine, theirs chan struct{}, first *sync.Once) bool {
		first.Do(func() { close(mine) })
		select {
		case <-theirs:
			return true
		case <-ctx.Done():
			return false
		}
	}
	target, err := url.Parse("http://" + u.host)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		met := true
		switch {
		case r.URL.Path == "/running":
			if met = meet(running, fetching, &once); met {
				return
			}
		case r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/"):
			met = meet(fetching, running, &onceMore)
		}
		if !met {
			w.WriteHeader(http.StatusGone)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "http://")
	b := newBench(t, map[string]string{
		"Kubefile":  "FROM scratch\nCOPY imageList imageList\nRUN wget -q -O made " + srv.URL + "/running\n",
		"imageList": host + "/a:1\n",
	})
	img := b.mustBuild()
	require.Len(t, img.Images, 1)
}
