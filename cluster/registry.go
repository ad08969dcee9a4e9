// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"io"
	"strconv"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// registry serves the packed images on the first control plane, over TLS, with credentials made there.
func (r *run) registry(h *runtime.Host) []runtime.Step {
	where := r.cluster.Registry.Endpoint() + " " + h.IP()
	return []runtime.Step{
		{
			Name: "making the registry's certificate and credentials",
			Key:  where,
			// What is there is kept, and told: hosts need it to reach the registry.
			Done: func(ctx context.Context) (bool, error) { return true, r.initRegistry(ctx, h, io.Discard) },
			Do:   func(ctx context.Context, log io.Writer) error { return r.initRegistry(ctx, h, log) },
		},
		{
			Name: "publishing the packed images",
			Key:  r.cluster.Digest,
			Do: func(ctx context.Context, log io.Writer) error {
				return nodeCall{log: log}.run(ctx, h, "registry", "publish", "--image", r.cluster.Digest)
			},
		},
		{
			Name: "starting the registry",
			Key:  where + " " + r.binaries[h.Facts.Arch].digest,
			Done: func(ctx context.Context) (bool, error) {
				return asks(ctx, h, "systemctl", "is-active", "--quiet", "sealer-registry.service")
			},
			Do: func(ctx context.Context, log io.Writer) error {
				return nodeCall{log: log}.run(ctx, h, "registry", "install")
			},
		},
	}
}

func (r *run) initRegistry(ctx context.Context, h *runtime.Host, log io.Writer) error {
	reg := &r.cluster.Registry
	var made struct {
		CA       string `json:"ca"`
		Username string `json:"username"`
		Password string `json:"password"`
	}
	err := nodeCall{log: log, out: &made, secret: true}.run(ctx, h, "registry", "init",
		"--name", reg.Domain, "--address", h.IP(), "--port", strconv.Itoa(reg.Port))
	if err != nil {
		return err
	}
	if made.CA == "" || made.Username == "" || made.Password == "" {
		return errors.New("sealer-node gave no certificate or no credentials for the registry")
	}
	reg.CA, reg.Username, reg.Password = []byte(made.CA), made.Username, host.Secret(made.Password)
	return nil
}
