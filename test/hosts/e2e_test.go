// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package hosts_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/sealerio/sealer/test/hosts"
)

// childVariable makes TestMain of a copy of this test binary bring up hosts and wait to be killed.
const childVariable = "SEALER_TEST_HOSTS_CHILD"

func TestMain(m *testing.M) {
	if name := os.Getenv(childVariable); name != "" {
		set, err := hosts.Up(context.Background(), hosts.Options{Name: name, OwnEngine: true})
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Println("up", len(set.Hosts))
		select {}
	}
	os.Exit(m.Run())
}

// setName is the name of the tests' hosts: two runs on one machine need two.
func setName() string {
	if name := os.Getenv("SEALER_LAB"); name != "" {
		return name
	}
	return "e2e"
}

func options(t *testing.T, name string, count int) hosts.Options {
	return hosts.Options{Name: name, Count: count, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

// up makes hosts and takes them down after the test.
func up(t *testing.T, o hosts.Options) *hosts.Set {
	t.Helper()
	set, err := hosts.Up(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		assert.NoError(t, set.Down(ctx))
	})
	return set
}

func login(t *testing.T, set *hosts.Set, h hosts.Host, user string, auth ssh.AuthMethod) *ssh.Client {
	t.Helper()
	known, err := knownhosts.New(set.KnownHosts)
	require.NoError(t, err)
	client, err := ssh.Dial("tcp", h.Address.String()+":22", &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{auth}, HostKeyCallback: known,
		HostKeyAlgorithms: []string{h.HostKey.Type()}, Timeout: 30 * time.Second,
	})
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

func sshRun(t *testing.T, client *ssh.Client, command string) string {
	t.Helper()
	session, err := client.NewSession()
	require.NoError(t, err)
	defer session.Close()
	out, err := session.CombinedOutput(command)
	require.NoError(t, err, string(out))
	return strings.TrimSpace(string(out))
}

func keyOf(t *testing.T, set *hosts.Set) ssh.AuthMethod {
	t.Helper()
	data, err := os.ReadFile(set.KeyFile)
	require.NoError(t, err)
	signer, err := ssh.ParsePrivateKey(data)
	require.NoError(t, err)
	return ssh.PublicKeys(signer)
}

func execOK(t *testing.T, h hosts.Host, argv ...string) string {
	t.Helper()
	out, err := h.Exec(t.Context(), argv...)
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}

func TestUp_TwoHosts(t *testing.T) {
	before := snapshot(t)
	t.Run("hosts", func(t *testing.T) {
		set := up(t, options(t, setName(), 2))
		require.Len(t, set.Hosts, 2)
		first, second := set.Hosts[0], set.Hosts[1]

		t.Run("ssh", func(t *testing.T) { testSSH(t, set) })
		t.Run("state", func(t *testing.T) {
			for _, h := range set.Hosts {
				assert.Equal(t, "running", execOK(t, h, "systemctl", "is-system-running"))
				assert.Equal(t, h.Name, execOK(t, h, "hostname"))
				assert.Contains(t, execOK(t, h, "getent", "hosts", h.Name), h.Address.String())
			}
		})
		t.Run("identity", func(t *testing.T) {
			for _, file := range []string{"/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub", "/etc/ssh/ssh_host_ecdsa_key.pub"} {
				a, b := execOK(t, first, "cat", file), execOK(t, second, "cat", file)
				assert.NotEmpty(t, a, file)
				assert.NotEqual(t, a, b, file)
			}
		})
		t.Run("empty of what the product brings", func(t *testing.T) {
			for _, program := range []string{"kubelet", "kubeadm", "kubectl", "containerd", "runc", "docker", "ctr", "crictl", "k3s", "k0s"} {
				_, err := first.Exec(t.Context(), "sh", "-c", "command -v "+program)
				var exit *exec.ExitError
				assert.ErrorAs(t, err, &exit, program)
			}
			assert.Empty(t, execOK(t, first, "sh", "-c", "ls /etc/apt/sources.list.d; cat /etc/apt/sources.list 2>/dev/null || true"))
			assert.Empty(t, execOK(t, first, "nft", "list", "ruleset"))
		})
		t.Run("network", func(t *testing.T) { testNetwork(t, set) })
		t.Run("container images can be unpacked", func(t *testing.T) {
			for _, dir := range []string{"/var/lib/probe", "/tmp/probe"} {
				execOK(t, first, "sh", "-c", "mkdir -p "+dir+" && cd "+dir+" && mkdir l u w m && "+
					"mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m && touch m/x && test -e u/x && umount m")
			}
		})
		t.Run("files of the engine are out of the way", func(t *testing.T) {
			execOK(t, first, "sh", "-c", "cp /etc/hosts /etc/hosts.new && echo 198.51.100.7 example >>/etc/hosts.new && mv /etc/hosts.new /etc/hosts")
			assert.NotContains(t, execOK(t, first, "cat", "/etc/resolv.conf"), "127.0.0.")
		})
		t.Run("restart", func(t *testing.T) { testRestart(t, set) })
		t.Run("pause", func(t *testing.T) {
			require.NoError(t, second.Pause(t.Context()))
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			assert.ErrorIs(t, second.Wait(ctx), context.DeadlineExceeded)
			require.NoError(t, second.Resume(t.Context()))
			require.NoError(t, second.Wait(t.Context()))
		})
		t.Run("busy", func(t *testing.T) {
			child := exec.CommandContext(t.Context(), os.Args[0])
			child.Env = append(os.Environ(), childVariable+"="+set.Name)
			out, err := child.CombinedOutput()
			require.Error(t, err)
			assert.Contains(t, string(out), fmt.Sprintf("test hosts %q are in use by process %d (", set.Name, os.Getpid()))
		})
		t.Run("error of a program", func(t *testing.T) {
			_, err := first.Exec(t.Context(), "sh", "-c", "echo why >&2; exit 7")
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit)
			assert.Equal(t, 7, exit.ExitCode())
			assert.ErrorContains(t, err, "on h1 ("+first.Address.String()+"): running docker exec: exit status 7: why")
		})
		disturbSettings(t, first)
	})
	before.same(t)
}

func testSSH(t *testing.T, set *hosts.Set) {
	for _, h := range set.Hosts {
		for _, user := range []string{"root", set.SudoUser} {
			for how, auth := range map[string]ssh.AuthMethod{"key": keyOf(t, set), "password": ssh.Password(set.Password)} {
				client := login(t, set, h, user, auth)
				assert.Equal(t, user, sshRun(t, client, "id -un"), how)
				assert.Equal(t, "0", sshRun(t, client, "sudo -n id -u"), how)
			}
		}
	}
	known, err := knownhosts.New(set.KnownHosts)
	require.NoError(t, err)
	// The file knows one type of key. A client that lets the server choose gets another one and must refuse it.
	_, err = ssh.Dial("tcp", set.Hosts[0].Address.String()+":22", &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{keyOf(t, set)}, HostKeyCallback: known,
		HostKeyAlgorithms: []string{ssh.KeyAlgoECDSA256},
	})
	var mismatch *knownhosts.KeyError
	assert.ErrorAs(t, err, &mismatch)
	_, err = ssh.Dial("tcp", set.Hosts[0].Address.String()+":22", &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.Password("wrong")}, HostKeyCallback: known,
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
	})
	assert.ErrorContains(t, err, "unable to authenticate")
}

func testNetwork(t *testing.T, set *hosts.Set) {
	first, second := set.Hosts[0], set.Hosts[1]
	banner := execOK(t, first, "timeout", "10", "bash", "-c", "exec 3<>/dev/tcp/"+second.Address.String()+"/22; head -c 7 <&3")
	assert.Equal(t, "SSH-2.0", banner)

	// What listens on the machine's side of the bridge is reachable.
	listener, err := net.Listen("tcp", net.JoinHostPort(set.Gateway.String(), "0"))
	require.NoError(t, err)
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, "hello")
			conn.Close()
		}
	}()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	assert.Equal(t, "hello", execOK(t, first, "timeout", "10", "bash", "-c", "cat </dev/tcp/"+set.Gateway.String()+"/"+port))

	// Nothing else is: not the machine's other addresses, nor the world (an address for documentation stands for it).
	for _, address := range append(otherAddresses(t, set), "198.51.100.1") {
		for _, h := range set.Hosts {
			_, err := h.Exec(t.Context(), "ip", "route", "get", address)
			assert.ErrorContains(t, err, "Network is unreachable", "%s from %s", address, h)
			_, err = h.Exec(t.Context(), "timeout", "5", "bash", "-c", "exec 3<>/dev/tcp/"+address+"/80")
			assert.ErrorContains(t, err, "Network is unreachable", "%s from %s", address, h)
		}
	}
	begin := time.Now()
	_, err = first.Exec(t.Context(), "getent", "hosts", "registry.example")
	assert.Error(t, err)
	assert.Less(t, time.Since(begin), 10*time.Second)
}

func otherAddresses(t *testing.T, set *hosts.Set) []string {
	t.Helper()
	var others []string
	addrs, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, a := range addrs {
		ip, _, err := net.ParseCIDR(a.String())
		require.NoError(t, err)
		if ip.To4() != nil && !ip.IsLoopback() && ip.String() != set.Gateway.String() {
			others = append(others, ip.String())
		}
	}
	return others
}

func testRestart(t *testing.T, set *hosts.Set) {
	h := set.Hosts[0]
	mark := func() []string {
		return []string{
			execOK(t, h, "cat", "/etc/machine-id"), execOK(t, h, "cat", "/etc/hosts"), execOK(t, h, "cat", "/etc/resolv.conf"),
			execOK(t, h, "cat", "/etc/ssh/ssh_host_ed25519_key.pub"), execOK(t, h, "hostname", "--all-ip-addresses"),
			execOK(t, h, "ip", "route"), execOK(t, h, "cat", "/var/lib/mark"),
		}
	}
	boot := func() string { return execOK(t, h, "systemctl", "show", "--property", "UserspaceTimestamp") }
	execOK(t, h, "sh", "-c", "echo here >/var/lib/mark; sync")
	want := mark()

	for how, restart := range map[string]func() error{
		"restart":       func() error { return h.Restart(t.Context()) },
		"stop, start":   func() error { return errors.Join(h.Stop(t.Context()), h.Start(t.Context())) },
		"power failure": func() error { return errors.Join(h.Kill(t.Context()), h.Start(t.Context())) },
		"reboot from inside": func() error {
			client := login(t, set, h, "root", keyOf(t, set))
			session, err := client.NewSession()
			require.NoError(t, err)
			_ = session.Run("systemctl reboot") // may or may not see its own end
			waited := make(chan error, 1)
			go func() { waited <- client.Wait() }()
			select {
			case <-waited:
			case <-time.After(time.Minute):
				t.Error("the connection outlives the reboot")
			}
			return h.Wait(t.Context())
		},
	} {
		earlier := boot()
		require.NoError(t, restart(), how)
		assert.NotEqual(t, earlier, boot(), how)
		// Over SSH with the first known_hosts: the key is the same.
		assert.Equal(t, "running", sshRun(t, login(t, set, h, "root", keyOf(t, set)), "systemctl is-system-running --wait"), how)
		assert.Equal(t, want, mark(), how)
	}
}

// disturbSettings does to the machine what a kubelet does.
func disturbSettings(t *testing.T, h hosts.Host) {
	t.Helper()
	for _, setting := range []string{
		"vm.overcommit_memory=1", "kernel.panic=10", "kernel.panic_on_oops=1", "kernel.keys.root_maxkeys=1000001",
		"vm.panic_on_oom=0", "fs.inotify.max_user_instances=16384",
	} {
		execOK(t, h, "sysctl", "-w", setting)
	}
}

func TestUp_DefaultRoute(t *testing.T) {
	o := options(t, setName(), 1)
	o.DefaultRoute = true
	set := up(t, o)
	h := set.Hosts[0]
	assert.Contains(t, execOK(t, h, "ip", "route", "show", "default"), "default via ")
	_, err := h.Exec(t.Context(), "timeout", "4", "bash", "-c", "exec 3<>/dev/tcp/198.51.100.1/80")
	assert.Error(t, err)
	require.NoError(t, h.Restart(t.Context()))
	assert.Contains(t, execOK(t, h, "ip", "route", "show", "default"), "default via ")
}

func TestUp_AfterKilledRun(t *testing.T) {
	for _, engineToo := range []bool{false, true} {
		t.Run("engine killed too: "+strconv.FormatBool(engineToo), func(t *testing.T) {
			name := setName()
			before := snapshot(t)
			child := exec.Command(os.Args[0])
			child.Env = append(os.Environ(), childVariable+"="+name)
			out, err := child.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, child.Start())
			answer := make([]byte, 200)
			n, err := out.Read(answer)
			require.NoError(t, err)
			require.Equal(t, "up 1\n", string(answer[:n]))
			require.NoError(t, child.Process.Kill())
			require.Error(t, child.Wait())
			if engineToo {
				data, err := os.ReadFile("/run/sealer-hosts/" + name + "/engine/docker.pid")
				require.NoError(t, err)
				pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
				require.NoError(t, err)
				process, err := os.FindProcess(pid)
				require.NoError(t, err)
				require.NoError(t, process.Kill())
			}
			t.Run("again", func(t *testing.T) {
				o := options(t, name, 2)
				o.OwnEngine = true
				set := up(t, o)
				assert.Len(t, set.Hosts, 2)
				disturbSettings(t, set.Hosts[0])
			})
			before.same(t)
		})
	}
}

func TestUp_Cancelled(t *testing.T) {
	before := snapshot(t)
	for _, after := range []time.Duration{300 * time.Millisecond, 900 * time.Millisecond, 1500 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		set, err := hosts.Up(ctx, options(t, setName(), 3))
		cancel()
		if err == nil { // a fast machine
			require.NoError(t, set.Down(t.Context()))
			continue
		}
		require.ErrorIs(t, err, context.DeadlineExceeded)
		before.same(t)
	}
}

func TestUp_TwoSetsAndDetached(t *testing.T) {
	before := snapshot(t)
	t.Run("sets", func(t *testing.T) {
		o := options(t, setName(), 1)
		o.Detached = true
		a := up(t, o)
		b := up(t, options(t, setName()+"-b", 1))
		assert.False(t, a.Subnet.Overlaps(b.Subnet))
		assert.NotEqual(t, a.Password, b.Password)

		_, err := hosts.Up(t.Context(), options(t, setName(), 1))
		var busy *hosts.BusyError
		require.ErrorAs(t, err, &busy)
		opened, err := hosts.Open(t.Context(), setName())
		require.NoError(t, err)
		assert.Equal(t, a.Hosts[0].Address, opened.Hosts[0].Address)
		assert.Equal(t, "h1", execOK(t, opened.Hosts[0], "hostname"))
		names, err := hosts.Names()
		require.NoError(t, err)
		assert.Subset(t, names, []string{setName(), setName() + "-b"})
	})
	before.same(t)
}

// TestUp_ManyTimes is the answer to how often it fails; SEALER_TEST_HOSTS_TIMES says how many times.
func TestUp_ManyTimes(t *testing.T) {
	times, err := strconv.Atoi(os.Getenv("SEALER_TEST_HOSTS_TIMES"))
	if err != nil {
		t.Skip("SEALER_TEST_HOSTS_TIMES is not set")
	}
	before := snapshot(t)
	for i := range times {
		begin := time.Now()
		set, err := hosts.Up(t.Context(), options(t, setName(), 3))
		require.NoError(t, err, "round %d", i+1)
		took := time.Since(begin)
		begin = time.Now()
		require.NoError(t, set.Down(t.Context()), "round %d", i+1)
		t.Logf("round %d: up %.1f s, down %.1f s", i+1, took.Seconds(), time.Since(begin).Seconds())
		before.same(t)
	}
}

// machine is what of the machine has to be the same after hosts as before.
type machine struct {
	facts  map[string][]string
	others []string // sets of other people, who may be at work on the same machine
}

func snapshot(t *testing.T) machine {
	t.Helper()
	names, err := hosts.Names()
	require.NoError(t, err)
	own := []string{setName(), setName() + "-b"}
	ours := regexp.MustCompile(`(sealer-hosts[-/]|/engines/)` + setName() + `(-b)?(?m:[/ ]|$)`)
	names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(own, name) })
	m := machine{facts: map[string][]string{}, others: names}
	read := func(what string, argv ...string) {
		out, err := exec.Command(argv[0], argv[1:]...).Output()
		require.NoError(t, err, what)
		for line := range strings.Lines(string(out)) {
			m.facts[what] = append(m.facts[what], strings.TrimSpace(line))
		}
		slices.Sort(m.facts[what])
	}
	m.facts["settings"] = settings(t)
	read("mounts", "cat", "/proc/mounts")
	m.facts["mounts"] = slices.DeleteFunc(m.facts["mounts"], func(line string) bool { // tests of other packages mount too
		return !ours.MatchString(line)
	})
	read("links", "ls", "/sys/class/net")
	read("addresses", "ip", "-oneline", "address", "show")
	read("routes", "ip", "route")
	read("packet filter", "nft", "--stateless", "list", "ruleset")
	for _, name := range own {
		for _, pattern := range []string{"/sys/fs/cgroup/sealer-hosts-", "/sys/fs/cgroup/*/sealer-hosts-", "/run/sealer-hosts/"} {
			found, err := filepath.Glob(pattern + name + "/*")
			require.NoError(t, err)
			m.facts["files"] = append(m.facts["files"], found...)
		}
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	for _, dir := range processes {
		group, _ := os.ReadFile(filepath.Join(dir, "cgroup")) // it may have ended
		arguments, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		if ours.Match(group) || ours.Match(arguments) {
			m.facts["processes"] = append(m.facts["processes"], dir+" "+string(arguments))
		}
	}
	return m
}

// settings reads every kernel setting except for those that only count, and those of single interfaces.
func settings(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("sysctl", "-a").Output()
	require.NoError(t, err)
	var kept []string
	for line := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(line, " =")
		counts := slices.ContainsFunc([]string{"-state", "-nr", "ns_last_pid", "random.", "quota.", "nf_conntrack_count", "fs.binfmt_misc.", "sched_", "pty.nr"},
			func(part string) bool { return strings.Contains(name, part) })
		if !counts && !strings.Contains(name, ".veth") {
			kept = append(kept, strings.TrimSpace(line))
		}
	}
	return kept
}

// same fails the test if anything of ours is left. With other people's hosts on the machine, what they change too is
// nobody's in particular and not looked at.
func (m machine) same(t *testing.T) {
	t.Helper()
	now := snapshot(t)
	whats := []string{"files", "processes", "packet filter"}
	if len(m.others)+len(now.others) == 0 {
		whats = append(whats, "settings", "mounts", "links", "addresses", "routes")
	} else {
		t.Logf("other sets are up: %v, %v", m.others, now.others)
	}
	for _, what := range whats {
		assert.Equal(t, m.facts[what], now.facts[what], what)
	}
}
