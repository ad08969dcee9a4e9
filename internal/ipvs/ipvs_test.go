// SPDX-License-Identifier: Apache-2.0

package ipvs_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	kernelipvs "github.com/moby/ipvs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sealerio/sealer/internal/ipvs"
	"github.com/sealerio/sealer/test/kernel"
)

func TestMain(m *testing.M) { os.Exit(kernel.Main(m)) }

// A worker before control planes, which are on the other side of a wire. The kernel is one that has IPVS.
func TestServe(t *testing.T) {
	if !kernel.Inside() {
		kernel.Run(t, "ip_vs_rr", "veth")
		return
	}
	w := newWorld(t)
	t.Run("IPv4", func(t *testing.T) { w.serve(t, "10.103.97.2", "10.0.0.", "10.0.0.4") })
	t.Run("IPv6", func(t *testing.T) { w.serve(t, "fd00:10:103:97::2", "fd00::", "fd00::4") })
}

// A kernel without IPVS says so.
func TestServe_Missing(t *testing.T) {
	if !kernel.Inside() {
		kernel.Run(t, "veth")
		return
	}
	var missing *ipvs.MissingError
	err := ipvs.Serve(t.Context(), ipvs.Options{Service: netip.MustParseAddrPort("10.103.97.2:6443")})
	require.ErrorAs(t, err, &missing)
	require.Contains(t, missing.Hint(), "use the balancer")
	require.NoError(t, ipvs.Remove(netip.MustParseAddrPort("10.103.97.2:6443")))
}

// What is connected is ended on this side, where the kernel can do that.
func TestCut(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("ending connections takes root")
	}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", ln.Addr().String())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	at, client := netip.MustParseAddrPort(ln.Addr().String()), netip.MustParseAddrPort(conn.LocalAddr().String())
	var said strings.Builder
	ipvs.Cut(at, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1"), client}, slog.New(slog.NewTextHandler(&said, nil)))
	if !strings.Contains(said.String(), "connections=1") {
		t.Skip("this kernel cannot end connections: " + said.String())
	}
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(bound)))
	_, err = conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, unix.ECONNABORTED)
}

// world is this worker with two networks, of which the control planes know one alone, and a namespace with the control planes' addresses.
type world struct {
	do func(func()) // in the namespace of the control planes
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{}
	in, out := make(chan func()), make(chan int)
	var unshared error
	go func() {
		runtime.LockOSThread() // it ends with the goroutine, and the namespace with all sockets in it
		unshared = unix.Unshare(unix.CLONE_NEWNET)
		out <- unix.Gettid()
		for do := range in {
			do()
			out <- 0
		}
	}()
	there := <-out
	require.NoError(t, unshared)
	w.do = func(f func()) {
		in <- f
		<-out
	}
	up := func(name string, addresses ...string) {
		link, err := netlink.LinkByName(name)
		assert.NoError(t, err)
		assert.NoError(t, netlink.LinkSetUp(link))
		for _, a := range addresses {
			address, err := netlink.ParseAddr(a)
			assert.NoError(t, err)
			address.Flags = unix.IFA_F_NODAD
			assert.NoError(t, netlink.AddrAdd(link, address))
		}
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsPid(there)}
	require.NoError(t, netlink.LinkAdd(veth))
	require.NoError(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "storage"}, PeerName: "nowhere"}))
	up("lo")
	up("nowhere")
	up("storage", "192.168.7.4/24", "fd00:7::4/64")
	up("eth0", "10.0.0.4/24", "fd00::4/64")
	w.do(func() {
		up("lo")
		up("eth0", "10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24", "fd00::1/64", "fd00::2/64", "fd00::3/64")
	})
	// the way out leads elsewhere
	storage, err := netlink.LinkByName("storage")
	require.NoError(t, err)
	require.NoError(t, netlink.RouteAdd(&netlink.Route{LinkIndex: storage.Attrs().Index, Gw: net.ParseIP("192.168.7.1")}))
	require.Eventually(t, func() bool { // the kernel makes those of IPv6 once it has heard of the link
		list, err := netlink.RouteListFiltered(unix.AF_INET6, &netlink.Route{Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_TABLE)
		has := func(address string) bool {
			return slices.ContainsFunc(list, func(r netlink.Route) bool { return r.Dst != nil && r.Dst.IP.Equal(net.ParseIP(address)) })
		}
		return err == nil && has("fd00::4") && has("fd00:7::4")
	}, bound, 10*time.Millisecond)
	return w
}

// server is an API server: it answers with its name and by whom it was asked.
type server struct {
	*httptest.Server
	unwell  atomic.Bool
	refused atomic.Int64 // how often it has said so
	strange atomic.Bool  // it was asked from a port that a client may have
}

func (w *world) start(t *testing.T, address string) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
		if in.URL.Path == "/readyz" && s.unwell.Load() {
			out.WriteHeader(http.StatusInternalServerError)
			s.refused.Add(1)
		}
		if _, port, _ := net.SplitHostPort(in.RemoteAddr); in.URL.Path == "/readyz" && len(port) > 4 {
			s.strange.Store(true)
		}
		host, _, _ := net.SplitHostPort(in.RemoteAddr)
		_, _ = fmt.Fprintf(out, "%s for %s", address, host)
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	_ = s.Listener.Close()
	var err error
	w.do(func() { s.Listener, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", address) })
	require.NoError(t, err)
	s.StartTLS()
	t.Cleanup(s.kill)
	return s
}

// kill ends it as a process ends that is killed.
func (s *server) kill() {
	_ = s.Listener.Close()
	s.CloseClientConnections()
}

// ask asks over a connection of its own.
func ask(service string) (string, error) {
	c := &http.Client{Timeout: bound, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	res, err := c.Get("https://" + service + "/version")
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	return string(data), err
}

// answers are those of so many requests, sorted, each once.
func answers(service string, n int) ([]string, error) {
	var all []string
	for range n {
		a, err := ask(service)
		if err != nil {
			return all, err
		}
		all = append(all, a)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

const bound = 20 * time.Second

func (w *world) serve(t *testing.T, virtual, network, own string) {
	at := netip.AddrPortFrom(netip.MustParseAddr(virtual), 6443)
	service := at.String()
	address := func(n string) string { return net.JoinHostPort(network+n, "6443") }
	want := func(list ...string) []string {
		for i, n := range list {
			list[i] = address(n) + " for " + own
		}
		return list
	}
	before := state(t)
	settings, err := ipvs.Prepare()
	require.NoError(t, err)
	foreign := &kernelipvs.Service{AddressFamily: unix.AF_INET, Protocol: unix.IPPROTO_TCP, Address: net.ParseIP("10.96.0.1").To4(), Port: 443, SchedName: "rr", Netmask: 0xffffffff}
	rules, err := kernelipvs.New("")
	require.NoError(t, err)
	defer rules.Close()
	require.NoError(t, rules.NewService(foreign))

	one, two, three := w.start(t, address("1")), w.start(t, address("2")), w.start(t, address("3"))
	var mu sync.Mutex
	list := []string{address("1"), address("2")}
	set := func(now ...string) {
		mu.Lock()
		defer mu.Unlock()
		list = now
	}
	begin := func() (end func()) {
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		done := make(chan error, 1)
		go func() {
			done <- ipvs.Serve(ctx, ipvs.Options{
				Service: at, Interval: 50 * time.Millisecond, Patience: bound, Logger: slog.New(slog.NewTextHandler(os.Stdout, nil)),
				Servers: func() ([]string, error) { mu.Lock(); defer mu.Unlock(); return list, nil },
			})
		}()
		return func() { cancel(); require.NoError(t, <-done) }
	}
	// comes waits until requests are answered by these alone, and without a single failure.
	comes := func(msg string, servers ...string) {
		t.Helper()
		var got []string
		var err error
		require.Eventually(t, func() bool {
			got, err = answers(service, 6)
			return err == nil && slices.Equal(got, want(slices.Clone(servers)...))
		}, bound, 10*time.Millisecond, "%s: %v, %v", msg, &got, &err)
		got, err = answers(service, 20)
		require.NoError(t, err, msg)
		require.Equal(t, want(slices.Clone(servers)...), got, msg)
	}
	end := begin()
	comes("each in its turn, from this host's own address", "1", "2")
	require.NoError(t, ipvs.Held(at))

	set(address("1"), address("2"), address("3"))
	comes("one was added", "1", "2", "3")
	set(address("2"), address("3"))
	comes("one was taken out", "2", "3")
	set(address("1"), address("2"), address("3"))
	comes("and came back", "1", "2", "3")

	two.kill()
	comes("one was killed", "1", "3")
	again := w.start(t, address("2"))
	comes("it is back", "1", "2", "3")

	// One that hangs keeps nobody.
	conns := connections(t, service, 3)
	stuck := conns[want("3")[0]]
	require.NotNil(t, stuck)
	seen, err := ipvs.ClientsOf(at, map[netip.AddrPort]bool{netip.MustParseAddrPort(address("3")): true})
	require.NoError(t, err)
	require.Contains(t, seen, netip.MustParseAddrPort(stuck.LocalAddr().String()))
	require.NotContains(t, seen, netip.MustParseAddrPort(conns[want("1")[0]].LocalAddr().String()))
	three.unwell.Store(true)
	comes("one is not ready", "1", "2")
	_, _ = fmt.Fprint(stuck, request) // this kernel cannot end it by itself: TestCut
	require.NoError(t, stuck.SetReadDeadline(time.Now().Add(bound)))
	_, err = stuck.Read(make([]byte, 1))
	require.Error(t, err)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "its connection was not cut")
	for _, n := range []string{"1", "2"} {
		require.Equal(t, want(n)[0], says(t, conns[want(n)[0]]), "others stay")
	}
	three.unwell.Store(false)
	comes("it is ready again", "1", "2", "3")

	// Nobody is well: they are asked all the same.
	for _, s := range []*server{one, again, three} {
		s.refused.Store(0)
		s.unwell.Store(true)
	}
	require.Eventually(t, func() bool {
		return one.refused.Load() > 3 && again.refused.Load() > 3 && three.refused.Load() > 3
	}, bound, 10*time.Millisecond)
	comes("a check may be wrong", "1", "2", "3")
	for _, s := range []*server{one, again, three} {
		s.unwell.Store(false)
	}

	require.NoError(t, rules.Flush())
	comes("what others flush is made anew", "1", "2", "3")
	require.NoError(t, rules.NewService(foreign))

	// The program may end, and be begun anew, while connections go on.
	stays := connections(t, service, 3)[want("1")[0]]
	end()
	comes("the kernel goes on by itself", "1", "2", "3")
	end = begin()
	comes("it is begun anew", "1", "2", "3")
	require.Equal(t, want("1")[0], says(t, stays))
	end()

	for _, s := range []*server{one, two, again, three} {
		require.False(t, s.strange.Load(), "checks come from ports of their own")
	}
	require.NoError(t, ipvs.Remove(at))
	require.NoError(t, ipvs.Remove(at), "a second time")
	require.Error(t, ipvs.Held(at))
	_, err = ask(service)
	require.Error(t, err)
	left, err := rules.GetServices()
	require.NoError(t, err)
	require.Len(t, left, 1, "what is not ours stays")
	require.NoError(t, rules.DelService(foreign))
	require.NoError(t, settings.Set())
	require.Equal(t, before, state(t))
}

const request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

// connections are n that stay, by what the servers say on them.
func connections(t *testing.T, service string, n int) map[string]*tls.Conn {
	t.Helper()
	conns := map[string]*tls.Conn{}
	for range n {
		d := &tls.Dialer{NetDialer: &net.Dialer{KeepAlive: -1}, Config: &tls.Config{InsecureSkipVerify: true}}
		c, err := d.DialContext(t.Context(), "tcp", service)
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		conn, _ := c.(*tls.Conn)
		conns[says(t, conn)] = conn
	}
	require.Len(t, conns, n)
	return conns
}

// says asks over a connection that stays.
func says(t *testing.T, c *tls.Conn) string {
	t.Helper()
	require.NoError(t, c.SetDeadline(time.Now().Add(bound)))
	_, err := fmt.Fprint(c, request)
	require.NoError(t, err)
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	require.NoError(t, err)
	_, body, _ := strings.Cut(string(buf[:n]), "\r\n\r\n")
	return body
}

// state is what may not be other than before.
func state(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		list, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_TABLE)
		require.NoError(t, err)
		var lines []string
		for _, r := range list {
			if r.Dst != nil && r.Dst.IP.IsLinkLocalUnicast() {
				continue // the kernel makes them in its own time
			}
			lines = append(lines, r.String())
		}
		slices.Sort(lines)
		fmt.Fprintln(&out, strings.Join(lines, "\n"))
	}
	links, err := netlink.LinkList()
	require.NoError(t, err)
	for _, l := range links {
		fmt.Fprintln(&out, l.Attrs().Name)
	}
	for _, f := range []string{"/proc/net/ip_vs", "/proc/sys/net/ipv4/vs/conntrack", "/proc/sys/net/ipv4/vs/expire_nodest_conn"} {
		data, err := os.ReadFile(f)
		require.NoError(t, err)
		fmt.Fprintf(&out, "%s", data)
	}
	return out.String()
}
