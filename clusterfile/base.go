// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// BasePath is where an image has its default Clusterfile, and PluginDir its plugins, from the root of the rootfs.
const (
	BasePath  = "etc/Clusterfile"
	PluginDir = "plugins"
)

// ParsePart reads a Clusterfile that may go without a Cluster, and without hosts.
func ParsePart(name string, src []byte) (*File, error) { return parse(name, src, true) }

// ParseBase reads the default Clusterfile of an image. Unlike a user's it may go without a Cluster, and without hosts; other
// images than its own, which nobody would have at hand where the image is run, it must not name; nor secrets of the machine where it is run,
// which is an *ImageSecretError. Those of its login count for nothing anyway.
func ParseBase(name string, src []byte) (*File, error) {
	f, err := parse(name, src, true)
	if err != nil {
		return f, err
	}
	if len(f.ApplicationImages) > 0 {
		return f, fmt.Errorf("%s: the application %q has an image of its own: only a user's Clusterfile may name one", name, f.ApplicationImages[0].Name)
	}
	rest := *f
	rest.SSH, rest.Hosts = SSH{}, nil
	err = rest.ResolveSecrets(func(r Reference) (Secret, error) { return "", &ImageSecretError{name, r} })
	if secret, ok := errors.AsType[*ImageSecretError](err); ok {
		return f, secret
	}
	return f, err
}

// ImageSecretError is an image's Clusterfile that asks for a secret of whoever runs it.
type ImageSecretError struct {
	File      string
	Reference Reference
}

func (e *ImageSecretError) Error() string {
	return fmt.Sprintf("%s: it refers to the secret %q of the machine where the image is run: an image must not choose among those", e.File, e.Reference)
}

// Hint says where it belongs.
func (e *ImageSecretError) Hint() string {
	return "leave it out of the image: the user's Clusterfile says it"
}

// Over is f with what it leaves open filled from base, the image's default. Environment, kubeadm's, k3s' and k0s' documents go over those
// of base field by field; Configs and plugins over those of the same name; lists of hosts, commands and applications
// as a whole. The name of the cluster is f's alone. Of base's login come the user, the port and the key, for hosts that say none of their own: an image
// has no passwords, and a jump host, which is given those of the others, is the operator's to name. Neither is changed.
func (f *File) Over(base *File) *File {
	out := *f
	out.Env = joined(base.Env, f.Env)
	if out.Image == "" {
		out.Image = base.Image
	}
	if f.Cmd == nil {
		out.Cmd = base.Cmd
	}
	if f.Apps == nil {
		out.Apps = base.Apps
	}
	login := base.SSH.open()
	out.SSH, out.Hosts = f.SSH.Over(login), slices.Clone(f.Hosts)
	for i, h := range out.Hosts {
		out.Hosts[i].SSH = h.SSH.Over(login)
	}
	if len(f.Hosts) == 0 {
		out.Hosts = slices.Clone(base.Hosts)
		for i, h := range out.Hosts {
			out.Hosts[i].SSH = f.SSH.Over(h.SSH.open())
		}
	}
	if !f.Registry.said() {
		out.Registry = base.Registry
	}
	if !f.Endpoint.Said() {
		out.Endpoint = base.Endpoint
	}
	out.Aliases = slices.Concat(base.Aliases, f.Aliases)
	out.Configs = over(base.Configs, f.Configs, func(c Config) string { return c.Name + "\x00" + c.Path })
	out.Plugins = over(base.Plugins, f.Plugins, func(p Plugin) string { return p.Name })
	out.Applications = nil
	for _, a := range over(base.Applications, f.Applications, func(a Application) string { return a.Name }) {
		if under, ok := base.Application(a.Name); ok {
			a.Env = joined(under.Env, a.Env)
			if a.Cmds == nil {
				a.Cmds = under.Cmds
			}
		}
		out.Applications = append(out.Applications, a)
	}
	out.Kubeadm = map[string]map[string]any{}
	for _, kind := range slices.Sorted(maps.Keys(joined(base.Kubeadm, f.Kubeadm))) {
		out.Kubeadm[kind] = overlay(base.Kubeadm[kind], f.Kubeadm[kind])
	}
	if base.K0s != nil || f.K0s != nil {
		out.K0s = overlay(base.K0s, f.K0s)
	}
	switch {
	case base.K3s == nil:
	case f.K3s == nil:
		out.K3s = base.K3s
	default:
		out.K3s = &K3s{
			Server: joined(base.K3s.Server, f.K3s.Server), Agent: joined(base.K3s.Agent, f.K3s.Agent), IgnoreChecks: f.K3s.IgnoreChecks,
		}
		if f.K3s.IgnoreChecks == nil {
			out.K3s.IgnoreChecks = base.K3s.IgnoreChecks
		}
	}
	return &out
}

// open is the login without passwords, and without a jump host.
func (s SSH) open() SSH { return SSH{User: s.User, Port: s.Port, KeyFile: s.KeyFile} }

func joined[V any](base, over map[string]V) map[string]V {
	all := map[string]V{}
	maps.Copy(all, base)
	maps.Copy(all, over)
	return all
}

// over is base, in which those of the same key are replaced, with the others behind.
func over[T any](base, with []T, key func(T) string) []T {
	out := slices.Clone(base)
	for _, w := range with {
		if i := slices.IndexFunc(out, func(b T) bool { return key(b) == key(w) }); i >= 0 {
			out[i] = w
			continue
		}
		out = append(out, w)
	}
	return out
}
