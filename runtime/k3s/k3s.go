// SPDX-License-Identifier: Apache-2.0

// Package k3s installs k3s: one program that is the whole of Kubernetes, from the bin/k3s of a ClusterImage.
//
// All settings stand in k3s' config.yaml and registries.yaml, none in a unit, an environment or an argument: k3s' own
// installer forgets those when it runs again. k3s logs a key that it does not know and goes on, so keys are checked where
// the Clusterfile is read (package clusterfile).
package k3s

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// Name is what Metadata.ClusterRuntime calls this distribution.
const Name = "k3s"

// Where things are on a host (docs.k3s.io).
const (
	binary         = "/usr/local/bin/k3s"
	configDir      = "/etc/rancher/k3s"
	configFile     = configDir + "/config.yaml"
	registriesFile = configDir + "/registries.yaml"
	caFile         = configDir + "/sealer-registry-ca.crt"
	filesDir       = configDir + "/files" // copies of the files that the Clusterfile names in the rootfs
	kubeconfig     = configDir + "/k3s.yaml"
	dataDir        = "/var/lib/rancher/k3s"
	serverToken    = dataDir + "/server/token"
	etcdData       = dataDir + "/server/db/etcd/member"
	sqliteData     = dataDir + "/server/db/state.db"
	agentCert      = dataDir + "/agent/client-kubelet.crt"
	nodePassword   = "/etc/rancher/node/password" //nolint:gosec // a path
	keptDir        = "/var/lib/sealer/k3s"        // ours; also lib.sh's STATE
	uninstaller    = keptDir + "/uninstall.sh"
)

// Distribution is k3s. Make one with New.
type Distribution struct {
	// Poll is how often a k3s that starts is asked, StartTimeout how long it may take.
	Poll, StartTimeout time.Duration
}

// New is k3s, asked every two seconds for at most ten minutes when it starts.
func New() Distribution { return Distribution{Poll: 2 * time.Second, StartTimeout: 10 * time.Minute} }

var (
	_ runtime.Distribution = Distribution{}
	_ runtime.Addressed    = Distribution{}
)

// Name is "k3s".
func (Distribution) Name() string { return Name }

// Marks are what k3s leaves. The folder of its data alone is none: a containerd of the host makes that of the pod network below it.
func (Distribution) Marks() runtime.Marks {
	return runtime.Marks{
		Name: Name, Title: "k3s",
		Started:  []string{serverToken, agentCert, dataDir + "/server", dataDir + "/data", dataDir + "/agent/containerd", configDir},
		Programs: []string{binary, "/etc/init.d/k3s", "/etc/init.d/k3s-agent"},
		Units:    []string{"k3s.service", "k3s-agent.service"},
	}
}

// Kubectl asks as cluster-admin.
func (Distribution) Kubectl() runtime.Kubectl {
	return runtime.Kubectl{Argv: []string{binary, "kubectl", "--cache-dir", keptDir + "/kubectl-cache"}, Kubeconfig: kubeconfig}
}

// KubeletVersion is k3s' own: "v1.36.3+k3s1".
func (Distribution) KubeletVersion(c *runtime.Cluster) string {
	if c.Metadata.ClusterRuntimeVersion != "" {
		return c.Metadata.ClusterRuntimeVersion
	}
	return c.KubeVersion()
}

// isServer tells the two kinds of hosts apart: servers are control planes and nodes, agents are nodes only.
func isServer(h *runtime.Host) bool { return h.Spec.Role == clusterfile.ControlPlane }

// command is k3s' word for what a host does.
func command(h *runtime.Host) string {
	if isServer(h) {
		return "server"
	}
	return "agent"
}

// Service is k3s'.
func (Distribution) Service(h *runtime.Host) runtime.Service { return service(h) }

// service is named as k3s' installer names it.
func service(h *runtime.Host) runtime.Service {
	if isServer(h) {
		return runtime.Service{Host: h, Name: "k3s"}
	}
	return runtime.Service{Host: h, Name: "k3s-agent"}
}

// succeeds asks a question whose answer is an exit status.
func succeeds(ctx context.Context, h *runtime.Host, argv ...string) (bool, error) {
	return answer(h.Runner.Run(ctx, host.Command{Argv: argv}))
}

func answer(err error) (bool, error) {
	if _, answered := errors.AsType[*host.ExitError](err); answered {
		return false, nil
	}
	return err == nil, err
}

func run(ctx context.Context, h *runtime.Host, log io.Writer, argv ...string) error {
	return h.Runner.Run(ctx, host.Command{Argv: argv, Stdout: log, Stderr: log, Mutates: true})
}

// kubectl changes something by the API server.
func (d Distribution) kubectl(ctx context.Context, h *runtime.Host, log io.Writer, args ...string) error {
	k := d.Kubectl().Command(args...)
	k.Stdout, k.Stderr, k.Mutates = log, log, true
	return h.Runner.Run(ctx, k)
}
