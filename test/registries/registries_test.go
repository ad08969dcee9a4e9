// SPDX-License-Identifier: Apache-2.0

package registries

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/rancher/wharfie/pkg/registries"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v2"
)

const (
	golden = "../../runtime/k3s/testdata/"
	caFile = "/etc/rancher/k3s/sealer-registry-ca.crt"
)

// served is a registry of one image in several repositories, over TLS and behind a login.
type served struct {
	address, ca string
	digest      v1.Hash

	mu    sync.Mutex
	asked []string // paths of manifests, with the registry that the image is of
}

func serve(t *testing.T, repositories ...string) *served {
	t.Helper()
	s := &served{}
	handler := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	plain := httptest.NewServer(handler)
	t.Cleanup(plain.Close)
	image, err := random.Image(64, 1)
	require.NoError(t, err)
	s.digest, err = image.Digest()
	require.NoError(t, err)
	for _, repository := range repositories {
		ref, err := name.NewTag(strings.TrimPrefix(plain.URL, "http://")+"/"+repository+":v1", name.Insecure)
		require.NoError(t, err)
		require.NoError(t, remote.Write(ref, image))
	}
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != "u" || password != "hidden" {
			w.Header().Set("WWW-Authenticate", `Basic realm="sealer"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if strings.Contains(r.URL.Path, "/manifests/") {
			s.mu.Lock()
			s.asked = append(s.asked, r.URL.Path+"?ns="+r.URL.Query().Get("ns"))
			s.mu.Unlock()
		}
		handler.ServeHTTP(w, r)
	}))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(secure.Close)
	s.address = strings.TrimPrefix(secure.URL, "https://")
	s.ca = filepath.Join(t.TempDir(), "ca.crt")
	require.NoError(t, os.WriteFile(s.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600))
	return s
}

// written is a golden file with other addresses, which k3s' parser takes in.
func written(t *testing.T, file string, replace ...string) string {
	t.Helper()
	text, err := os.ReadFile(golden + file)
	require.NoError(t, err)
	for i := 0; i < len(replace); i += 2 {
		require.Contains(t, string(text), replace[i])
	}
	path := filepath.Join(t.TempDir(), "registries.yaml")
	require.NoError(t, os.WriteFile(path, []byte(strings.NewReplacer(replace...).Replace(string(text))), 0o600))
	return path
}

// Every golden file has only keys that k3s knows.
func TestStrict(t *testing.T) {
	files, err := filepath.Glob(golden + "registries*.yaml")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 4)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			var r registries.Registry
			require.NoError(t, yaml.UnmarshalStrict(text, &r))
			require.NotEmpty(t, r.Mirrors["*"].Endpoints)
			require.Empty(t, r.Auths, "deprecated")
			for host, m := range r.Mirrors {
				require.NotEmpty(t, m.Endpoints, host)
				for _, endpoint := range m.Endpoints {
					config, known := r.Configs[strings.TrimPrefix(endpoint, "https://")]
					require.True(t, known, "%s of %s", endpoint, host)
					require.Equal(t, strings.HasSuffix(file, "-open.yaml"), config.Auth == nil)
				}
			}
			require.Error(t, yaml.UnmarshalStrict([]byte(strings.Replace(string(text), "endpoint:", "endpoints:", 1)), &r), "it is strict")
		})
	}
}

// Images of all registries come from the control planes, one after the other, by their login and CA.
func TestControlPlanes(t *testing.T) {
	s := serve(t, "library/hello", "team/hello", "own")
	gone := httptest.NewUnstartedServer(nil)
	away := gone.Listener.Addr().String()
	require.NoError(t, gone.Listener.Close())
	file := written(t, "registries.yaml", "10.0.0.2:5000", away, "10.0.0.1:5000", s.address, caFile, s.ca)
	r, err := registries.GetPrivateRegistries(file)
	require.NoError(t, err)
	for _, image := range []string{"docker.io/library/hello:v1", "quay.io/team/hello:v1", "sea.hub:5000/own:v1"} {
		ref, err := name.ParseReference(image)
		require.NoError(t, err)
		got, err := r.Image(ref)
		require.NoError(t, err, image)
		digest, err := got.Digest()
		require.NoError(t, err)
		require.Equal(t, s.digest, digest)
	}
	require.Equal(t, []string{
		"/v2/library/hello/manifests/v1?ns=docker.io", "/v2/team/hello/manifests/v1?ns=quay.io", "/v2/own/manifests/v1?ns=sea.hub:5000",
	}, s.asked)

	for what, change := range map[string][]string{
		"another CA":       {caFile, golden + "registries.yaml"},
		"another password": {caFile, s.ca, "password: hidden", "password: other"},
	} {
		r, err := registries.GetPrivateRegistries(written(t, "registries.yaml", append(change, "10.0.0.2:5000", s.address, "10.0.0.1:5000", s.address)...))
		require.NoError(t, err)
		ref, err := name.ParseReference("sea.hub:5000/own:v1")
		require.NoError(t, err)
		_, err = r.Image(ref)
		require.Error(t, err, what)
	}
}

// An external registry has the images of each domain in a folder of its own, and its own ones where they are.
func TestExternal(t *testing.T) {
	s := serve(t, "mirror/docker.io/library/hello", "mirror/quay.io/team/hello", "mirror/other", "team/own")
	r, err := registries.GetPrivateRegistries(written(t, "registries-external.yaml", "hub.corp.example:443", s.address))
	require.NoError(t, err)
	config := r.Registry.Configs[s.address]
	require.Nil(t, config.TLS)
	config.TLS = &registries.TLSConfig{CAFile: s.ca} // hosts trust the real one anyway
	r.Registry.Configs[s.address] = config
	for _, image := range []string{"hello:v1", "quay.io/team/hello:v1", "example.org/other:v1", "hub.corp.example/team/own:v1"} {
		ref, err := name.ParseReference(image)
		require.NoError(t, err)
		_, err = r.Image(ref)
		require.NoError(t, err, image)
	}
	require.Equal(t, []string{
		"/v2/mirror/docker.io/library/hello/manifests/v1?ns=docker.io", "/v2/mirror/quay.io/team/hello/manifests/v1?ns=quay.io",
		"/v2/mirror/other/manifests/v1?ns=example.org", "/v2/team/own/manifests/v1?ns=hub.corp.example",
	}, s.asked)
}
