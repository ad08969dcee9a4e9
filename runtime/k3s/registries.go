// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// registries is k3s' registries.yaml, as far as a registry that stands for all others needs it
// (docs.k3s.io/installation/private-registry). The real registries are not asked after it: config.yaml says
// disable-default-registry-endpoint.
type registries struct {
	Mirrors map[string]mirror         `json:"mirrors"`
	Configs map[string]registryConfig `json:"configs"`
}

type mirror struct {
	Endpoint []string          `json:"endpoint"`
	Rewrite  map[string]string `json:"rewrite,omitempty"` // of repositories: regular expression to replacement
}

type registryConfig struct {
	Auth *registryAuth `json:"auth,omitempty"`
	TLS  *registryTLS  `json:"tls,omitempty"`
}

type registryAuth struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

type registryTLS struct {
	CAFile string `json:"ca_file"`
}

// registriesYAML is for the registry as one host asks for it: each control plane in turn. It holds the registry's
// password: mode 0600.
func registriesYAML(r runtime.Registry) ([]byte, error) {
	own := mirror{Endpoint: r.Endpoints()}
	file := registries{Mirrors: map[string]mirror{"*": own}, Configs: map[string]registryConfig{}}
	if r.External {
		if r.Path != "" {
			file.Mirrors["*"] = mirror{Endpoint: own.Endpoint, Rewrite: map[string]string{"^(.*)$": r.Path + "/$1"}}
		}
		for _, domain := range slices.Concat(runtime.CommonDomains(), r.Domains) {
			file.Mirrors[domain] = mirror{Endpoint: own.Endpoint, Rewrite: map[string]string{"^(.*)$": r.Folder(domain) + "/$1"}}
		}
	}
	file.Mirrors[r.Name()] = own // images may also be asked for by the registry's own name
	var config registryConfig
	if r.Username != "" {
		config.Auth = &registryAuth{r.Username, r.Password.Reveal()}
	}
	if len(r.CA) > 0 {
		config.TLS = &registryTLS{caFile}
	}
	for _, endpoint := range append(r.Endpoints(), "https://"+r.Name()) {
		file.Configs[strings.TrimPrefix(endpoint, "https://")] = config
	}
	data, err := yaml.Marshal(file)
	if err != nil {
		return nil, fmt.Errorf("writing registries.yaml: %w", err)
	}
	return append([]byte("# Written by sealer: all images come from the cluster's registry.\n"), data...), nil
}

// RegistryCAFile is the CA that registries.yaml names.
func (Distribution) RegistryCAFile() string { return caFile }

func registryPlaced(ctx context.Context, c *runtime.Cluster, h *runtime.Host) (bool, error) {
	want, err := registriesYAML(c.RegistryFor(h))
	if err != nil {
		return false, err
	}
	files := map[string][]byte{registriesFile: want}
	if len(c.Registry.CA) > 0 {
		files[caFile] = c.Registry.CA
	}
	for file, data := range files {
		if same, err := runtime.SameFile(ctx, h.Runner, file, data); err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

// placeRegistry takes effect when k3s starts: it makes containerd's own files of these.
func placeRegistry(ctx context.Context, c *runtime.Cluster, h *runtime.Host) error {
	data, err := registriesYAML(c.RegistryFor(h))
	if err != nil {
		return err
	}
	if len(c.Registry.CA) > 0 {
		if err := host.WriteFile(ctx, h.Runner, caFile, c.Registry.CA, 0o644); err != nil {
			return err
		}
	}
	return host.WriteFile(ctx, h.Runner, registriesFile, data, 0o600)
}

func pointing(c *runtime.Cluster, h *runtime.Host) runtime.Step {
	if onDocker(c, h) {
		return kubeletLogin(c, h)
	}
	if onContainerd(c, h) != "" {
		return pointContainerd(c, h)
	}
	return runtime.Step{
		Name: "pointing k3s at the cluster's registry",
		Done: func(ctx context.Context) (bool, error) { return registryPlaced(ctx, c, h) },
		Do:   func(ctx context.Context, _ io.Writer) error { return placeRegistry(ctx, c, h) },
	}
}
