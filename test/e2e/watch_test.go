//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
)

// watch looks for a text in the process list of this machine, which holds the
// processes of the hosts, too.
type watch struct {
	quit chan struct{}
	done chan struct{}
	once sync.Once
	seen []string
}

func startWatch(t *testing.T, text string) *watch {
	t.Helper()
	w := &watch{quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			w.seen = append(w.seen, processesWith(text)...)
			select {
			case <-w.quit:
				return
			case <-tick.C:
			}
		}
	}()
	t.Cleanup(func() { w.stop() })
	return w
}

// stop ends the watch and says what was seen.
func (w *watch) stop() []string {
	w.once.Do(func() { close(w.quit) })
	<-w.done
	return w.seen
}

// watchNames serves DNS to the hosts, knows nothing, and writes down what was asked for.
func watchNames(t *testing.T) (asked func() []string) {
	t.Helper()
	conn, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", net.JoinHostPort(shared.Hosts.Gateway.String(), "53"))
	require.NoError(t, err)
	var mu sync.Mutex
	var names []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		packet := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(packet)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(packet[:n]) != nil || len(m.Questions) == 0 {
				continue
			}
			mu.Lock()
			names = append(names, strings.TrimSuffix(m.Questions[0].Name.String(), "."))
			mu.Unlock()
			m.Response, m.RCode = true, dnsmessage.RCodeNameError
			m.Additionals = nil
			if answer, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(answer, from) // a lost answer is asked for again
			}
		}
	}()
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		<-done
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		slices.Sort(names)
		return slices.Compact(slices.Clone(names))
	}
}

// requireNotBelow looks for secret in every file of sealer's folder dir that is not a blob.
func requireNotBelow(t *testing.T, dir, what, secret string) {
	t.Helper()
	files := 0
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && entry.Name() == "blobs" {
			return filepath.SkipDir
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		if bytes.Contains(data, []byte(secret)) {
			t.Errorf("%s stands in %s", what, path)
		}
		return nil
	}))
	require.Positive(t, files)
}

// registryDigest asks the lab's registry what name means there.
func registryDigest(t *testing.T, name string) string {
	t.Helper()
	repo, tag, ok := strings.Cut(name, ":")
	require.True(t, ok)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, "http://"+shared.Registry+"/v2/"+repo+"/manifests/"+tag, nil)
	require.NoError(t, err)
	for _, mediaType := range []string{
		"application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json",
		"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json",
	} {
		req.Header.Add("Accept", mediaType)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, errors.Join(err, resp.Body.Close()))
	require.Equal(t, http.StatusOK, resp.StatusCode, name)
	digest := resp.Header.Get("Docker-Content-Digest")
	require.NotEmpty(t, digest)
	return digest
}

// requireSourceDigests compares every packed image with what its registry has.
func requireSourceDigests(t *testing.T, root, name string) {
	t.Helper()
	var image struct {
		Images []struct{ Name, Digest, Index string }
	}
	require.NoError(t, json.Unmarshal([]byte(sealer(t, root, "inspect", name, "-o", "json")), &image))
	require.GreaterOrEqual(t, len(image.Images), 11)
	for _, i := range image.Images {
		want := registryDigest(t, i.Name)
		if i.Index != "" {
			require.Equal(t, want, i.Index, i.Name)
			continue
		}
		require.Equal(t, want, i.Digest, i.Name)
	}
}
