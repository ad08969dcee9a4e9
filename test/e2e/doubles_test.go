//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/hosts"
	"github.com/sealerio/sealer/test/lab"
)

// by hand, as the documents of k3s and k0s tell: what the doubles do without sealer. K3S_BIN and K0S_BIN put the real
// programs in their place; then K3S_INSTALL and K3S_IMAGES or K0S_IMAGES name the install script and an archive of images.

// provide gives every host the program, and the images as an archive in the folder that it looks into.
func provide(t *testing.T, program, version, images string) {
	t.Helper()
	double, err := shared.Double(t.Context(), program, version)
	require.NoError(t, err)
	files := map[string]string{"/usr/local/bin/" + program: first(os.Getenv(strings.ToUpper(program)+"_BIN"), filepath.Join(double, "bin", program))}
	if program == "k3s" {
		files["/root/k3s-install.sh"] = first(os.Getenv("K3S_INSTALL"), filepath.Join(double, "scripts", "k3s-install.sh"))
	}
	files[images+"/images.tar"] = os.Getenv(strings.ToUpper(program) + "_IMAGES")
	if files[images+"/images.tar"] == "" {
		archive := filepath.Join(t.TempDir(), "images.tar")
		require.NoError(t, lab.DoubleArchive(double, archive))
		files[images+"/images.tar"] = archive
	}
	for _, h := range shared.Hosts.Hosts {
		for to, from := range files {
			content, err := os.Open(from)
			require.NoError(t, err)
			err = h.Pipe(t.Context(), content, nil, os.Stderr, "sh", "-c", "mkdir -p $(dirname "+to+") && cat >"+to+".new && chmod 755 "+to+".new && mv "+to+".new "+to)
			require.NoError(t, errors.Join(err, content.Close()))
		}
	}
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// sh runs a script on a host and returns what it prints.
func sh(t *testing.T, h hosts.Host, script string) string {
	t.Helper()
	var out, messages bytes.Buffer
	require.NoError(t, h.Pipe(t.Context(), strings.NewReader(script), &out, &messages, "sh", "-eus"), "%s\n%s", script, &messages)
	return strings.TrimSpace(out.String())
}

// eventually runs a script until it succeeds.
func eventually(t *testing.T, h hosts.Host, script string) {
	t.Helper()
	require.NoError(t, lab.Poll(t.Context(), 2*time.Minute, func(ctx context.Context) error {
		if out, err := h.Exec(ctx, "sh", "-euc", script); err != nil {
			return fmt.Errorf("%s: %w: %s", script, err, out)
		}
		return nil
	}))
}

const ready = `%[1]s kubectl get nodes --no-headers | awk '$2 == "Ready" && $NF ~ /^%[3]s/ {n++} END {exit n != %[2]d}'`

func TestK3sByHand(t *testing.T) {
	server, agent := shared.Hosts.Hosts[0], shared.Hosts.Hosts[1]
	t.Cleanup(func() {
		for _, h := range shared.Hosts.Hosts {
			_, _ = h.Exec(context.WithoutCancel(t.Context()), "sh", "-c", "for s in k3s-agent-uninstall.sh k3s-uninstall.sh; do /usr/local/bin/$s; done; rm -rf /etc/rancher /var/lib/rancher /root/k3s-install.sh /root/.kube")
		}
	})
	provide(t, "k3s", lab.K3sVersion, "/var/lib/rancher/k3s/agent/images")
	const install = "INSTALL_K3S_SKIP_DOWNLOAD=true INSTALL_K3S_SKIP_SELINUX_RPM=true INSTALL_K3S_SKIP_START=true INSTALL_K3S_EXEC=%s sh /root/k3s-install.sh >&2\n"
	sh(t, server, "mkdir -p /etc/rancher/k3s\nprintf 'cluster-init: true\\nagent-token: 0123456789\\nnode-name: one\\n' >/etc/rancher/k3s/config.yaml\n"+
		fmt.Sprintf(install, "server")+"systemctl start --no-block k3s")
	eventually(t, server, fmt.Sprintf(ready, "k3s", 1, "v1.36.1"))

	join := "mkdir -p /etc/rancher/k3s\nprintf 'server: https://" + server.Address.String() + ":6443\\ntoken: %s\\nnode-name: two\\n' >/etc/rancher/k3s/config.yaml\n"
	sh(t, agent, fmt.Sprintf(join, "wrong")+fmt.Sprintf(install, "agent")+"systemctl start --no-block k3s-agent")
	eventually(t, agent, "journalctl -u k3s-agent -o cat | grep -qi 'not authorized'")
	require.Equal(t, "activating", sh(t, agent, "systemctl is-active k3s-agent || true"), "a start waits for ever where it cannot join")
	sh(t, agent, fmt.Sprintf(join, "0123456789")+"systemctl restart --no-block k3s-agent")
	eventually(t, server, fmt.Sprintf(ready, "k3s", 2, "v1.36.1"))
	eventually(t, server, "k3s kubectl -n kube-system rollout status deployment/coredns --timeout=5s")

	sh(t, server, "k3s kubectl drain two --ignore-daemonsets --delete-emptydir-data --timeout=60s\nk3s kubectl uncordon two")
	sh(t, agent, "rm -rf /etc/rancher/node\nsystemctl restart --no-block k3s-agent")
	eventually(t, agent, "journalctl -u k3s-agent -o cat | grep -q 'Node password rejected'")
	sh(t, server, "k3s kubectl delete node two")
	eventually(t, server, fmt.Sprintf(ready, "k3s", 2, "v1.36.1"))

	sh(t, server, "k3s etcd-snapshot save --name before >&2\nk3s etcd-snapshot ls | grep -q before-one-")
	if os.Getenv("K3S_BIN") == "" {
		provide(t, "k3s", "v1.36.2+k3s1", "/var/lib/rancher/k3s/agent/images")
		require.Contains(t, sh(t, server, "readlink /proc/$(systemctl show -p MainPID --value k3s)/exe"), "(deleted)")
		sh(t, server, "systemctl restart k3s")
		sh(t, agent, "systemctl restart k3s-agent")
		eventually(t, server, fmt.Sprintf(ready, "k3s", 2, "v1.36.2"))
	}
}

func TestK0sByHand(t *testing.T) {
	controller, worker := shared.Hosts.Hosts[0], shared.Hosts.Hosts[1]
	t.Cleanup(func() {
		for _, h := range shared.Hosts.Hosts {
			_, _ = h.Exec(context.WithoutCancel(t.Context()), "sh", "-c", "systemctl stop k0scontroller k0sworker; k0s reset; rm -rf /etc/k0s /usr/local/bin/k0s /root/.kube")
		}
	})
	provide(t, "k0s", lab.K0sVersion, "/var/lib/k0s/images")
	sh(t, controller, `mkdir -p /etc/k0s
cat >/etc/k0s/k0s.yaml <<EOF
spec:
  workerProfiles: [{name: default, values: {failCgroupV1: false}}]
EOF
k0s config validate --config /etc/k0s/k0s.yaml
k0s install controller -c /etc/k0s/k0s.yaml --enable-worker --ignore-pre-flight-checks
if k0s install controller 2>/dev/null; then exit 1; fi
systemctl start k0scontroller`)
	eventually(t, controller, "k0s status -o json")
	eventually(t, controller, fmt.Sprintf(ready, "k0s", 1, "v1.36.3"))
	token := sh(t, controller, "k0s token create --role=worker --expiry=10m")
	sh(t, worker, "mkdir -p /etc/k0s\nprintf %s "+token+" >/etc/k0s/k0stoken\nk0s install worker --token-file /etc/k0s/k0stoken --ignore-pre-flight-checks\nsystemctl start k0sworker")
	eventually(t, controller, fmt.Sprintf(ready, "k0s", 2, "v1.36.3"))

	sh(t, controller, "if k0s reset 2>/dev/null; then exit 1; fi\nk0s backup --save-path /root >&2\nrm /root/k0s_backup_*")
	sh(t, worker, "if k0s start 2>/dev/null; then exit 1; fi\nsystemctl stop k0sworker\nk0s reset >&2\ntest -e /etc/k0s/k0stoken\ntest ! -e /var/lib/k0s")
}
