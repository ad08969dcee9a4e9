// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sealerio/sealer/test/hosts"
)

// clusterfile holds what this machine needs and a usual one does not: its hosts
// share a kernel with cgroup v1 hierarchies, and their root may not raise limits
// or lower OOM scores. Any user could write such documents.
const clusterfile = `apiVersion: sealer.io/v2
kind: Cluster
metadata:
  name: %s
spec:
  env: []
---
apiVersion: sealer.io/v1
kind: Config
metadata:
  name: no-oom-scores
spec:
  path: etc/containerd/conf.d/oom.toml
  data: |
    version = 3
    [plugins.'io.containerd.cri.v1.runtime']
      restrict_oom_score_adj = true
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
nodeRegistration:
  ignorePreflightErrors: [SystemVerification]
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
nodeRegistration:
  ignorePreflightErrors: [SystemVerification]
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
oomScoreAdj: 0
maxOpenFiles: 20000
imageGCHighThresholdPercent: 100
evictionHard:
  nodefs.available: "0%%"
  nodefs.inodesFree: "0%%"
  imagefs.available: "0%%"
  imagefs.inodesFree: "0%%"
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
oomScoreAdj: 0
conntrack:
  maxPerCore: 0
  min: 0
`

// WriteClusterfile writes a Clusterfile for the lab's hosts and returns its path.
func (l *Lab) WriteClusterfile(name string) (string, error) {
	path := filepath.Join(l.Dir, "Clusterfile-"+name)
	if err := os.WriteFile(path, fmt.Appendf(nil, clusterfile, name), 0o600); err != nil {
		return "", fmt.Errorf("writing the Clusterfile: %w", err)
	}
	return path, nil
}

// TrustHosts lets the sealer of root know the hosts' keys, as an operator does
// who took them over a way that is trusted.
func (l *Lab) TrustHosts(root string) error {
	dir := filepath.Join(l.Dir, root)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making sealer's folder: %w", err)
	}
	keys, err := os.ReadFile(l.Hosts.KnownHosts)
	if err != nil {
		return fmt.Errorf("reading the hosts' keys: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "known_hosts"), keys, 0o600); err != nil {
		return fmt.Errorf("writing the hosts' keys: %w", err)
	}
	return nil
}

// RunArgs are the arguments that run ShopImage on the lab's hosts: the first
// is the control plane, the others are workers.
func (l *Lab) RunArgs(clusterfile string) []string { return l.RunImageArgs(l.ShopImage(), clusterfile) }

// RunImageArgs are RunArgs for another image.
func (l *Lab) RunImageArgs(image, clusterfile string) []string {
	args := []string{"run", image, "-f", clusterfile, "--pk", l.Hosts.KeyFile, "--masters", l.Hosts.Hosts[0].Address.String()}
	var workers []string
	for _, h := range l.Hosts.Hosts[1:] {
		workers = append(workers, h.Address.String())
	}
	if len(workers) > 0 {
		args = append(args, "--nodes", strings.Join(workers, ","))
	}
	return args
}

// Kubectl runs kubectl on the first control plane.
func (l *Lab) Kubectl(ctx context.Context, args ...string) (string, error) {
	out, err := l.Hosts.Hosts[0].Exec(ctx, append([]string{"kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf"}, args...)...)
	return strings.TrimSpace(string(out)), err
}

// ReadyNodes are the names of the nodes that are Ready.
func (l *Lab) ReadyNodes(ctx context.Context) ([]string, error) {
	out, err := l.Kubectl(ctx, "get", "nodes", "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct {
				Conditions []struct{ Type, Status string }
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, fmt.Errorf("reading the list of nodes: %w", err)
	}
	var ready []string
	for _, n := range list.Items {
		for _, c := range n.Status.Conditions {
			if c.Type == "Ready" && c.Status == "True" {
				ready = append(ready, n.Metadata.Name)
			}
		}
	}
	return ready, nil
}

// Poll calls check once a second until it gives no error, or for at most limit;
// the error is then check's last one.
func Poll(ctx context.Context, limit time.Duration, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (waited %s: %w)", err, limit, ctx.Err())
		case <-tick.C:
		}
	}
}

// WaitForNodes waits until want nodes are Ready.
func (l *Lab) WaitForNodes(ctx context.Context, want int, limit time.Duration) error {
	return Poll(ctx, limit, func(ctx context.Context) error {
		ready, err := l.ReadyNodes(ctx)
		if err == nil && len(ready) != want {
			err = fmt.Errorf("%d of %d nodes are Ready", len(ready), want)
		}
		return err
	})
}

// shopPort is the node port of the workload's service.
const shopPort = "30080"

// GetShop asks the workload on every host and returns what each answered.
func (l *Lab) GetShop(ctx context.Context, limit time.Duration) ([]string, error) {
	var answers []string
	for _, h := range l.Hosts.Hosts {
		answer, err := l.GetShopOn(ctx, h, limit)
		if err != nil {
			return nil, err
		}
		answers = append(answers, answer)
	}
	return answers, nil
}

// GetShopOn asks the workload on one host, for at most limit until it answers.
func (l *Lab) GetShopOn(ctx context.Context, h hosts.Host, limit time.Duration) (answer string, err error) {
	return l.Get(ctx, h, shopPort, limit)
}

// Get asks a node port of a host, for at most limit until it answers.
func (l *Lab) Get(ctx context.Context, h hosts.Host, port string, limit time.Duration) (answer string, err error) {
	url := "http://" + h.Address.String() + ":" + port + "/"
	err = Poll(ctx, limit, func(ctx context.Context) error {
		answer, err = get(ctx, url)
		return err
	})
	return answer, err
}

func get(ctx context.Context, url string) (_ string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("asking the workload: %w", err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return "", fmt.Errorf("asking %s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("asking %s: %s", url, resp.Status)
	}
	return strings.TrimSpace(string(text)), nil
}
