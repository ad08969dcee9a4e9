// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/internal/secret"
	"github.com/sealerio/sealer/registry"
)

// Publish makes the packed images of a ClusterImage available in the host's registry, as links to the store's blobs. It may run while the registry serves.
func (n *Node) Publish(ctx context.Context, image digest.Digest) (err error) {
	st, err := n.openStore()
	if err != nil {
		return err
	}
	release, err := st.Hold(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	img, err := n.image(ctx, st, image)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(n.registryDir(), 0o700); err != nil {
		return fmt.Errorf("publishing images: %w", err)
	}
	if err := registry.Publish(ctx, st, img, n.registryDir()); err != nil {
		return err
	}
	return n.publishTrees(ctx, img)
}

// Unpublish takes the packed images of a ClusterImage out of the host's registry, but for those that other images of the host,
// by their names, pack as well. Nothing happens where the host does not have the image any more.
func (n *Node) Unpublish(ctx context.Context, image digest.Digest) (err error) {
	st, err := n.openStore()
	if err != nil {
		return err
	}
	release, err := st.Hold(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	if err := image.Validate(); err != nil {
		return fmt.Errorf("finding image %q: %w", image, err)
	}
	if _, err := os.Stat(st.BlobPath(image)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	img, err := n.image(ctx, st, image)
	if err != nil {
		return err
	}
	named, err := st.List(ctx)
	if err != nil {
		return err
	}
	var others []*clusterimage.Image
	for _, t := range named {
		if t.Descriptor.Digest == image {
			continue
		}
		other, err := n.image(ctx, st, t.Descriptor.Digest)
		if errors.Is(err, clusterimage.ErrNotClusterImage) {
			continue
		}
		if err != nil {
			return err
		}
		others = append(others, other)
	}
	return registry.Unpublish(ctx, st, img, others, n.registryDir())
}

// publishTrees publishes the registry's folders that the image's rootfs has of an older tool.
func (n *Node) publishTrees(ctx context.Context, img *clusterimage.Image) error {
	for _, r := range img.Rootfs {
		if r.Absent || r.Extension.RegistryTree == nil {
			continue
		}
		path, err := n.Mount(ctx, img.Descriptor.Digest, platforms.Format(r.Platform))
		if err != nil {
			return err
		}
		if !registry.HasTree(path) {
			continue
		}
		if err := registry.PublishTree(ctx, filepath.Join(path, "registry"), n.registryDir()); err != nil {
			return err
		}
	}
	return nil
}

// Serve serves the registry that InitRegistry has prepared, until ctx ends. Troubles go to errorLog.
func (n *Node) Serve(ctx context.Context, errorLog io.Writer) error {
	c, err := n.registryConfig()
	if err != nil {
		return err
	}
	peers, err := n.peers(c)
	if err != nil {
		return err
	}
	in := func(name string) string { return filepath.Join(n.registryDir(), name) }
	return registry.Serve(ctx, registry.ServerOptions{
		Dir:          n.registryDir(),
		Address:      net.JoinHostPort("", strconv.Itoa(c.Port)),
		CertFile:     in(certFile),
		KeyFile:      in(keyFile),
		HtpasswdFile: in(htpasswdFile),
		ReadOnly:     !c.Writable,
		PurgeUploads: c.Writable,
		Peers:        peers,
		ErrorLog:     errorLog,
		Ready:        func(a net.Addr) { n.log.Info("serving images", "address", a.String()) },
	})
}

// dialPatience is how long a host that is gone keeps one waiting.
const dialPatience = 3 * time.Second

// peers are those of the configuration; nil where there are none.
func (n *Node) peers(c RegistryConfig) (*registry.Peers, error) {
	if len(c.Peers) == 0 {
		return nil, nil
	}
	transport, err := n.registryTransport()
	if err != nil {
		return nil, err
	}
	if _, err := n.credentials(); err != nil {
		return nil, err
	}
	url := func(address string) string { return "https://" + net.JoinHostPort(address, strconv.Itoa(c.Port)) }
	login := func() (string, secret.Text, error) { // as it is now: it may change
		access, err := n.readCredentials()
		return access.Username, secret.Text(access.Password), err
	}
	p := &registry.Peers{Self: url(c.Addresses[0]), Client: &http.Client{Transport: transport}, Login: login}
	for _, address := range c.Peers {
		p.URLs = append(p.URLs, url(address))
	}
	return p, nil
}

// registryConfig reads what InitRegistry wrote.
func (n *Node) registryConfig() (c RegistryConfig, err error) {
	f, err := os.Open(filepath.Join(n.registryDir(), configFile))
	if errors.Is(err, os.ErrNotExist) {
		return c, errors.New("finding the registry's configuration: run `sealer-node registry init` first")
	}
	if err != nil {
		return c, fmt.Errorf("finding the registry's configuration: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return c, readJSON(f, "the registry's configuration", &c)
}

// Clean takes away all that sealer-node has made on this host: the registry's unit, mounts, content. What else lies in the root folder stays.
func (n *Node) Clean(ctx context.Context) error {
	if err := n.UninstallRegistry(ctx); err != nil {
		return err
	}
	if err := n.UninstallEndpoint(ctx); err != nil {
		return err
	}
	if err := n.cleanDocker(ctx); err != nil {
		return err
	}
	if _, err := os.Stat(n.rootfsDir()); err == nil {
		fs, err := n.openRootfs()
		if err != nil {
			return err
		}
		if err := fs.Wipe(ctx); err != nil {
			return err
		}
	}
	for _, dir := range []string{n.registryDir(), n.storeDir(), n.run} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("cleaning up: %w", err)
		}
	}
	if entries, err := os.ReadDir(n.root); err == nil && len(entries) == 0 {
		if err := os.Remove(n.root); err != nil {
			return fmt.Errorf("cleaning up: %w", err)
		}
	}
	return nil
}
