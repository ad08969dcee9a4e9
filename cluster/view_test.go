// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/host/hosttest"
)

// view opens the cluster of a bed.
func (b *bed) view(t *testing.T) *cluster.View {
	t.Helper()
	v, err := cluster.Open(t.Context(), cluster.ViewOptions{
		Clusterfile: b.opts.Clusterfile, Dial: b.opts.Dial, Distributions: b.opts.Distributions,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, v.Close()) })
	return v
}

func TestOpen_NothingThere(t *testing.T) {
	b := newBed(t, three)
	_, err := cluster.Open(t.Context(), cluster.ViewOptions{Clusterfile: b.opts.Clusterfile, Dial: b.opts.Dial, Distributions: b.opts.Distributions})
	var none *cluster.NotInstalledError
	require.ErrorAs(t, err, &none)
	for _, h := range b.hosts {
		h.unreachable = errors.New("no route to host")
	}
	_, err = cluster.Open(t.Context(), cluster.ViewOptions{Clusterfile: b.opts.Clusterfile, Dial: b.opts.Dial, Distributions: b.opts.Distributions})
	require.ErrorContains(t, err, "connecting to the hosts: 4 failed")
}

func TestView_Status(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	names := func(s *cluster.Status) []string {
		var list []string
		for _, h := range s.Hosts {
			list = append(list, h.Host+" "+h.Node)
		}
		return list
	}
	s, err := b.view(t).Status(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"10.0.0.1 h1", "10.0.0.2 h2", "10.0.0.3 h3", "10.0.0.4 h4"}, names(s))
	require.Equal(t, "10.0.0.1", s.Contact)
	require.Empty(t, s.Unwell)
	require.Equal(t, 2126, s.Hosts[0].CertificatesUntil.Year())
	strangers := slices.DeleteFunc(slices.Clone(s.Drift), func(line string) bool { return !strings.Contains(line, "none of the hosts") })
	require.Len(t, strangers, 5, "the fake cluster has nodes h5 to h9, too")
	require.Equal(t, `the cluster has a node "h5", which is none of the hosts`, strangers[0])
	require.Contains(t, s.Drift, "10.0.0.3: the label zone is missing", "its nodes take no labels")

	pods, err := b.view(t).UnreadyPods(t.Context())
	require.NoError(t, err)
	require.Empty(t, pods)
	b.hosts["10.0.0.1"].pods = `{"items":[{"metadata":{"name":"a","namespace":"x"},"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}},
		{"metadata":{"name":"job","namespace":"x"},"status":{"phase":"Succeeded","conditions":[{"type":"Ready","status":"False"}]}},
		{"metadata":{"name":"b","namespace":"x"},"status":{"phase":"Pending","containerStatuses":[{"state":{"waiting":{"reason":"ErrImagePull","message":"not found"}}}]}},
		{"metadata":{"name":"c","namespace":"x"},"status":{"phase":"Pending","conditions":[{"type":"PodScheduled","status":"False","message":"no node fits"}]}}]}`
	pods, err = b.view(t).UnreadyPods(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"x/b: ErrImagePull: not found", "x/c: no node fits"}, pods)

	// One host is away, and the first control plane does not answer.
	b.hosts["10.0.0.4"].unreachable = errors.New("no route to host")
	b.hosts["10.0.0.1"].On("^kubectl get --raw /readyz", hosttest.Answer{Code: 1})
	b.hosts["10.0.0.3"].On("is-active --quiet sealer-registry", hosttest.Answer{Code: 3})
	s, err = b.view(t).Status(t.Context())
	require.NoError(t, err)
	require.Equal(t, "10.0.0.2", s.Contact)
	require.Equal(t, []string{"10.0.0.1 h1", "10.0.0.2 h2", "10.0.0.3 h3", "10.0.0.4 "}, names(s))
	require.Equal(t, "no route to host", s.Hosts[3].Problem)
	require.Contains(t, s.Unwell, "no route to host")
	require.Contains(t, s.Unwell, "10.0.0.3: the registry of the packed images does not run (journalctl -u sealer-registry; under OpenRC /var/log/sealer-registry.log)")
	require.False(t, s.Well())
}

func TestView_Exec(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	b.hosts["10.0.0.2"].On("^uptime", hosttest.Answer{Stdout: "up\nsince"})
	b.hosts["10.0.0.3"].On("^uptime", hosttest.Answer{Stdout: "up\n", Stderr: "tired\n", Code: 3})
	v := b.view(t)
	var out, errOut bytes.Buffer
	err := v.Exec(t.Context(), cluster.Selection{Addresses: []string{"10.0.0.2-10.0.0.3"}}, []string{"uptime", "-p"}, &out, &errOut)
	var exit *host.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 3, exit.Code)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	slices.Sort(lines)
	require.Equal(t, []string{"10.0.0.2: since", "10.0.0.2: up", "10.0.0.3: up"}, lines)
	require.Equal(t, "10.0.0.3: tired\n", errOut.String())

	// One host alone is told as it is, and one word is shell text.
	b.hosts["10.0.0.4"].On("^sh -c 'echo a | wc -l'", hosttest.Answer{Stdout: "1"})
	out.Reset()
	require.NoError(t, v.Exec(t.Context(), cluster.Selection{Addresses: []string{"10.0.0.4"}, Role: clusterfile.Worker}, []string{"echo a | wc -l"}, &out, &errOut))
	require.Equal(t, "1", out.String())

	err = v.Exec(t.Context(), cluster.Selection{Addresses: []string{"10.9.9.9"}}, []string{"id"}, &out, &errOut)
	require.EqualError(t, err, `10.9.9.9 is no host of the cluster "`+b.opts.Clusterfile.Name+`"`)

	// Host names are those of nodes, of hostAliases, or what this machine knows.
	b.opts.Clusterfile.Aliases = []clusterfile.Alias{{IP: "10.0.0.4", Hostnames: []string{"Four.example.com"}}}
	asked := []string{}
	v, err = cluster.Open(t.Context(), cluster.ViewOptions{
		Clusterfile: b.opts.Clusterfile, Dial: b.opts.Dial, Distributions: b.opts.Distributions, Desired: true,
		Lookup: func(name string) ([]netip.Addr, error) {
			asked = append(asked, name)
			if name != "three.example.com" {
				return nil, errors.New("no such host")
			}
			return []netip.Addr{netip.MustParseAddr("fd00::3"), netip.MustParseAddr("::ffff:10.0.0.3")}, nil
		},
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, v.Close()) }()
	for _, h := range b.hosts {
		h.On("^sh -c hostname", hosttest.Answer{Stdout: "its own\n"})
	}
	out.Reset()
	require.NoError(t, v.Exec(t.Context(), cluster.Selection{Addresses: []string{"h2,three.example.com,four.example.com"}}, []string{"hostname"}, &out, &errOut))
	for _, h := range []string{"10.0.0.2", "10.0.0.3", "10.0.0.4"} {
		require.Contains(t, out.String(), h+": its own\n")
	}
	require.NotContains(t, out.String(), "10.0.0.1: ")
	require.NotContains(t, asked, "h2")
	require.NotContains(t, asked, "four.example.com")
	err = v.Exec(t.Context(), cluster.Selection{Addresses: []string{"five.example.com"}}, []string{"id"}, &out, &errOut)
	require.ErrorContains(t, err, `five.example.com is no host of the cluster`)
}

func TestView_StatusCertificates(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	b.hosts["10.0.0.2"].On("^dist certificates", hosttest.Answer{Stdout: "ending.crt\n"})
	s, err := b.view(t).Status(t.Context())
	require.NoError(t, err)
	require.Len(t, s.Unwell, 1)
	require.Contains(t, s.Unwell[0], "10.0.0.2: the certificate ending.crt ends at ")
	require.Contains(t, s.Unwell[0], "sealer cert renew")
	require.Len(t, s.Problems(), 1)
	p := s.Problems()[0]
	require.Equal(t, []string{"10.0.0.2", "certificates", "sealer cert renew"}, []string{p.Host, p.Check, p.Fix})
}

func TestView_Copy(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	v := b.view(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "chrony.conf")
	require.NoError(t, os.WriteFile(file, []byte("server 10.0.0.9\n"), 0o640))
	require.NoError(t, v.Send(t.Context(), cluster.Selection{Role: clusterfile.Worker}, file, "/etc/chrony/"))
	for name, h := range b.hosts {
		got, there := h.Files()["/etc/chrony/chrony.conf"]
		require.Equal(t, name == "10.0.0.3" || name == "10.0.0.4", there, name)
		if there {
			require.Equal(t, "server 10.0.0.9\n", string(got.Data))
			require.Equal(t, os.FileMode(0o640), got.Mode)
		}
	}
	require.ErrorContains(t, v.Send(t.Context(), cluster.Selection{}, file, "relative"), "must begin with a slash")
	require.ErrorContains(t, v.Send(t.Context(), cluster.Selection{}, dir, "/x"), "is no regular file")

	b.hosts["10.0.0.3"].On("^sh -c 'sha256sum -- ", hosttest.Answer{Stdout: "c6a4b5b2aa3a1b0b7d4e4f4a2a3f1f0c6e1d8f7a9b2c3d4e5f60718293a4b5c6  x\n16\n"})
	require.ErrorContains(t, v.Fetch(t.Context(), "10.0.0.3", "/etc/chrony/chrony.conf", dir), "it changed meanwhile")
}

func TestView_Kubeconfig(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	b.hosts["10.0.0.1"].Put("/admin.conf", `apiVersion: v1
kind: Config
clusters: [{name: kubernetes, cluster: {server: "https://apiserver.cluster.local:6443", certificate-authority-data: Q0E=}}]
users: [{name: kubernetes-admin, user: {client-key-data: S0VZ}}]
contexts: [{name: x, context: {cluster: kubernetes, user: kubernetes-admin}}]
current-context: x
`, 0o600)
	v := b.view(t)
	for server, want := range map[string]string{
		"": "https://10.0.0.1:6443", "k8s.example.com": "https://k8s.example.com:6443", "lb:443": "https://lb:443", "https://lb/x": "https://lb/x",
		"fd00::1": "https://[fd00::1]:6443", "[fd00::1]": "https://[fd00::1]:6443", "[fd00::1]:443": "https://[fd00::1]:443",
	} {
		data, err := v.Kubeconfig(t.Context(), server)
		require.NoError(t, err)
		require.Contains(t, string(data), "server: "+want+"\n")
		require.Contains(t, string(data), "client-key-data: S0VZ")
		require.Contains(t, string(data), "current-context: "+b.opts.Clusterfile.Name)
	}
}

func TestReadJournal(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	events, err := cluster.ReadJournal(b.opts.StateDir, b.opts.Clusterfile.Name)
	require.NoError(t, err)
	require.Equal(t, "started", events[0].Event)
	require.Equal(t, "done", events[len(events)-1].Event)
	_, err = cluster.ReadJournal(b.opts.StateDir, "another")
	require.EqualError(t, err, `reading the journal: this machine knows no cluster "another"`)
}

func TestCertificates(t *testing.T) {
	b := newBed(t, three)
	require.NoError(t, b.run(t))
	b.hosts["10.0.0.3"].On("^dist certificates", hosttest.Answer{Stdout: "kubelet.crt"})
	list, err := b.view(t).Certificates(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 4)
	require.Equal(t, "kubelet.crt", list[2].Name)

	tell := story(b)
	o := cluster.ChangeOptions{
		ViewOptions: cluster.ViewOptions{Clusterfile: b.opts.Clusterfile, Dial: b.opts.Dial, Distributions: b.opts.Distributions, StateDir: b.opts.StateDir},
	}
	require.NoError(t, cluster.RenewCertificates(t.Context(), o))
	told := tell()
	require.Equal(t, []string{"1 renew", "2 renew"}, told[:2], "control planes go first, one by one")
	require.Len(t, told, 4)

	require.NoError(t, cluster.AddServerNames(t.Context(), o, []string{"k8s.example.com", "10.0.0.100"}))
	require.Equal(t, []string{"1 names k8s.example.com,10.0.0.100", "2 names k8s.example.com,10.0.0.100"}, tell())
	require.NoError(t, cluster.AddServerNames(t.Context(), o, []string{"k8s.example.com", "10.0.0.100"}))
	require.Empty(t, tell(), "what is done is not done again")

	for _, name := range []string{"10.0.0.1", "10.0.0.2"} { // the certificates have expired
		b.hosts[name].On("get --raw /readyz", hosttest.Answer{Stderr: "certificate has expired", Code: 1})
	}
	var silent *cluster.NoContactError
	require.ErrorAs(t, cluster.AddServerNames(t.Context(), o, []string{"more.example.com"}), &silent)
	require.NoError(t, cluster.RenewCertificates(t.Context(), o))
	require.Equal(t, []string{"1 renew", "2 renew"}, tell()[:2])

	b.hosts["10.0.0.4"].unreachable = errors.New("no route to host")
	require.ErrorContains(t, cluster.RenewCertificates(t.Context(), o), "nothing was changed")
	require.Empty(t, tell())
}
