// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/internal/blobstream"
	"github.com/sealerio/sealer/runtime"
)

// content brings the image to a host and makes its rootfs ready there.
func (r *run) content(h *runtime.Host) []runtime.Step {
	steps := []runtime.Step{
		r.spreadBinary(h),
		{
			Name: "sending the image",
			Done: func(ctx context.Context) (bool, error) {
				missing, err := r.missing(ctx, h)
				return err == nil && len(missing) == 0, err
			},
			Do: func(ctx context.Context, log io.Writer) error { return r.send(ctx, h, log) },
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
				return nodeCall{log: log}.run(ctx, h, "rootfs", "remove", "--image", r.cluster.Digest)
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
	steps = append(steps, endpoint(r.cluster, r.distribution, h)...)
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

type wantedBlob struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
}

type missingBlob struct {
	Digest digest.Digest `json:"digest"`
	Offset int64         `json:"offset"`
}

// missing asks the host which blobs it lacks, from which byte on.
func (r *run) missing(ctx context.Context, h *runtime.Host) ([]blobstream.Header, error) {
	blobs, err := r.blobs(ctx, h)
	if err != nil {
		return nil, err
	}
	sizes := map[digest.Digest]int64{}
	var want []wantedBlob
	for _, b := range blobs {
		if _, seen := sizes[b.Digest]; !seen {
			sizes[b.Digest] = b.Size
			want = append(want, wantedBlob{b.Digest, b.Size})
		}
	}
	var lacks []missingBlob
	if err := (nodeCall{in: want, out: &lacks, reads: true}).run(ctx, h, "content", "missing"); err != nil {
		return nil, err
	}
	headers := make([]blobstream.Header, 0, len(lacks))
	for _, m := range lacks {
		size, asked := sizes[m.Digest]
		if !asked || m.Offset < 0 || m.Offset > size {
			return nil, fmt.Errorf("%s: sealer-node asks for %s from byte %d, which was not offered", h, m.Digest, m.Offset)
		}
		headers = append(headers, blobstream.Header{Digest: m.Digest, Size: size, Offset: m.Offset})
	}
	return headers, nil
}

// sendTries is how often a stream that was cut is taken up again within one run.
const sendTries = 4

// send brings what is missing, from other hosts as far as possible, and goes on where a lost connection has left off. The last try, and
// all to a host that is alone, is a stream from here: nothing but SSH is needed for that.
func (r *run) send(ctx context.Context, h *runtime.Host, log io.Writer) error {
	var err error
	for try := range sendTries {
		var missing []blobstream.Header
		if missing, err = r.missing(ctx, h); err != nil || len(missing) == 0 {
			return err
		}
		if r.single() || try == sendTries-1 {
			err = r.stream(ctx, h, missing, log)
		} else {
			err = r.sharing().bring(ctx, h, log)
		}
		_, lost := errors.AsType[*host.LostError](err)
		_, left := errors.AsType[*sharingError](err)
		if !lost && !left || ctx.Err() != nil {
			return err
		}
		_, _ = fmt.Fprintf(log, "the connection was lost: going on (%v)\n", err)
	}
	return err
}

func (r *run) stream(ctx context.Context, h *runtime.Host, blobs []blobstream.Header, log io.Writer) error {
	total := int64(0)
	for _, b := range blobs {
		total += b.Size - b.Offset
	}
	counter := counterOf(log, fmt.Sprintf("%d blobs", len(blobs)), total)
	in, out := io.Pipe()
	go func() {
		w := blobstream.NewWriter(out)
		for _, b := range blobs {
			if err := r.writeBlob(ctx, w, b, counter); err != nil {
				_ = out.CloseWithError(err) // the reader gets it
				return
			}
		}
		_ = out.CloseWithError(w.Close())
	}()
	var got struct {
		Blobs int   `json:"blobs"`
		Bytes int64 `json:"bytes"`
	}
	err := nodeCall{log: log, stdin: in, out: &got}.run(ctx, h, "content", "receive")
	counter.Done(err)
	_ = in.Close() // ends the writer, where the command ended first
	if err == nil && got.Blobs != len(blobs) {
		err = fmt.Errorf("%s: sealer-node took %d of %d blobs", h, got.Blobs, len(blobs))
	}
	return err
}

func (r *run) writeBlob(ctx context.Context, w *blobstream.Writer, b blobstream.Header, c advancer) (err error) {
	at, err := r.Content.ReaderAt(ctx, ocispec.Descriptor{Digest: b.Digest, Size: b.Size})
	if err != nil {
		return fmt.Errorf("reading %s: %w", b.Digest, err)
	}
	defer func() { err = errors.Join(err, at.Close()) }()
	return w.Blob(b, &counting{io.NewSectionReader(at, b.Offset, b.Size-b.Offset), c})
}

// tag keeps the image's blobs from being pruned on the host.
func (r *run) tag(h *runtime.Host) runtime.Step {
	d := r.Image.Descriptor
	return runtime.Step{
		Name: "naming the image",
		Key:  d.Digest.String() + " " + r.ImageName,
		Do: func(ctx context.Context, log io.Writer) error {
			return nodeCall{log: log}.run(ctx, h, "content", "tag", "--name", r.ImageName, "--digest", d.Digest.String(),
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
			if err := (nodeCall{out: &where}).run(ctx, h, r.mountArgs(h)...); err != nil {
				return false, err
			}
			h.Rootfs = where.Path
			return where.Path != "", nil
		},
		Do: func(ctx context.Context, log io.Writer) error {
			var where struct{ Path string }
			if err := (nodeCall{log: log, out: &where}).run(ctx, h, r.mountArgs(h)...); err != nil {
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
	return nodeCall{log: log, in: values}.run(ctx, h, "render", "--dir", h.Rootfs)
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
	return map[string]string{
		"ClusterName": c.File.Name, "KubeVersion": c.KubeVersion(), "PauseImage": c.PauseImage(),
		"HostIP": h.IP(), "HostName": h.Facts.NodeName(), "HostRole": string(h.Spec.Role),
		"RegistryDomain": c.Registry.Domain, "RegistryPort": strconv.Itoa(c.Registry.Port), "RegistryURL": path.Join(c.Registry.Name(), c.Registry.Path),
	}
}
