// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/clusterfile"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/host/hosttest"
	"github.com/sealerio/sealer/runtime"
)

const (
	elsewhereRegistry = `  registry: {externalRegistry: {domain: hub.corp.example, path: mirror, username: robot, password: very-secret}}
`
	elsewhere = "spec:\n" + elsewhereRegistry + `  hostAliases: [{ip: 10.9.9.9, hostnames: [hub.corp.example]}]
  hosts:
  - {ips: [10.0.0.1], roles: [master]}
  - {ips: [10.0.0.3], roles: [node]}
`
)

// pusher remembers what it was asked.
type pusher struct {
	checked, pushed []cluster.ImagePush
	refuses         error
	lacks           []string
}

func (p *pusher) Lacks(context.Context, cluster.ImagePush) ([]string, error) { return p.lacks, nil }

func (p *pusher) Check(_ context.Context, push cluster.ImagePush) error {
	p.checked = append(p.checked, push)
	return p.refuses
}

func (p *pusher) Push(_ context.Context, push cluster.ImagePush, _ io.Writer) error {
	p.pushed = append(p.pushed, push)
	return nil
}

func TestRun_ExternalRegistry(t *testing.T) {
	b := newBed(t, elsewhere)
	p := &pusher{}
	b.opts.Pusher = p
	require.NoError(t, b.run(t))
	require.Len(t, p.pushed, 1)
	push := p.pushed[0]
	require.Equal(t, "hub.corp.example:443", push.Registry.Endpoint())
	require.Equal(t, "very-secret", push.Registry.Password.Reveal())
	require.Equal(t, "10.9.9.9", push.Aliases[0].IP)
	require.Equal(t, b.opts.Image, push.Image)
	for _, h := range b.hosts {
		require.Len(t, h.blobs, 4, "no host has the packed images")
		for _, line := range h.did() {
			require.NotContains(t, line, "registry init")
			require.NotContains(t, line, "registry install")
			require.NotContains(t, line, "very-secret")
		}
		hosts := string(h.Files()["/etc/hosts"].Data)
		require.NotContains(t, hosts, "sea.hub")
		require.Contains(t, hosts, "10.9.9.9 hub.corp.example")
		require.NotContains(t, string(h.Files()[runtime.StateFile].Data), "very-secret")
	}
	var asked []hosttest.Call
	for _, c := range b.hosts["10.0.0.3"].Calls() {
		if strings.Contains(strings.Join(c.Argv, " "), "registry ask") {
			asked = append(asked, c)
		}
	}
	require.Len(t, asked, 1)
	var access struct{ Username, Password string }
	require.NoError(t, json.Unmarshal(asked[0].Stdin, &access))
	require.Equal(t, "robot very-secret", access.Username+" "+access.Password)

	require.NoError(t, b.run(t))
	require.Contains(t, b.out.String(), "nothing to change")
	require.Len(t, p.pushed, 1)

	// A registry that was made anew has lost them.
	p.lacks = []string{"quay.io/a/b:2"}
	require.NoError(t, b.run(t))
	require.Len(t, p.pushed, 2)
	p.lacks, p.pushed = nil, p.pushed[:1]

	// A host that joins later, from what the control planes have kept, knows the registry and its login.
	worker := clusterfile.Host{Address: "10.0.0.4", Role: clusterfile.Worker}
	b.hosts["10.0.0.4"] = newFakeHost(worker, "h3")
	require.NoError(t, cluster.Join(t.Context(), cluster.JoinOptions{
		Name: "prod", Hosts: []clusterfile.Host{worker}, Content: b.opts.Content, Pusher: p, Operator: b.opts.Operator,
		FindImage: func(context.Context, string, string) (*clusterimage.Image, string, error) {
			return b.opts.Image, b.opts.ImageName, nil
		},
	}))
	require.Equal(t, "very-secret", p.checked[len(p.checked)-1].Registry.Password.Reveal())
	require.Len(t, p.pushed, 1, "the images are there")
	require.NotContains(t, string(b.hosts["10.0.0.4"].Files()["/etc/hosts"].Data), "sea.hub")
}

// What the registry says no to is told before anything is touched.
func TestRun_ExternalRegistryRefuses(t *testing.T) {
	b := newBed(t, elsewhere)
	require.ErrorContains(t, b.run(t), "cannot push")
	b.opts.Pusher = &pusher{refuses: errors.New("wrong password")}
	require.ErrorContains(t, b.run(t), "wrong password")
	for _, h := range b.hosts {
		require.Empty(t, h.did())
	}

	b.opts.Pusher = &pusher{}
	b.hosts["10.0.0.3"].On("registry ask", hosttest.Answer{Code: 1, Stderr: "no such host"})
	err := b.run(t)
	wrong := &cluster.ExternalError{}
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, "10.0.0.3", wrong.Host)
	require.ErrorContains(t, err, "no such host")
	for _, line := range b.hosts["10.0.0.3"].did() {
		require.NotContains(t, line, "dist install")
	}
}

// The login and CA of the user's own registry go to the first control plane on standard input; a registry that runs starts anew
// where they are others.
func TestRun_LocalRegistrySettings(t *testing.T) {
	text := strings.Replace(three, "spec:\n", `spec:
  registry: {localRegistry: {domain: hub.corp.example, username: robot, password: very-secret, cert: {subjectAltName: {dnsNames: [more.example]}}}}
`, 1)
	b := newBed(t, text)
	first, second := b.hosts["10.0.0.1"], b.hosts["10.0.0.2"]
	first.On("registry init", hosttest.Answer{Do: func(_ context.Context, c hosttest.Call) hosttest.Answer {
		var in struct{ Username, Password string }
		if err := json.Unmarshal(c.Stdin, &in); err != nil || in.Username != "robot" || in.Password != "very-secret" {
			return hosttest.Answer{Code: 1, Stderr: "not what was expected"}
		}
		return hosttest.Answer{Stdout: `{"ca":"PEM","caKey":"KEY","username":"robot","password":"very-secret"}`}
	}})
	require.NoError(t, b.run(t))
	line := func(h *fakeHost) (found string) {
		for _, c := range h.Calls() {
			if l := strings.Join(c.Argv, " "); strings.Contains(l, "registry init") {
				found = l
			}
		}
		return found
	}
	require.Contains(t, line(first), "--alt-name more.example --share --adopt")
	require.Contains(t, line(second), "--alt-name more.example --adopt")

	before := len(second.did())
	require.NoError(t, b.run(t))
	require.NotContains(t, strings.Join(second.did()[before:], "\n"), "registry install")
	second.On("registry init", hosttest.Answer{Stdout: `{"ca":"PEM","username":"robot","password":"very-secret","changed":true}`})
	before = len(second.did())
	require.NoError(t, b.run(t))
	require.Contains(t, strings.Join(second.did()[before:], "\n"), "registry install", "it starts anew")
}
