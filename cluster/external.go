// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/sealerio/sealer/cluster/program"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/runtime"
)

// ImagePusher brings packed images to a registry that is no part of the cluster.
type ImagePusher interface {
	// Check finds what Push would stop at: images that cannot go there, a registry that does not answer, or does not take the login.
	Check(ctx context.Context, p ImagePush) error
	// Lacks are the names of packed images that the registry does not have as they are packed.
	Lacks(ctx context.Context, p ImagePush) ([]string, error)
	// Push sends the packed images that the registry lacks. How it goes on is told to log.
	Push(ctx context.Context, p ImagePush, log io.Writer) error
}

// ImagePush is what is pushed where.
type ImagePush struct {
	Image    *clusterimage.Image
	Registry clusterfile.ExternalRegistry
	// Aliases are names that need not be known anywhere else.
	Aliases []clusterfile.Alias
	// Through dials from a host of the cluster, for a registry that this machine does not reach; nil: there is none.
	Through func(ctx context.Context, network, address string) (net.Conn, error)
	// ThroughHost is its name, for messages.
	ThroughHost string
}

// dialer is a connection to a host that can make others from there.
type dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// useRegistry tells the cluster which registry its Clusterfile asks for.
func useRegistry(c *runtime.Cluster) {
	f := c.File.Registry
	if e := f.External; e != nil {
		c.Registry = runtime.Registry{
			Domains: c.Registry.Domains,
			Domain:  e.Domain, Port: e.Port, External: true, Path: e.Path, CA: []byte(e.CA), Username: e.Username, Password: e.Password,
		}
		return
	}
	c.Registry.Domain, c.Registry.Port, c.Registry.External, c.Registry.Path = f.Domain, f.Port, false, ""
	if len(c.Hosts) > 0 {
		c.Registry.Servers = controlPlaneIPs(c)
	}
}

// domains are those of images, each once.
func domains(images []string) []string {
	var list []string
	for _, name := range images {
		if domain, _, ok := strings.Cut(name, "/"); ok && !slices.Contains(list, domain) {
			list = append(list, domain)
		}
	}
	return list
}

// external tells whether hosts have their images from a registry that is no part of the cluster.
func (r *run) external() bool { return r.cluster.Registry.External }

func (r *run) imagePush() ImagePush {
	f := r.cluster.File
	p := ImagePush{Image: r.Image, Registry: *f.Registry.External, Aliases: f.Aliases}
	if h := r.lead(); h.Runner != nil {
		if d, ok := h.Runner.(dialer); ok {
			p.Through, p.ThroughHost = d.DialContext, h.String()
		}
	}
	return p
}

var errNoPusher = errors.New("this command cannot push images to an external registry")

// checkExternal asks the external registry, before anything is touched, whether it will take the packed images.
func (r *run) checkExternal(ctx context.Context) error {
	if !r.external() {
		return nil
	}
	for _, rootfs := range r.Image.Rootfs {
		if rootfs.Extension.RegistryTree != nil {
			return &TreeError{Image: r.ImageName}
		}
	}
	if r.Pusher == nil {
		return errNoPusher
	}
	return r.Pusher.Check(ctx, r.imagePush())
}

// TreeError is an image of an older tool, whose packed images lie in its rootfs as a registry's files.
type TreeError struct{ Image string }

func (e *TreeError) Error() string {
	return fmt.Sprintf("the image %q has its packed images as the files of a registry, which are not pushed to an external one", e.Image)
}

// Hint says what can be done.
func (e *TreeError) Hint() string {
	return "leave externalRegistry out of the Clusterfile: the control planes serve them; or build the image anew with sealer build"
}

// pushExternal sends the packed images to the external registry.
func (r *run) pushExternal(*runtime.Host) []runtime.Step {
	if !r.external() {
		return nil
	}
	e := r.cluster.File.Registry.External
	return []runtime.Step{{
		Name: "pushing the packed images to " + e.Host(),
		Key:  r.cluster.Digest + " " + e.Endpoint() + "/" + e.Path,
		Done: func(ctx context.Context) (bool, error) { // it may be another one by the same name, or have lost what it had
			if r.Pusher == nil {
				return false, errNoPusher
			}
			lacks, err := r.Pusher.Lacks(ctx, r.imagePush())
			return len(lacks) == 0, err
		},
		Do: func(ctx context.Context, log io.Writer) error {
			if r.Pusher == nil {
				return errNoPusher
			}
			return r.Pusher.Push(ctx, r.imagePush(), log)
		},
	}}
}

// stepAskRegistry is done on every host before anything is installed there.
const stepAskRegistry = "asking the external registry"

// askExternal makes sure that a host reaches the external registry, trusts it, and has a login that it takes.
func (r *run) askExternal(h *runtime.Host) []runtime.Step {
	if !r.external() {
		return nil
	}
	reg := r.cluster.Registry
	sum := sha256.Sum256(slices.Concat(reg.CA, []byte("\n"+reg.Username+"\n"+reg.Password.Reveal())))
	return []runtime.Step{{
		Name: stepAskRegistry,
		Key:  fmt.Sprintf("%s %s %s", reg.Endpoint(), reg.Username, hex.EncodeToString(sum[:8])),
		Do: func(ctx context.Context, log io.Writer) error {
			in := registryAccess{CA: string(reg.CA), Username: reg.Username, Password: reg.Password.Reveal()}
			err := program.Call{Log: log, In: in, Reads: true, Secret: true}.Run(ctx, h, "registry", "ask", "--server", reg.Endpoint())
			if err != nil {
				return &ExternalError{Host: h.String(), Registry: reg.Endpoint(), Err: err}
			}
			return nil
		},
	}}
}

// ExternalError is a host that cannot have images from the external registry.
type ExternalError struct {
	Host, Registry string
	Err            error
}

func (e *ExternalError) Error() string {
	return fmt.Sprintf("%s: it has no images from the registry %s: %v", e.Host, e.Registry, e.Err)
}

func (e *ExternalError) Unwrap() error { return e.Err }

// Hint says what hosts need.
func (e *ExternalError) Hint() string {
	return "every host has to find the registry's name (hostAliases in the Clusterfile), reach its port, and trust its certificate (ca); see the host's own words above"
}

// pushed brings an application's packed images to the external registry.
func (a *appRun) pushed(h *runtime.Host) []runtime.Step {
	steps := a.pushExternal(h)
	for i := range steps {
		steps[i].Name = a.stepName(steps[i].Name)
		do := steps[i].Do
		steps[i].Do = func(ctx context.Context, log io.Writer) error {
			if err := a.checkExternal(ctx); err != nil {
				return err
			}
			return do(ctx, log)
		}
	}
	return steps
}

// pointed lets hosts ask the external registry for an application's domains, where they were not told of them yet.
func (a *appRun) pointed(h *runtime.Host) []runtime.Step {
	d, ok := a.distribution.(runtime.Repointer)
	if !a.external() || !ok || h.Lost != nil {
		return nil
	}
	return d.Repoint(a.cluster, h)
}

// reachable finds domains that hosts with an external registry cannot be told of while they run.
func (a *appRun) reachable() error {
	if _, ok := a.distribution.(runtime.Repointer); !a.external() || ok {
		return nil
	}
	known := append(runtime.CommonDomains(), a.cluster.Registry.Name())
	var unknown []string
	for _, domain := range a.cluster.Registry.Domains {
		if !slices.Contains(known, domain) {
			unknown = append(unknown, domain)
		}
	}
	if len(unknown) > 0 {
		return &DomainsError{Distribution: a.distribution.Name(), Domains: unknown}
	}
	return nil
}

// DomainsError is an application with images of domains that hosts do not ask the external registry for.
type DomainsError struct {
	Distribution string
	Domains      []string
}

func (e *DomainsError) Error() string {
	return fmt.Sprintf("the application has images of %s, which hosts of %s cannot be told to have from the external registry while they run", strings.Join(e.Domains, ", "), e.Distribution)
}

// Hint says what works.
func (e *DomainsError) Hint() string {
	return "pack an image of these domains into the cluster's own image, too, or name the application's images by the external registry's name"
}
