// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"context"
	"fmt"
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
	Endpoint []string `json:"endpoint"`
}

type registryConfig struct {
	Auth registryAuth `json:"auth"`
	TLS  registryTLS  `json:"tls"`
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
	all := mirror{Endpoint: r.Endpoints()}
	file := registries{
		Mirrors: map[string]mirror{"*": all, r.Endpoint(): all}, // images may also be asked for by the registry's own name
		Configs: map[string]registryConfig{},
	}
	for _, endpoint := range append(r.Endpoints(), "https://"+r.Endpoint()) {
		file.Configs[strings.TrimPrefix(endpoint, "https://")] = registryConfig{
			Auth: registryAuth{r.Username, r.Password.Reveal()}, TLS: registryTLS{caFile},
		}
	}
	data, err := yaml.Marshal(file)
	if err != nil {
		return nil, fmt.Errorf("writing registries.yaml: %w", err)
	}
	return append([]byte("# Written by sealer: all images come from the cluster's own registry.\n"), data...), nil
}

func registryPlaced(ctx context.Context, c *runtime.Cluster, h *runtime.Host) (bool, error) {
	want, err := registriesYAML(c.RegistryFor(h))
	if err != nil {
		return false, err
	}
	for file, data := range map[string][]byte{registriesFile: want, caFile: c.Registry.CA} {
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
	if err := host.WriteFile(ctx, h.Runner, caFile, c.Registry.CA, 0o644); err != nil {
		return err
	}
	return host.WriteFile(ctx, h.Runner, registriesFile, data, 0o600)
}
