// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/sealerio/sealer/cluster/program"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// The steps of a control plane's registry.
const (
	stepRegistryInit    = "making the registry's certificate and credentials"
	stepRegistryPublish = "publishing the packed images"
	stepRegistryStart   = "starting the registry"
)

// registryAccess is internal/node's RegistryAccess.
type registryAccess struct {
	CA       string `json:"ca"`
	CAKey    string `json:"caKey,omitempty"`
	Username string `json:"username"`
	Password string `json:"password"`
	Changed  bool   `json:"changed,omitempty"`
}

// registries are the registries of a cluster's control planes: one CA and the same credentials, made by the first of
// them and taken over by the others.
type registries struct {
	cluster *runtime.Cluster
	made    registryAccess
	mu      sync.Mutex
	changed map[*runtime.Host]bool // what a registry that runs has to start anew for
	// rotating: what there is stays for now, although the Clusterfile says another login or CA. See rotate.go.
	rotating bool
}

// source is the control plane whose CA and credentials the others take over: one that has them already, or else the first.
func (r *registries) source() *runtime.Host {
	for _, h := range r.cluster.ControlPlanes() {
		if s := h.Facts.State; s != nil && s.Steps[stepRegistryInit] != "" {
			return h
		}
	}
	return r.cluster.First()
}

// others are the control planes that take over.
func (r *registries) others() []*runtime.Host {
	source := r.source()
	return slices.DeleteFunc(r.cluster.ControlPlanes(), func(h *runtime.Host) bool { return h == source })
}

// where stands for what a host's registry is made from.
func (r *registries) where(h *runtime.Host) string {
	reg := r.cluster.Registry
	where := reg.Endpoint() + " " + h.IP() + " with " + strings.Join(r.peers(h), ",")
	if names := r.cluster.File.Registry.Names; len(names) > 0 {
		where += " as " + strings.Join(names, ",")
	}
	return where
}

// peers are the addresses of the other registries.
func (r *registries) peers(h *runtime.Host) []string {
	return slices.DeleteFunc(slices.Clone(r.cluster.Registry.Servers), func(ip string) bool { return ip == h.IP() })
}

func (r *registries) init(h *runtime.Host) runtime.Step {
	return runtime.Step{
		Name: stepRegistryInit,
		Key:  r.where(h),
		// What is there is kept, and told: hosts need it to reach the registry.
		Done: func(ctx context.Context) (bool, error) { return true, r.prepare(ctx, h, !r.rotating, io.Discard) },
		Do:   func(ctx context.Context, log io.Writer) error { return r.prepare(ctx, h, !r.rotating, log) },
	}
}

// prepare makes what a control plane's registry needs; fromFile: from what the Clusterfile says of the login and the CA, where it does.
func (r *registries) prepare(ctx context.Context, h *runtime.Host, fromFile bool, log io.Writer) error {
	reg := &r.cluster.Registry
	args := []string{"registry", "init", "--name", reg.Domain, "--address", h.IP(), "--port", strconv.Itoa(reg.Port), "--writable"}
	for _, ip := range r.peers(h) {
		args = append(args, "--peer", ip)
	}
	own := r.cluster.File.Registry
	for _, name := range own.Names {
		args = append(args, "--alt-name", name)
	}
	var made registryAccess
	call := program.Call{Log: log, Out: &made, Secret: true}
	if h == r.source() {
		args = append(args, "--share")
		if fromFile && (own.CA != "" || own.Username != "") {
			args = append(args, "--adopt")
			call.In = registryAccess{CA: own.CA, CAKey: own.CAKey.Reveal(), Username: own.Username, Password: own.Password.Reveal()}
		}
	} else {
		args, call.In = append(args, "--adopt"), r.made
	}
	if err := call.Run(ctx, h, args...); err != nil {
		return err
	}
	if made.CA == "" || made.Username == "" || made.Password == "" {
		return errors.New("sealer-node gave no certificate or no credentials for the registry")
	}
	if made.Changed {
		r.mu.Lock()
		r.changed[h] = true
		r.mu.Unlock()
	}
	if h == r.source() {
		r.made = made
		reg.CA, reg.Username, reg.Password = []byte(made.CA), made.Username, host.Secret(made.Password)
	}
	return nil
}

// registryService is what sealer-node makes of the registry on a host.
func registryService(h *runtime.Host) runtime.Service {
	return runtime.Service{Host: h, Name: "sealer-registry"}
}

// start runs the registry, anew where its program or its peers are others.
func (r *registries) start(h *runtime.Host, digest string) runtime.Step {
	return runtime.Step{
		Name: stepRegistryStart,
		Key:  r.where(h) + " " + digest,
		Done: func(ctx context.Context) (bool, error) {
			r.mu.Lock()
			changed := r.changed[h]
			r.mu.Unlock()
			if changed {
				return false, nil
			}
			return registryService(h).Active(ctx)
		},
		Do: func(ctx context.Context, log io.Writer) error {
			return program.Call{Log: log}.Run(ctx, h, "registry", "install")
		},
	}
}

// packedNames are those of the images that img packs, each once.
func packedNames(img *clusterimage.Image) []string {
	names := []string{} // [] in JSON, not null
	for _, p := range img.Images {
		if !slices.Contains(names, p.Name) {
			names = append(names, p.Name)
		}
	}
	return names
}

// registry serves the packed images on a control plane, over TLS, with credentials made for this cluster.
func (r *run) registry(h *runtime.Host) []runtime.Step {
	if r.external() {
		return nil
	}
	return []runtime.Step{
		r.shared().init(h),
		{
			Name: stepRegistryPublish,
			Key:  r.cluster.Digest,
			Done: func(ctx context.Context) (bool, error) {
				var lacks []string
				err := program.Call{In: packedNames(r.Image), Out: &lacks, Reads: true}.Run(ctx, h, "registry", "lacks")
				return len(lacks) == 0, err
			},
			Do: func(ctx context.Context, log io.Writer) error {
				return program.Call{Log: log}.Run(ctx, h, "registry", "publish", "--image", r.cluster.Digest)
			},
		},
		r.shared().start(h, r.transfer().Binaries[h.Facts.Arch].Digest),
	}
}
