// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/internal/progress"
	"github.com/sealerio/sealer/runtime"
)

// maxParallel bounds how many hosts are worked on at once.
const maxParallel = 64

// ConnectError is every host that could not be reached or asked.
type ConnectError struct {
	Errs []error
	// Hosts are their addresses, where a run found them: Hosts[i] is that of Errs[i]. Else it is empty.
	Hosts []string
}

func (e *ConnectError) Error() string {
	lines := []string{fmt.Sprintf("connecting to the hosts: %d failed, nothing was changed", len(e.Errs))}
	for _, err := range e.Errs {
		lines = append(lines, "  "+err.Error())
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find what happened to each host.
func (e *ConnectError) Unwrap() []error { return e.Errs }

// connect dials all hosts at once and gathers their facts; all failures are
// one *ConnectError. Where unreachable is given, it is told of hosts that
// fail, and they are left out instead.
func connect(ctx context.Context, f *clusterfile.File, dial DialFunc, marks []runtime.Marks, d *progress.Display, unreachable func(clusterfile.Host, error)) (*runtime.Cluster, func() error, error) {
	machines := f.Machines()
	found := make([]*runtime.Host, len(machines))
	errs := make([]error, len(machines))
	task := d.Task("connecting to " + hosts(len(machines)))
	var g errgroup.Group
	g.SetLimit(maxParallel)
	for i, m := range machines {
		g.Go(func() error {
			h := &runtime.Host{Spec: m}
			if h.Runner, errs[i] = dial(ctx, m); errs[i] != nil {
				return nil
			}
			found[i] = h
			h.Facts, errs[i] = runtime.Gather(ctx, h.Runner, runtime.OwnRuntime(marks, f, m.Role))
			expectName(h)
			return nil
		})
	}
	_ = g.Wait()
	c := &runtime.Cluster{File: f}
	closeAll := func() error {
		var errs []error
		for _, h := range found {
			if h == nil {
				continue
			}
			if closer, ok := h.Runner.(io.Closer); ok {
				errs = append(errs, closer.Close())
			}
		}
		return errors.Join(errs...)
	}
	var failed []error
	for i, h := range found {
		switch {
		case errs[i] == nil:
			c.Hosts = append(c.Hosts, h)
		case unreachable != nil && ctx.Err() == nil:
			unreachable(machines[i], errs[i])
		default:
			failed = append(failed, errs[i])
		}
	}
	if len(failed) > 0 {
		err := &ConnectError{Errs: failed}
		task.Done(err)
		return nil, nil, errors.Join(err, closeAll())
	}
	task.Done(nil)
	useRegistry(c)
	return c, closeAll, nil
}

// describe tells the cluster what the image holds for its hosts.
func describe(c *runtime.Cluster, o RunOptions) {
	c.Digest = o.Image.Descriptor.Digest.String()
	c.Env = map[string]string{}
	seen := map[string]bool{}
	for _, p := range o.Image.Images {
		if !seen[p.Name] {
			seen[p.Name] = true
			c.Images = append(c.Images, p.Name)
		}
	}
	c.Registry.Domains = domains(c.Images)
	for _, h := range c.Hosts {
		r, err := o.Image.Platform(platformOf(h))
		if err != nil || r.Absent {
			continue // Preflight says so
		}
		h.Platform = platforms.Format(platforms.Normalize(r.Platform))
		h.DiskNeed = diskNeed(h, o.Image, r, c.Registry.External)
	}
	for _, r := range o.Image.Rootfs {
		if r.Absent {
			continue
		}
		labels := r.Config.Config.Labels
		c.Metadata = clusterimage.Metadata{
			ClusterRuntime:        labels[clusterimage.LabelClusterRuntime],
			ClusterRuntimeVersion: labels[clusterimage.LabelClusterRuntimeVersion],
			ContainerRuntime:      labels[clusterimage.LabelContainerRuntime],
		}
		c.Env = rootfsEnv(r)
		return
	}
}

// ImageEnv is the environment that an image gives to templates and commands.
func ImageEnv(image *clusterimage.Image) map[string]string {
	for _, r := range image.Rootfs {
		if !r.Absent {
			return rootfsEnv(r)
		}
	}
	return map[string]string{}
}

func rootfsEnv(r clusterimage.Rootfs) map[string]string {
	env := map[string]string{}
	for _, kv := range r.Config.Config.Env {
		if name, value, ok := strings.Cut(kv, "="); ok && name != "PATH" {
			env[name] = value
		}
	}
	maps.Copy(env, r.Extension.Env)
	return env
}

func platformOf(h *runtime.Host) ocispec.Platform {
	return ocispec.Platform{OS: "linux", Architecture: h.Facts.Arch}
}

// How large things become: a zstd layer unpacks to about three times its size, and its programs are then copied
// to where they run; container images are unpacked where their pods run. reserve is for logs, etcd and the like.
const (
	rootfsGrowth = 5
	imageGrowth  = 3
	reserve      = 1 << 30
)

// diskNeed is what the image takes on a host: the blobs sent to it, and what is unpacked from them.
func diskNeed(h *runtime.Host, img *clusterimage.Image, r clusterimage.Rootfs, external bool) int64 {
	need := int64(reserve)
	for _, l := range r.Manifest.Layers {
		need += l.Size * rootfsGrowth
	}
	for _, p := range img.Images {
		if p.Platform == h.Platform {
			need += p.Size * imageGrowth
		}
		if h.Spec.Role == clusterfile.ControlPlane && !external {
			need += p.Size
		}
	}
	return need
}
