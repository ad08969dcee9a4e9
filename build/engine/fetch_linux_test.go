// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/moby/buildkit/client/llb"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build/engine"
)

// A server that says nothing, or stops in the middle of a file, is not waited for without end.
func TestFetch_SilentServer(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/half" {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte("half"))
			w.(http.Flusher).Flush()
		}
		select {
		case <-done:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(done) })
	e := open(t, engine.Options{FetchTimeout: 300 * time.Millisecond})
	for _, path := range []string{"/never", "/half"} {
		_, err := export(t, e, llb.HTTP(srv.URL+path))
		require.ErrorContains(t, err, "has sent nothing for 300ms", path)
	}
}
