// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"context"
	"fmt"
	"io"
	"path"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// Upgrade replaces the program while the old one runs, and then starts it anew. Containers go on running meanwhile.
func (d Distribution) Upgrade(c *runtime.Cluster, h *runtime.Host) (running, drained []runtime.Step) {
	running = []runtime.Step{{
		Name: "placing k3s " + d.KubeletVersion(c),
		Done: func(ctx context.Context) (bool, error) {
			return succeeds(ctx, h, "cmp", "-s", path.Join(h.Rootfs, "bin/k3s"), binary)
		},
		Do: func(ctx context.Context, log io.Writer) error {
			if err := host.WriteFile(ctx, h.Runner, uninstaller, uninstallScript, 0o700); err != nil {
				return err
			}
			return d.place(ctx, c, h, log)
		},
	}}
	if c.Registry.External { // the new image may have images of other domains
		running = append(running, pointing(c, h))
	}
	drained = []runtime.Step{{
		Name: "starting k3s anew",
		Done: func(ctx context.Context) (bool, error) {
			want, err := upgraded(ctx, c, h)
			if err != nil {
				return false, err
			}
			if same, err := written(ctx, h, want); err != nil || !same {
				return false, err
			}
			if fresh, err := runs(ctx, h); err != nil || !fresh {
				return false, err
			}
			return d.member(ctx, c, h)
		},
		Do: func(ctx context.Context, log io.Writer) error {
			want, err := upgraded(ctx, c, h)
			if err != nil {
				return err
			}
			if err := write(ctx, h, want); err != nil {
				return err
			}
			return d.restart(ctx, h, log, known(c, want), func(ctx context.Context) (bool, error) { return d.member(ctx, c, h) })
		},
	}}
	return running, drained
}

// upgraded are a host's settings with the sandbox image of the new ClusterImage.
func upgraded(ctx context.Context, c *runtime.Cluster, h *runtime.Host) (settings, error) {
	have, err := present(ctx, h)
	if err != nil {
		return nil, err
	}
	if have == nil {
		return nil, fmt.Errorf("%s: it has no %s: run the cluster's image again first", h, configFile)
	}
	if image := pauseImage(c); image != "" && asked(c, h)["pause-image"] == nil {
		have["pause-image"] = image
	}
	return have, nil
}

// known are the secrets in a host's settings.
func known(c *runtime.Cluster, s settings) []host.Secret {
	var t tokens
	if v, ok := s["token"].(string); ok {
		t.server = host.Secret(v)
	}
	if v, ok := s["agent-token"].(string); ok {
		t.agent = host.Secret(v)
	}
	list := secrets(c, t)
	if v, ok := s["datastore-endpoint"].(string); ok {
		list = append(list, host.Secret(v))
	}
	return list
}
