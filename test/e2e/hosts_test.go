//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/test/hosts"
	"github.com/sealerio/sealer/test/lab"
)

// shopRoot is the root whose store the tests of this file share.
const shopRoot = "shop"

// requireShop gives root a store that holds the shop image.
func requireShop(t *testing.T, root string) {
	t.Helper()
	if _, err := shared.Run(t.Context(), shopRoot, "pull", shared.ShopImage()); err != nil {
		_, err := shared.BuildBase(t.Context(), "maker")
		require.NoError(t, err)
		_, err = shared.BuildShop(t.Context(), "maker")
		require.NoError(t, err)
		sealer(t, "maker", "push", shared.ShopImage())
		sealer(t, shopRoot, "pull", shared.ShopImage())
	}
	if root == shopRoot {
		return
	}
	require.NoError(t, os.MkdirAll(filepath.Join(shared.Dir, root), 0o700))
	err := os.Symlink(filepath.Join(shared.Dir, shopRoot, "store"), filepath.Join(shared.Dir, root, "store"))
	if !errors.Is(err, os.ErrExist) {
		require.NoError(t, err)
	}
}

// ownFiles are the operator's own on a host that is both.
var ownFiles = []string{"/var/lib/sealer/logs", "/var/lib/sealer/clusters ", "/var/lib/sealer/clusters/.operator "}

func withoutOwnFiles(snapshot string) string {
	var kept strings.Builder
next:
	for line := range strings.Lines(snapshot) {
		for _, own := range ownFiles {
			if strings.HasPrefix(line, own) {
				continue next
			}
		}
		kept.WriteString(line)
	}
	return kept.String()
}

// The cluster is the machine that sealer runs on, installed as its users do it, without SSH.
func TestLocal(t *testing.T) {
	const clusterfile = "/var/lib/sealer/Clusterfile"
	requireShop(t, shopRoot)
	h := shared.Hosts.Hosts[0]
	file, err := shared.WriteClusterfile("my-cluster")
	require.NoError(t, err)
	copyTo(t, h, "/usr/local/bin", filepath.Join(shared.Source, "bin"), "sealer", "sealer-node")
	copyTo(t, h, "/var/lib/sealer", filepath.Join(shared.Dir, shopRoot), "store")
	copyTo(t, h, "/var/lib/sealer", shared.Dir, filepath.Base(file))
	onHost(t, h, "mv", "/var/lib/sealer/"+filepath.Base(file), clusterfile)
	undo(t, h, "sh", "-c", "sealer delete --all --yes; rm -rf /usr/local/bin/sealer /usr/local/bin/sealer-node /var/lib/sealer")
	before := snapshots(t)

	run := []string{"sealer", "run", shared.ShopImage(), "-f", clusterfile}
	require.Contains(t, onHost(t, h, run...), `cluster "my-cluster" runs on 1 host`)
	require.NoError(t, shared.WaitForNodes(t.Context(), 1, time.Minute))
	answer, err := shared.GetShopOn(t.Context(), h, time.Minute)
	require.NoError(t, err)
	require.Equal(t, "hello from docker.io/sealer-test/hello:v1", answer)
	require.Contains(t, onHost(t, h, run...), "nothing to change")

	taints, err := shared.Kubectl(t.Context(), "get", "nodes", "-o", "jsonpath={.items[*].spec.taints}")
	require.NoError(t, err)
	require.Empty(t, taints, "pods can run nowhere else")

	onHost(t, h, "sealer", "delete", "--all", "--yes")
	after := snapshots(t)
	for host := range after {
		before[host], after[host] = withoutOwnFiles(before[host]), withoutOwnFiles(after[host])
	}
	unchanged(t, before, after)
	require.Contains(t, onHost(t, h, "sealer", "images", "-o", "json"), shared.ShopImage())
}

// copyTo puts files and folders of dir into the folder to of a host.
func copyTo(t *testing.T, h hosts.Host, to, dir string, names ...string) {
	t.Helper()
	onHost(t, h, "mkdir", "-p", to)
	pack := exec.CommandContext(t.Context(), "tar", append([]string{"-C", dir, "-cf", "-"}, names...)...)
	packed, err := pack.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, pack.Start())
	require.NoError(t, h.Pipe(t.Context(), packed, io.Discard, io.Discard, "tar", "-C", to, "--no-same-owner", "-xf", "-"))
	require.NoError(t, pack.Wait())
}

// onHost runs a program on a host and returns what it printed.
func onHost(t *testing.T, h hosts.Host, argv ...string) string {
	t.Helper()
	out, err := h.Exec(t.Context(), argv...)
	require.NoError(t, err, string(out))
	return string(out)
}

// undo runs a program on a host when the test is over.
func undo(t *testing.T, h hosts.Host, argv ...string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	t.Cleanup(func() {
		out, err := h.Exec(ctx, argv...)
		require.NoError(t, err, string(out))
	})
}

// A login that is not root, on hosts without a default route, and others who come between.
func TestSudo(t *testing.T) {
	const root, name = "sudo", "sudo"
	requireShop(t, root)
	require.NoError(t, shared.TrustHosts(root))
	file, err := shared.WriteClusterfile(name)
	require.NoError(t, err)
	for _, h := range shared.Hosts.Hosts {
		route := strings.Fields(onHost(t, h, "ip", "route", "show", "default"))
		require.NotEmpty(t, route)
		onHost(t, h, "ip", "route", "del", "default")
		undo(t, h, append([]string{"ip", "route", "add"}, route...)...)
	}
	before := snapshots(t)
	login := []string{"-u", shared.Hosts.SudoUser}
	remove := append([]string{"delete", "--all", "--yes", "--name", name, "--pk", shared.Hosts.KeyFile}, login...)
	ctx := context.WithoutCancel(t.Context())
	t.Cleanup(func() {
		if t.Failed() { // the next test wants clean hosts
			_, err := shared.Run(ctx, root, remove...)
			t.Log(err)
		}
	})

	cmd := shared.Command(t.Context(), root, append(append(shared.RunArgs(file), login...), "--progress", "plain")...)
	var said bytes.Buffer
	cmd.Stderr = &said
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	testOthers(t, root, file, cmd.Process.Pid)
	require.NoError(t, <-ended, said.String())

	require.NoError(t, shared.WaitForNodes(t.Context(), 2, time.Minute))
	answers, err := shared.GetShop(t.Context(), time.Minute)
	require.NoError(t, err)
	require.Equal(t, []string{"hello from docker.io/sealer-test/hello:v1", "hello from docker.io/sealer-test/hello:v1"}, answers)
	service, err := shared.Kubectl(t.Context(), "get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}")
	require.NoError(t, err)
	for _, h := range shared.Hosts.Hosts {
		require.Contains(t, onHost(t, h, "curl", "-sk", "--max-time", "10", "https://"+service+"/version"), "gitVersion", h.Name)
	}

	sealer(t, root, remove...)
	unchanged(t, before, snapshots(t))
}

// testOthers tries the same cluster from the same machine and from another one, while the process pid makes it.
func testOthers(t *testing.T, root, file string, pid int) {
	t.Helper()
	args := append(shared.RunArgs(file), "--progress", "none")
	require.NoError(t, poll(t, func() error {
		_, err := os.Stat(filepath.Join(shared.Dir, root, "clusters", "sudo", "holder.json"))
		return err
	}))
	_, stderr, code := runAny(t, root, args...)
	require.Equal(t, 1, code, stderr)
	holder := "is being worked on by root on "
	process := fmt.Sprintf("(process %d, sealer run), since ", pid)
	require.Contains(t, stderr, `the cluster "sudo" `+holder)
	require.Contains(t, stderr, process)
	const other = "colleague"
	requireShop(t, other)
	require.NoError(t, shared.TrustHosts(other))
	require.NoError(t, poll(t, func() error {
		_, err := shared.Hosts.Hosts[0].Exec(t.Context(), "test", "-s", "/run/lock/sealer-operator")
		return err
	}))
	_, stderr, code = runAny(t, other, args...)
	require.Equal(t, 1, code, stderr)
	require.Contains(t, stderr, shared.Hosts.Hosts[0].Address.String()+": it "+holder)
	require.Contains(t, stderr, process)
	require.NoDirExists(t, filepath.Join(shared.Dir, other, "clusters", "sudo"))
}

func poll(t *testing.T, check func() error) error {
	t.Helper()
	return lab.Poll(t.Context(), 30*time.Second, func(context.Context) error { return check() })
}

// Whatever stands in the way is told before anything is changed.
func TestRefused(t *testing.T) {
	const root, name = "refused", "refused"
	requireShop(t, root)
	file, err := shared.WriteClusterfile(name)
	require.NoError(t, err)
	first, second := shared.Hosts.Hosts[0], shared.Hosts.Hosts[1]
	nobody := addressOf(t, 200)
	withKey := append(shared.RunArgs(file), "--progress", "plain")
	for _, test := range []struct {
		name  string
		setup func(t *testing.T)
		args  []string
		env   []string
		want  []string
		check func(t *testing.T)
	}{
		{
			name: "a wrong password is sent once to each host",
			args: append(passwordArgs(file), "--progress", "plain"), env: []string{"SEALER_SSH_PASSWD=wrong"},
			want: []string{first.Address.String(), second.Address.String(), `logging in as "root": refused: tried password`, "hint:", "nothing was changed"},
			check: func(t *testing.T) {
				for _, h := range shared.Hosts.Hosts {
					log := onHost(t, h, "journalctl", "--no-pager", "-o", "cat", "-u", "ssh")
					require.Equal(t, 1, strings.Count(log, "Failed password for root"), log)
				}
			},
		},
		{
			name: "an address that nobody has",
			args: []string{"run", shared.ShopImage(), "-f", file, "--pk", shared.Hosts.KeyFile, "--masters", first.Address.String(), "--nodes", nobody},
			want: []string{nobody + ": connecting: ", "1 failed, nothing was changed", "check the address and port"},
		},
		{
			name: "ports in use",
			setup: func(t *testing.T) {
				for i, port := range []string{"6443", "5000"} {
					unit := fmt.Sprintf("squatter%d", i)
					onHost(t, first, "systemd-run", "--quiet", "--unit", unit, "socat", "TCP-LISTEN:"+port+",fork,reuseaddr", "/dev/null")
					undo(t, first, "systemctl", "stop", unit)
					require.NoError(t, poll(t, func() error {
						_, err := first.Exec(t.Context(), "sh", "-c", "ss -Hlnt | grep -q :"+port)
						return err
					}))
				}
			},
			args: withKey,
			want: []string{"2 problems, nothing was changed", "the port 6443 is in use by socat [port]", "the port 5000 is in use by socat [port]", "stop what listens"},
		},
		{
			name: "no nameserver",
			setup: func(t *testing.T) {
				onHost(t, second, "mv", "/etc/resolv.conf", "/etc/resolv.conf.kept")
				undo(t, second, "mv", "/etc/resolv.conf.kept", "/etc/resolv.conf")
			},
			args: withKey,
			want: []string{second.Address.String() + ": it has no nameserver", "[dns]", "an address that nobody has will do", "nothing was changed"},
		},
		{
			name: "what others have half installed",
			setup: func(t *testing.T) {
				onHost(t, second, "sh", "-c", "mkdir /etc/kubernetes && touch /etc/kubernetes/admin.conf /etc/kubernetes/kubelet.conf")
				undo(t, second, "rm", "-r", "/etc/kubernetes")
			},
			args: withKey,
			want: []string{second.Address.String() + ": Kubernetes by kubeadm (/etc/kubernetes/", "is installed on it, and not by sealer [foreign]", "never takes over"},
		},
		{
			name: "a host key that has changed",
			setup: func(t *testing.T) {
				known := filepath.Join(shared.Dir, root, "known_hosts")
				keys, err := os.ReadFile(known)
				require.NoError(t, err)
				swapped := strings.NewReplacer(first.Address.String(), second.Address.String(), second.Address.String(), first.Address.String()).Replace(string(keys))
				require.NoError(t, os.WriteFile(known, []byte(swapped), 0o600))
			},
			args: append(withKey, "--accept-new-host-keys"),
			want: []string{first.Address.String() + ": checking the host key: it has CHANGED", "known_hosts:1", "someone may be listening in"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.NoError(t, shared.TrustHosts(root))
			if test.setup != nil {
				test.setup(t)
			}
			before := snapshots(t)
			cmd := shared.Command(t.Context(), root, test.args...)
			cmd.Env = append(append(cmd.Env, "HOME="+t.TempDir(), "SSH_AUTH_SOCK="), test.env...) // no key but the one named
			var out, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &stderr
			began := time.Now()
			require.Error(t, cmd.Run())
			require.Less(t, time.Since(began), 45*time.Second)
			require.Equal(t, 1, cmd.ProcessState.ExitCode())
			require.Empty(t, out.String())
			for _, text := range test.want {
				require.Contains(t, stderr.String(), text)
			}
			unchanged(t, before, snapshots(t))
			require.NoDirExists(t, filepath.Join(shared.Dir, root, "clusters", name))
			if test.check != nil {
				test.check(t)
			}
		})
	}
	t.Run("a dry run shows the plan", func(t *testing.T) {
		require.NoError(t, shared.TrustHosts(root))
		before := snapshots(t)
		plan := sealer(t, root, append(withKey, "--dry-run")...)
		for _, text := range []string{
			`cluster "refused" of ` + shared.ShopImage() + " on 2 hosts",
			first.Address.String() + ": starting the control plane (kubeadm init)",
			second.Address.String() + ": joining the cluster (kubeadm join)",
			"CMD 2: kubectl apply -f manifests/hello.yaml",
		} {
			require.Contains(t, plan, text)
		}
		unchanged(t, before, snapshots(t))
		require.NoDirExists(t, filepath.Join(shared.Dir, root, "clusters", name))
	})
}

// addressOf is an address of the hosts' network with the last part n.
func addressOf(t *testing.T, n byte) string {
	t.Helper()
	gateway := shared.Hosts.Gateway.As4()
	gateway[3] = n
	address, ok := netip.AddrFromSlice(gateway[:])
	require.True(t, ok)
	return address.String()
}

// A password on the command line does not stay there, where every user of the machine can read it.
func TestPassword(t *testing.T) {
	const root, word = "password", "correct-horse-battery"
	requireShop(t, root)
	silent, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0") // takes connections, and says nothing
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, silent.Close()) })
	_, port, err := net.SplitHostPort(silent.Addr().String())
	require.NoError(t, err)
	for _, flag := range [][]string{{"-p", word}, {"-p" + word}, {"--passwd=" + word}, {"--passwd", word}} {
		t.Run(strings.Join(flag, " "), func(t *testing.T) {
			args := append([]string{"run", shared.ShopImage(), "--masters", "127.0.0.1", "--progress", "plain"}, flag...)
			cmd := shared.Command(t.Context(), root, append(args, "--port", port)...)
			cmd.Env = append(cmd.Env, "HOME="+t.TempDir(), "SSH_AUTH_SOCK=")
			var out, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &stderr
			require.NoError(t, cmd.Start())
			err := poll(t, func() error {
				line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
				if err == nil && bytes.Contains(line, []byte(word)) {
					err = fmt.Errorf("the arguments are %q", line)
				}
				if err == nil && !bytes.Contains(line, []byte("\x00--port\x00"+port)) {
					err = fmt.Errorf("it has ended: %q", line)
				}
				return err
			})
			require.NoError(t, errors.Join(err, cmd.Process.Signal(os.Interrupt)))
			require.Error(t, cmd.Wait())
			require.Equal(t, 130, cmd.ProcessState.ExitCode(), stderr.String())
			require.NotContains(t, out.String()+stderr.String(), word)
		})
	}
	requireNotBelow(t, filepath.Join(shared.Dir, root), "the password", word)
}
