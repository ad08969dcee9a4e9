// SPDX-License-Identifier: Apache-2.0

// Package push copies the images of an OCI layout to a registry.
package push

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/errgroup"

	"github.com/sealerio/sealer/test/components/internal/image"
)

// Pushed is an image at its place in the registry.
type Pushed struct {
	Reference string // as in the layout, with the registry before it: 127.0.0.1:5000/registry.k8s.io/pause:3.10.2
	Digest    v1.Hash
	Existed   bool // the registry had it: nothing was sent
}

// All pushes every image of the layout to the registry at address, an http or https URL. An image keeps its whole
// name, domain included, as its repository there, which is where a mirror that serves several domains looks for it.
// The results are in the layout's order.
func All(ctx context.Context, layoutPath, address string, jobs int) ([]Pushed, error) {
	host, options, err := parse(address)
	if err != nil {
		return nil, err
	}
	index, err := layout.ImageIndexFromPath(layoutPath)
	if err != nil {
		return nil, fmt.Errorf("reading the images in %s: %w", layoutPath, err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("reading the images in %s: %w", layoutPath, err)
	}
	pusher, err := remote.NewPusher(remote.WithContext(ctx), remote.WithJobs(jobs))
	if err != nil {
		return nil, fmt.Errorf("pushing to %s: %w", address, err)
	}
	pushed := make([]Pushed, len(manifest.Manifests))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	for i, descriptor := range manifest.Manifests {
		g.Go(func() error {
			reference := host + "/" + descriptor.Annotations[image.RefName]
			existed, err := one(ctx, pusher, index, descriptor, reference, options)
			if err != nil {
				return fmt.Errorf("pushing %s: %w", reference, err)
			}
			pushed[i] = Pushed{Reference: reference, Digest: descriptor.Digest, Existed: existed}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return pushed, nil
}

func one(ctx context.Context, pusher *remote.Pusher, index v1.ImageIndex, descriptor v1.Descriptor, reference string, options []name.Option) (existed bool, err error) {
	tag, err := name.NewTag(reference, options...)
	if err != nil {
		return false, err
	}
	head, err := remote.Head(tag, remote.WithContext(ctx))
	var failure *transport.Error
	switch {
	case err == nil && head.Digest == descriptor.Digest:
		return true, nil
	case err != nil && (!errors.As(err, &failure) || failure.StatusCode != http.StatusNotFound):
		return false, err
	}
	if descriptor.MediaType.IsIndex() {
		child, err := index.ImageIndex(descriptor.Digest)
		if err != nil {
			return false, err
		}
		return false, pusher.Push(ctx, tag, child)
	}
	child, err := index.Image(descriptor.Digest)
	if err != nil {
		return false, err
	}
	return false, pusher.Push(ctx, tag, child)
}

// parse gives the registry's host and port, and how to name what is in it.
func parse(address string) (host string, options []name.Option, err error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", nil, fmt.Errorf("reading the registry's address: %w", err)
	}
	if u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return "", nil, fmt.Errorf("reading the registry's address %q: it has to be like http://127.0.0.1:5000", u.Redacted())
	}
	options = []name.Option{name.StrictValidation}
	switch u.Scheme {
	case "http":
		options = append(options, name.Insecure)
	case "https":
	default:
		return "", nil, fmt.Errorf("reading the registry's address %q: the scheme has to be http or https", u.Redacted())
	}
	return u.Host, options, nil
}
