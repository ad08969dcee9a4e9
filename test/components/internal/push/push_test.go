// SPDX-License-Identifier: Apache-2.0

package push

import (
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/sealerio/sealer/test/components/internal/image"
)

func TestAll(t *testing.T) {
	server := httptest.NewServer(registry.New())
	defer server.Close()
	address, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	// Two domains share a repository and a tag.
	for _, reference := range []string{"docker.io/a/b:v1", "quay.io/a/b:v1", "registry.k8s.io/pause:3.10.2"} {
		img, err := random.Image(1000, 2)
		if err != nil {
			t.Fatal(err)
		}
		if err := path.AppendImage(img, layout.WithAnnotations(map[string]string{image.RefName: reference})); err != nil {
			t.Fatal(err)
		}
	}
	index, err := random.Index(1000, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := path.AppendIndex(index, layout.WithAnnotations(map[string]string{image.RefName: "docker.io/a/multi:v1"})); err != nil {
		t.Fatal(err)
	}

	for _, existed := range []bool{false, true} {
		pushed, err := All(t.Context(), dir, server.URL, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(pushed) != 4 || pushed[1].Reference != address.Host+"/quay.io/a/b:v1" {
			t.Fatalf("got %v", pushed)
		}
		for _, p := range pushed {
			if p.Existed != existed {
				t.Errorf("%s: existed is %t, want %t", p.Reference, p.Existed, existed)
			}
			tag, err := name.NewTag(p.Reference, name.Insecure)
			if err != nil {
				t.Fatal(err)
			}
			got, err := remote.Get(tag)
			if err != nil {
				t.Fatal(err)
			}
			if got.Digest != p.Digest {
				t.Errorf("%s: the registry has %s, want %s", p.Reference, got.Digest, p.Digest)
			}
			if got.MediaType.IsIndex() {
				index, err := got.ImageIndex()
				if err != nil {
					t.Fatal(err)
				}
				if err := validate.Index(index); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

func TestAll_Address(t *testing.T) {
	for _, address := range []string{"127.0.0.1:5000", "http://", "ftp://127.0.0.1", "http://127.0.0.1:5000/path", "http://u:p@127.0.0.1:5000"} {
		if _, err := All(t.Context(), t.TempDir(), address, 1); err == nil {
			t.Errorf("%s has to be an error", address)
		}
	}
}
