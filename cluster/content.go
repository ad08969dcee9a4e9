// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/cluster/program"
	"github.com/sealerio/sealer/cluster/transfer"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// content brings the image to a host and makes its rootfs ready there.
func (r *run) content(h *runtime.Host) []runtime.Step {
	steps := []runtime.Step{
		r.transfer().Program(h),
		{
			Name: "sending the image",
			Done: func(ctx context.Context) (bool, error) {
				missing, err := r.transfer().Missing(ctx, h)
				return err == nil && len(missing) == 0, err
			},
			Do: func(ctx context.Context, log io.Writer) error { return r.transfer().Send(ctx, h, log) },
		},
		r.tag(h),
	}
	rendering := runtime.Step{
		Name: "rendering the rootfs",
		Key:  r.cluster.RootfsKey(h),
		Do:   func(ctx context.Context, log io.Writer) error { return r.render(ctx, h, log) },
	}
	if r.applied != nil && r.applied.unpacked && h.Facts.State != nil {
		steps = append(steps, runtime.Step{
			Name: "taking the rootfs back to the image's",
			Do: func(ctx context.Context, log io.Writer) error {
				return program.Call{Log: log}.Run(ctx, h, "rootfs", "remove", "--image", r.cluster.Digest)
			},
		})
		// What was rendered before is gone, whatever the host's state says of it.
		rendered := func() string { return path.Join(h.Rootfs, ".sealer-rendered") }
		rendering.Done = func(ctx context.Context) (bool, error) { return asks(ctx, h, "test", "-e", rendered()) }
		rendering.Do = func(ctx context.Context, log io.Writer) error {
			if err := r.render(ctx, h, log); err != nil {
				return err
			}
			return host.WriteFile(ctx, h.Runner, rendered(), nil, 0o600)
		}
	}
	steps = append(steps, r.mount(h))
	steps = append(steps, r.adopt(h)...)
	steps = append(steps, rendering)
	steps = append(steps, r.noteEndpoint(h)...)
	steps = append(steps, endpoint(r.cluster, r.distribution, h)...)
	if r.follows(h) {
		return append(steps, r.hostsFile(h, ""))
	}
	return append(steps, r.hostsFile(h, r.apiServerIP(h)))
}

// blobs are what a host needs: its platform's rootfs, and on control planes, which serve the packed images, those of all
// platforms among the hosts.
func (r *run) blobs(ctx context.Context, h *runtime.Host) ([]ocispec.Descriptor, error) {
	if h.Spec.Role == clusterfile.ControlPlane && !r.external() {
		var want []ocispec.Platform
		for _, other := range r.cluster.Hosts {
			p, err := platforms.Parse(other.Platform)
			if err != nil {
				return nil, fmt.Errorf("reading the platform of %s: %w", other, err)
			}
			want = append(want, p)
		}
		return r.Image.Descriptors(ctx, r.Content, want)
	}
	rootfs, err := r.Image.Platform(platformOf(h))
	if err != nil {
		return nil, err
	}
	list := []ocispec.Descriptor{r.Image.Descriptor, rootfs.Descriptor, rootfs.Manifest.Config}
	return append(list, rootfs.Manifest.Layers...), nil
}

// transfer brings it to the hosts.
func (r *run) transfer() *transfer.Transfer {
	r.transferMu.Lock()
	defer r.transferMu.Unlock()
	if r.transferred == nil {
		r.transferred = &transfer.Transfer{Content: r.Content, Blobs: r.blobs, Display: r.Display}
	}
	return r.transferred
}

// findBinaries hashes the sealer-node of every architecture among the hosts.
func (r *run) findBinaries() (err error) {
	r.transfer().Binaries, err = program.Find(r.cluster.Hosts, r.NodeBinary)
	return err
}

// asks is a question whose answer is an exit status.
func asks(ctx context.Context, h *runtime.Host, argv ...string) (bool, error) {
	return answered(h.Runner.Run(ctx, host.Command{Argv: argv}))
}

// tag keeps the image's blobs from being pruned on the host.
func (r *run) tag(h *runtime.Host) runtime.Step {
	d := r.Image.Descriptor
	return runtime.Step{
		Name: "naming the image",
		Key:  d.Digest.String() + " " + r.ImageName,
		Do: func(ctx context.Context, log io.Writer) error {
			return program.Call{Log: log}.Run(ctx, h, "content", "tag", "--name", r.ImageName, "--digest", d.Digest.String(),
				"--size", strconv.FormatInt(d.Size, 10), "--media-type", d.MediaType)
		},
	}
}

// mount unpacks and mounts the rootfs. The path is kept in the host's state, to see whether it still is.
func (r *run) mount(h *runtime.Host) runtime.Step {
	return runtime.Step{
		Name: "mounting the rootfs",
		Key:  r.cluster.Digest,
		// Mounting again what is mounted changes nothing, and tells where it is.
		Done: func(ctx context.Context) (bool, error) {
			var where struct{ Path string }
			if err := (program.Call{Out: &where}).Run(ctx, h, r.mountArgs(h)...); err != nil {
				return false, err
			}
			h.Rootfs = where.Path
			return where.Path != "", nil
		},
		Do: func(ctx context.Context, log io.Writer) error {
			var where struct{ Path string }
			if err := (program.Call{Log: log, Out: &where}).Run(ctx, h, r.mountArgs(h)...); err != nil {
				return err
			}
			if !path.IsAbs(where.Path) {
				return fmt.Errorf("sealer-node mounted the rootfs at %q", where.Path)
			}
			h.Rootfs = where.Path
			return nil
		},
	}
}

func (r *run) mountArgs(h *runtime.Host) []string {
	return []string{"rootfs", "mount", "--image", r.cluster.Digest, "--platform", h.Platform}
}

// render puts the Clusterfile's files into the rootfs, then fills in the templates.
func (r *run) render(ctx context.Context, h *runtime.Host, log io.Writer) error {
	for _, c := range r.cluster.File.Configs {
		// They may hold secrets; scripts must be executable.
		mode := fs.FileMode(0o600)
		if strings.HasPrefix(c.Path, "scripts/") || strings.HasPrefix(c.Path, "bin/") {
			mode = 0o700
		}
		data, err := c.Content(r.originals[h.Platform][c.Path])
		if err != nil {
			return err
		}
		if err := host.WriteFile(ctx, h.Runner, path.Join(h.Rootfs, c.Path), data, mode); err != nil {
			return fmt.Errorf("placing the Config %q: %w", c.Name, err)
		}
	}
	values := struct {
		Values       map[string]string            `json:"values"`
		Applications map[string]map[string]string `json:"applications,omitempty"`
	}{Values: r.values(h), Applications: map[string]map[string]string{}}
	for _, app := range r.extension().Applications {
		if env := r.appEnv(h, app.Name); len(env) > 0 {
			values.Applications[app.Name] = env
		}
	}
	return program.Call{Log: log, In: values}.Run(ctx, h, "render", "--dir", h.Rootfs)
}

// values are what templates and commands may use on a host.
func (r *run) values(h *runtime.Host) map[string]string {
	v := r.cluster.HostEnv(h)
	maps.Copy(v, r.given(h))
	return v
}

// given are the values that are sealer's own: none goes over them.
func (r *run) given(h *runtime.Host) map[string]string {
	c := r.cluster
	all := map[string]string{
		"ClusterName": c.File.Name, "KubeVersion": c.KubeVersion(), "PauseImage": c.PauseImage(),
		"HostIP": h.IP(), "HostName": h.Facts.NodeName(), "HostRole": string(h.Spec.Role),
		"RegistryDomain": c.Registry.Domain, "RegistryPort": strconv.Itoa(c.Registry.Port), "RegistryURL": path.Join(c.Registry.Name(), c.Registry.Path),
	}
	maps.Copy(all, r.derived(h, all))
	return all
}

// derived are values for what was written for older sealers. They follow from others.
func (r *run) derived(h *runtime.Host, from map[string]string) map[string]string {
	all := map[string]string{"HostIPFamily": "IPv4", "ContainerRuntime": "containerd"}
	if runtime.IsIPv6(h.IP()) {
		all["HostIPFamily"] = "IPv6"
	}
	if r.usesDocker(h) {
		all["ContainerRuntime"] = "docker"
	}
	kind := "Local"
	if r.cluster.Registry.External {
		kind = "External"
	}
	for _, name := range []string{"RegistryDomain", "RegistryPort", "RegistryURL"} {
		all[kind+name] = from[name]
	}
	if d, ok := r.distribution.(runtime.Networked); ok {
		api, dns := d.ServiceIPs(r.cluster)
		all["KubeSvcIP"], all["DNSSvcIP"] = api, dns
	}
	maps.DeleteFunc(all, func(_, value string) bool { return value == "" })
	return all
}

// lasting is an environment by which it is told whether something was done with it already, without what follows from the rest of it:
// a sealer that gives more of that does nothing anew.
func (r *run) lasting(h *runtime.Host, env []string) []string {
	derived := r.derived(h, r.given(h))
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		name, value, _ := strings.Cut(kv, "=")
		given, ok := derived[name]
		return ok && given == value
	})
}
