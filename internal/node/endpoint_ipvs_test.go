// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/sealerio/sealer/internal/goldenfile"
	"github.com/sealerio/sealer/internal/node"
	"github.com/sealerio/sealer/test/kernel"
)

const (
	virtual = "169.254.197.2:6443"
	mainPID = "/tmp/main-pid"
)

// A worker whose kernel balances, from its installation until nothing is left of it.
func TestEndpoint_IPVS(t *testing.T) {
	if !kernel.Inside() {
		kernel.Run(t, "ip_vs_rr")
		return
	}
	require.NoError(t, os.Mkdir("/bin", 0o755))
	require.NoError(t, os.Link("/init", "/bin/systemctl"))
	t.Setenv("PATH", "/bin")
	m := &machine{t, "/tmp/node", "/tmp"}
	for i := range 2 {
		namedServer(t, fmt.Sprintf("10.0.0.%d:6443", i+1))
	}
	before := kernelState(t)
	config := node.EndpointConfig{Listen: virtual, Servers: []string{"10.0.0.1:6443", "10.0.0.2:6443"}, IPVS: true}
	m.run(toJSON(config), "endpoint", "install")
	require.NotEqual(t, before, kernelState(t))
	seen := map[string]int{}
	for range 10 {
		seen[version(t, virtual)]++
	}
	require.Equal(t, map[string]int{"10.0.0.1:6443": 5, "10.0.0.2:6443": 5}, seen)
	ran := must(os.ReadFile(mainPID))

	// A control plane has left. What runs follows.
	config.Servers = config.Servers[1:]
	m.run(toJSON(config), "endpoint", "install")
	require.Equal(t, ran, must(os.ReadFile(mainPID)))
	require.Eventually(t, func() bool {
		data := must(os.ReadFile("/proc/net/ip_vs"))
		return strings.Contains(string(data), "0A000002:192B") && !strings.Contains(string(data), "0A000001:192B")
	}, 20*time.Second, 10*time.Millisecond)
	require.Equal(t, "10.0.0.2:6443", version(t, virtual))

	t.Run("the balancer in its place", func(t *testing.T) {
		m.run(toJSON(node.EndpointConfig{Listen: "127.0.0.1:6443", Servers: config.Servers}), "endpoint", "install")
		require.Equal(t, "10.0.0.2:6443", version(t, "127.0.0.1:6443"))
		require.Equal(t, before, kernelState(t))
	})
	m.run(toJSON(config), "endpoint", "install")
	require.Equal(t, "10.0.0.2:6443", version(t, virtual))
	m.run(nil, "endpoint", "uninstall")
	m.run(nil, "endpoint", "uninstall")
	require.Equal(t, before, kernelState(t))
	require.NoDirExists(t, "/tmp/node/endpoint")
	require.NoFileExists(t, "/tmp/"+node.EndpointUnit)

	r := m.try(toJSON(node.EndpointConfig{Listen: virtual, Servers: []string{"cp1:6443"}, IPVS: true}), "endpoint", "install")
	require.Contains(t, r.err, `"cp1:6443" is not an IP address with a port`)
}

// The unit has the rights that rules take, and no others.
func TestEndpoint_IPVSUnit(t *testing.T) {
	n, err := node.New(node.Options{Root: "/var/lib/sealer/node"})
	require.NoError(t, err)
	goldenfile.Equal(t, "testdata/sealer-endpoint-ipvs.service", node.EndpointUnitText(n, "PROGRAM"))
}

// namedServer says its own address.
func namedServer(t *testing.T, address string) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	require.NoError(t, err)
	require.NoError(t, netlink.LinkSetUp(lo))
	host, _, err := net.SplitHostPort(address)
	require.NoError(t, err)
	require.NoError(t, netlink.AddrAdd(lo, must(netlink.ParseAddr(host+"/32"))))
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, address) }))
	require.NoError(t, s.Listener.Close())
	s.Listener, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	require.NoError(t, err)
	s.StartTLS()
	t.Cleanup(s.Close)
}

func version(t *testing.T, server string) string {
	t.Helper()
	c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	res, err := c.Do(must(http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+server+"/version", http.NoBody)))
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	return string(must(io.ReadAll(res.Body)))
}

// kernelState is what may not be other than before.
func kernelState(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for _, f := range []string{"/proc/net/ip_vs", "/proc/net/fib_trie", "/proc/sys/net/ipv4/vs/conntrack", "/proc/sys/net/ipv4/vs/expire_nodest_conn"} {
		for line := range strings.Lines(string(must(os.ReadFile(f)))) {
			if !strings.Contains(line, "+--") { // how the kernel sorts routes is its own affair
				out.WriteString(line)
			}
		}
	}
	return out.String()
}

// systemctl is that program in a kernel that has no other: it runs the one unit that there is.
func systemctl(args []string) int {
	stop := func() {
		pid, err := strconv.Atoi(strings.TrimSpace(string(must(os.ReadFile(mainPID)))))
		if err != nil || pid == 0 {
			return
		}
		_ = syscall.Kill(pid, syscall.SIGTERM)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for range 1000 { // its parent has other things to do than to wait for it: what is left of it has no program
			if _, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil {
				break
			}
			<-tick.C
		}
		must(0, os.WriteFile(mainPID, []byte("0"), 0o600))
	}
	if _, err := os.Stat(mainPID); err != nil {
		must(0, os.WriteFile(mainPID, []byte("0"), 0o600))
	}
	switch args[0] {
	case "restart":
		stop()
		text := string(must(os.ReadFile("/tmp/" + node.EndpointUnit)))
		_, text, _ = strings.Cut(text, "ExecStart=")
		line, _, _ := strings.Cut(text, "\n")
		argv := strings.Fields(line)
		cmd := exec.Command(argv[0], argv[1:]...)
		console := must(os.OpenFile("/dev/console", os.O_WRONLY, 0)) // who asks waits for the end of what it is given
		cmd.Stdout, cmd.Stderr = console, console
		must(0, cmd.Start())
		must(0, os.WriteFile(mainPID, []byte(strconv.Itoa(cmd.Process.Pid)), 0o600))
	case "disable":
		stop()
	case "show":
		if args[2] == "MainPID" {
			fmt.Print(string(must(os.ReadFile(mainPID))))
			return 0
		}
		fmt.Print("0")
	}
	return 0
}
