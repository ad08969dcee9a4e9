// SPDX-License-Identifier: Apache-2.0

// Package mirror finds out where a node's container runtime would ask for an image, out of the files that k3s and k0s
// read, and fetches it from there: manifest and blobs, compared with their digests. An image's own registry is never
// asked; that it would be is reported.
package mirror

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"time"
)

// Endpoint is a registry that stands in for another.
type Endpoint struct {
	URL     string // https://registry.local:5000, with /v2 where the path is overridden
	TLS     *tls.Config
	Header  http.Header
	Rewrite func(repository string) string // nil: as it is
}

// Way is where an image is looked for.
type Way struct {
	Endpoints []Endpoint
	// Upstream tells that the image's own registry is asked when no endpoint has it.
	Upstream bool
}

// Finder tells the way to the images of a registry, such as docker.io.
type Finder func(registry string) (Way, error)

// Reference is an image's name with all its parts.
type Reference struct{ Registry, Repository, Tag, Digest string }

// Parse fills in what Docker's short names leave out.
func Parse(s string) Reference {
	var r Reference
	s, r.Digest, _ = strings.Cut(s, "@")
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, '/') {
		s, r.Tag = s[:i], s[i+1:]
	}
	host, rest, ok := strings.Cut(s, "/")
	switch {
	case ok && (strings.ContainsAny(host, ".:") || host == "localhost"):
		r.Registry, r.Repository = host, rest
	case ok:
		r.Registry, r.Repository = "docker.io", s
	default:
		r.Registry, r.Repository = "docker.io", "library/"+s
	}
	if r.Tag == "" && r.Digest == "" {
		r.Tag = "latest"
	}
	return r
}

func (r Reference) String() string {
	s := r.Registry + "/" + r.Repository
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// UpstreamError says that the image's own registry would have been asked.
type UpstreamError struct {
	Reference Reference
	Tried     error
}

func (e *UpstreamError) Error() string {
	return fmt.Sprintf("failed to resolve reference %q: failed to do request: Head \"https://%s/v2/%s/manifests/%s\": dial tcp: lookup %s: no such host (%v)",
		e.Reference, e.Reference.Registry, e.Reference.Repository, e.Reference.Tag, e.Reference.Registry, e.Tried)
}

func (e *UpstreamError) Unwrap() error { return e.Tried }

type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
	Platform  *struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
	} `json:"platform"`
}

type manifest struct {
	MediaType string       `json:"mediaType"`
	Manifests []descriptor `json:"manifests"`
	Config    descriptor   `json:"config"`
	Layers    []descriptor `json:"layers"`
}

// maxManifest is what containerd takes, too.
const maxManifest = 8 << 20

const pullLimit = 2 * time.Minute

// Pull fetches an image from the first endpoint that has it, and returns the digest of what the name stands for.
func Pull(ctx context.Context, find Finder, image string) (digest string, err error) {
	ref := Parse(image)
	way, err := find(ref.Registry)
	if err != nil {
		return "", err
	}
	var errs []error
	for _, e := range way.Endpoints {
		p := puller{ref: ref, endpoint: e, repository: ref.Repository,
			client: &http.Client{Timeout: pullLimit, Transport: &http.Transport{TLSClientConfig: e.TLS, DisableKeepAlives: false, TLSHandshakeTimeout: 10 * time.Second}}}
		if e.Rewrite != nil {
			p.repository = e.Rewrite(ref.Repository)
		}
		digest, err := p.pull(ctx)
		p.client.CloseIdleConnections()
		if err == nil {
			return digest, nil
		}
		errs = append(errs, fmt.Errorf("failed to pull and unpack image %q: %w", ref, err))
	}
	if way.Upstream {
		return "", &UpstreamError{Reference: ref, Tried: errors.Join(errs...)}
	}
	if len(errs) == 0 {
		return "", fmt.Errorf("failed to pull and unpack image %q: no registry is configured", ref)
	}
	return "", errors.Join(errs...)
}

type puller struct {
	ref        Reference
	endpoint   Endpoint
	repository string
	client     *http.Client
}

func (p puller) pull(ctx context.Context) (string, error) {
	name := p.ref.Digest
	if name == "" {
		name = p.ref.Tag
	}
	top, digest, err := p.manifest(ctx, name)
	if err != nil {
		return "", err
	}
	m := top
	if len(top.Manifests) > 0 {
		chosen := ""
		for _, d := range top.Manifests {
			if d.Platform != nil && d.Platform.OS == "linux" && d.Platform.Architecture == runtime.GOARCH && chosen == "" {
				chosen = d.Digest
			}
		}
		if chosen == "" {
			return "", fmt.Errorf("no match for platform in manifest %s: not found", digest)
		}
		if m, _, err = p.manifest(ctx, chosen); err != nil {
			return "", err
		}
	}
	for _, d := range append([]descriptor{m.Config}, m.Layers...) {
		if err := p.blob(ctx, d); err != nil {
			return "", err
		}
	}
	return digest, nil
}

func (p puller) manifest(ctx context.Context, name string) (m manifest, digest string, err error) {
	resp, err := p.get(ctx, "manifests", name, "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, "+
		"application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json")
	if err != nil {
		return m, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest))
	if err != nil {
		return m, "", err
	}
	sum := sha256.Sum256(text)
	digest = "sha256:" + hex.EncodeToString(sum[:])
	want := resp.Header.Get("Docker-Content-Digest")
	if strings.Contains(name, ":") {
		want = name
	}
	if want != "" && want != digest {
		return m, "", fmt.Errorf("manifest %s has digest %s", want, digest)
	}
	return m, digest, json.Unmarshal(text, &m)
}

func (p puller) blob(ctx context.Context, d descriptor) error {
	resp, err := p.get(ctx, "blobs", d.Digest, "")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(resp.Body, d.Size+1))
	if err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(h.Sum(nil)); n != d.Size || got != d.Digest {
		return fmt.Errorf("blob %s of %d bytes came as %s of %d bytes", d.Digest, d.Size, got, n)
	}
	return nil
}

func (p puller) get(ctx context.Context, kind, name, accept string) (*http.Response, error) {
	base := strings.TrimSuffix(p.endpoint.URL, "/")
	if u, err := url.Parse(base); err == nil && u.Path == "" {
		base += "/v2"
	}
	target := base + "/" + p.repository + "/" + kind + "/" + name
	if u, err := url.Parse(base); err == nil && u.Host != p.ref.Registry {
		target += "?ns=" + url.QueryEscape(p.ref.Registry)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range p.endpoint.Header {
		req.Header[http.CanonicalHeaderKey(k)] = v
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		resp.Body.Close()
		return nil, fmt.Errorf("unexpected status from GET request to %s: %s: %s", target, resp.Status, strings.TrimSpace(string(text)))
	}
	return resp, nil
}
