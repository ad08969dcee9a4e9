// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"time"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/internal/secret"
	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/store"
)

// Moved is what PushRegistry sent or found there.
type Moved struct {
	Images int `json:"images"` // that ClusterImages pack
	Others int `json:"others"` // that users have pushed, or images before
}

// PushRegistry sends all that the host's registry has to another one, which is to take its place: the packed images of all ClusterImages
// that the host has, and what else there is. What is there is not sent again. host is the other registry as references name it, prefix
// that of its repositories.
func (n *Node) PushRegistry(ctx context.Context, host, prefix string, a RegistryAccess) (m Moved, err error) {
	c, err := n.registryConfig()
	if err != nil {
		return m, err
	}
	local := net.JoinHostPort("127.0.0.1", strconv.Itoa(c.Port))
	client, err := n.mover(local, host, a)
	if err != nil {
		return m, err
	}
	defer client.Close()
	st, err := n.openStore()
	if err != nil {
		return m, err
	}
	release, err := st.Hold(ctx)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, release()) }()
	target := registry.Target{Host: host, Prefix: prefix}
	packed, err := n.pushPacked(ctx, client, st, target)
	if err != nil {
		return m, err
	}
	m.Images = len(packed)
	tags, manifests, err := registry.Served(n.registryDir())
	if err != nil {
		return m, err
	}
	for _, image := range tags {
		if packed[image] {
			continue
		}
		if err := moveImage(ctx, client, st, local+"/"+image, host+"/"+path.Join(prefix, image)); err != nil {
			return m, fmt.Errorf("pushing %s: %w", image, err)
		}
		m.Others++
	}
	for _, image := range manifests {
		_, err := client.Copy(ctx, st, local+"/"+image, host+"/"+path.Join(prefix, image), registry.CopyOptions{})
		if lacksPart(err) { // an index of an image before, not all of whose platforms are here: no registry takes it
			continue
		}
		if err != nil {
			return m, fmt.Errorf("pushing %s: %w", image, err)
		}
	}
	return m, nil
}

// lacksPart tells whether a registry has said that it does not have what an index names.
func lacksPart(err error) bool {
	status, answered := errors.AsType[*registry.StatusError](err)
	return answered && status.Status == http.StatusNotFound
}

// mover is a client of both.
func (n *Node) mover(local, host string, a RegistryAccess) (*registry.Client, error) {
	own, err := n.credentials()
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(n.registryDir(), caFile))
	if err != nil {
		return nil, fmt.Errorf("reading the registry's CA: %w", err)
	}
	o := registry.Options{
		AuthDir: n.root, CertsDir: n.root, Dial: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, // as AskRegistry
		Authorities: map[string][]byte{local: ca},
		Logins:      []registry.Login{{Host: local, Username: own.Username, Password: secret.Text(own.Password)}},
	}
	if a.CA != "" {
		o.Authorities[host] = []byte(a.CA)
	}
	if a.Username != "" {
		o.Logins = append(o.Logins, registry.Login{Host: host, Username: a.Username, Password: secret.Text(a.Password)})
	}
	return registry.NewClient(o)
}

// pushPacked sends what the ClusterImages of the host pack, and gives back which tags of the host's registry these are.
func (n *Node) pushPacked(ctx context.Context, client *registry.Client, st *store.Store, target registry.Target) (map[string]bool, error) {
	named, err := st.List(ctx)
	if err != nil {
		return nil, err
	}
	packed := map[string]bool{}
	for _, t := range named {
		img, err := n.image(ctx, st, t.Descriptor.Digest)
		if errors.Is(err, clusterimage.ErrNotClusterImage) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := client.PushPacked(ctx, st, img, target); err != nil {
			return nil, err
		}
		for _, p := range img.Images {
			named, err := reference.ParseNormalizedNamed(p.Name)
			if err != nil {
				return nil, fmt.Errorf("reading the image name %q: %w", p.Name, err)
			}
			if tagged, ok := named.(reference.Tagged); ok {
				packed[registry.RepositoryName(named)+":"+tagged.Tag()] = true
			}
		}
	}
	return packed, nil
}

// moveImage copies an image that nobody has the ClusterImage of. Of an index of an image before, maybe not all platforms are here: then
// this host's goes.
func moveImage(ctx context.Context, client *registry.Client, st *store.Store, from, to string) error {
	_, err := client.Copy(ctx, st, from, to, registry.CopyOptions{})
	if !lacksPart(err) {
		return err
	}
	if _, second := client.Copy(ctx, st, from, to, registry.CopyOptions{Platforms: []ocispec.Platform{platforms.DefaultSpec()}}); second != nil {
		return err
	}
	return nil
}

// RemoveRegistry stops the host's registry, and takes away all that it served, its credentials and its CA.
func (n *Node) RemoveRegistry(ctx context.Context) error {
	if err := n.UninstallRegistry(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(n.registryDir()); err != nil {
		return fmt.Errorf("removing the registry: %w", err)
	}
	return nil
}
