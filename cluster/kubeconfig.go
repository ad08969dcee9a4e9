// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/sealerio/sealer/host"
)

// Kubeconfig is the cluster's admin kubeconfig, with its server at the cluster's endpoint, or else at the address of a control plane that answers, or at
// server where that is given: a host, host:port or URL. Its contexts are called after the cluster. It holds the admin's key.
func (v *View) Kubeconfig(ctx context.Context, server string) ([]byte, error) {
	contact, err := v.contact()
	if err != nil {
		return nil, err
	}
	data, err := host.ReadFile(ctx, contact.Runner, v.distribution.Kubectl().Kubeconfig)
	if err != nil {
		return nil, err
	}
	var config map[string]any
	if err := yaml.Unmarshal(data, &config); err != nil {
		return nil, fmt.Errorf("%s: reading the kubeconfig: %w", contact, err)
	}
	clusters, _ := config["clusters"].([]any)
	users, _ := config["users"].([]any)
	if len(clusters) == 0 || len(users) == 0 {
		return nil, fmt.Errorf("%s: reading the kubeconfig: it names no cluster or no user", contact)
	}
	entry, _ := clusters[0].(map[string]any)
	about, _ := entry["cluster"].(map[string]any)
	user, _ := users[0].(map[string]any)
	now, _ := about["server"].(string)
	if about == nil || user == nil {
		return nil, fmt.Errorf("%s: reading the kubeconfig: it has no server or no user", contact)
	}
	if server == "" {
		server = v.cluster.File.Endpoint.HostPort(apiPort(v.cluster, v.distribution))
	}
	if server == "" {
		server = contact.IP()
	}
	if about["server"], err = serverURL(now, server); err != nil {
		return nil, err
	}
	name := v.cluster.File.Name
	admin := name + "-admin"
	out, err := yaml.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "preferences": map[string]any{}, "current-context": name,
		"clusters": []any{map[string]any{"name": name, "cluster": about}},
		"users":    []any{map[string]any{"name": admin, "user": user["user"]}},
		"contexts": []any{map[string]any{"name": name, "context": map[string]any{"cluster": name, "user": admin}}},
	})
	if err != nil {
		return nil, fmt.Errorf("writing the kubeconfig: %w", err)
	}
	return out, nil
}

// serverURL is the URL now with its host, or its host and port, replaced.
func serverURL(now, server string) (string, error) {
	u, err := url.Parse(now)
	if err != nil || u.Host == "" {
		return "", fmt.Errorf("reading the kubeconfig: its server %q is no URL", now)
	}
	if given, err := url.Parse(server); err == nil && given.Scheme == "https" && given.Host != "" {
		return server, nil
	}
	name, port, err := net.SplitHostPort(server)
	if err != nil {
		name, port = strings.TrimSuffix(strings.TrimPrefix(server, "["), "]"), u.Port()
	}
	if name == "" {
		return "", errors.New("writing the kubeconfig: the server has no name")
	}
	u.Host = strings.TrimSuffix(net.JoinHostPort(name, port), ":")
	return u.String(), nil
}
