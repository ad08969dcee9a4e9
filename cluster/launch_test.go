// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/host/hosttest"
)

// inRootfs stands before every command of an image.
const inRootfs = "sh -c PATH=$PATH:$ROOTFS/bin:$CLUSTER_ROOTFS/bin; SEALER_PATH=$PATH; PATH=${SEALER_NOTING:+$SEALER_NOTING:}$PATH; export PATH SEALER_PATH; "

const rootfs = "/var/lib/sealer/node/rootfs/x"

const oneHost = "spec:\n  env: [REPLICAS=5]\n  hosts: [{ips: [10.0.0.1], roles: [master]}]\n"

func applications() clusterimage.Extension {
	return clusterimage.Extension{
		Applications: []clusterimage.Application{
			{Name: "calico", Type: "shell", Files: []string{"calico.sh"}, Env: map[string]string{"MTU": "1400", "HostIP": "mine", "GREETING": "changed"}},
			{Name: "unused", Type: "shell", Files: []string{"x.sh"}},
			{Name: "db", Type: "kube", Files: []string{"a b.yaml", "c.yaml"}},
			{Name: "web", Type: "helm", Files: []string{"."}, Env: map[string]string{"REPLICAS": "2"}},
			{Name: "own", Type: "helm", Files: []string{"."}, Cmds: []string{"helm template . || true", "echo own"}},
		},
		Launch: clusterimage.Launch{Cmds: []string{"of the base", "of the child"}, AppNames: []string{"calico", "db", "web", "own"}, After: 1},
	}
}

// launchCalls are the commands of the image, in their order.
func launchCalls(b *bed) []hosttest.Call {
	var calls []hosttest.Call
	for _, c := range b.hosts["10.0.0.1"].Calls() {
		if len(c.Argv) == 3 && strings.HasPrefix(c.Argv[2], "PATH=$PATH") {
			calls = append(calls, c)
		}
	}
	return calls
}

func TestRun_Launch(t *testing.T) {
	b := newBedOf(t, oneHost, applications(), map[string]string{clusterimage.LabelKubeVersion: ">=1.28, <2"})
	require.NoError(t, b.run(t))
	type call struct{ dir, command string }
	var got []call
	for _, c := range launchCalls(b) {
		got = append(got, call{c.Dir, strings.TrimPrefix(strings.Join(c.Argv, " "), inRootfs)})
		require.Contains(t, c.Env, "ROOTFS="+rootfs)
	}
	apps := rootfs + "/application/apps/"
	require.Equal(t, []call{
		{rootfs, "of the base"},
		{apps + "calico", `"$(command -v bash || echo sh)" calico.sh`},
		{apps + "db", "kubectl apply -f 'a b.yaml' && kubectl apply -f c.yaml"},
		{"", "command -v helm >/dev/null"},
		{apps + "web", "helm upgrade --install web ."},
		{apps + "own", "{ helm template . || true\n} && { echo own\n}"},
		{rootfs, "of the child"},
	}, got)
	calls := launchCalls(b)
	require.Subset(t, calls[1].Env, []string{"MTU=1400", "GREETING=changed", "HostIP=10.0.0.1", "KUBECONFIG=/admin.conf"}, "over the image's, not over sealer's")
	require.Subset(t, calls[4].Env, []string{"REPLICAS=5", "GREETING=hello"}, "the Clusterfile's goes over it")
	require.NotContains(t, calls[4].Env, "MTU=1400")
	rendered := false
	for _, c := range b.hosts["10.0.0.1"].Calls() {
		if strings.Contains(c.String(), "render") {
			rendered = true
			require.Contains(t, string(c.Stdin), `"applications":{"calico":{"GREETING":"changed","MTU":"1400"}}`)
		}
	}
	require.True(t, rendered)

	before := len(calls)
	require.NoError(t, b.run(t))
	require.Len(t, launchCalls(b), before, "what was launched is not launched again")
}

// The Clusterfile says what is launched instead: commands, applications, or nothing.
func TestRun_LaunchOfTheClusterfile(t *testing.T) {
	noApps := applications()
	noApps.Launch = clusterimage.Launch{Cmds: []string{"of the base"}}
	const script = `"$(command -v bash || echo sh)" x.sh`
	for _, c := range []struct {
		spec string
		ext  clusterimage.Extension
		want []string
	}{
		{"cmd: [mine]", applications(), []string{"mine"}},
		{"cmd: []", applications(), nil},
		{`appNames: [""]`, applications(), []string{"of the base", "of the child"}},
		{"appNames: [unused]", applications(), []string{"of the base", script, "of the child"}},
		{"appNames: [unused]", noApps, []string{"of the base", script}},
		{"appNames: [unused]\n  cmd: [mine]", applications(), []string{script, "mine"}},
	} {
		b := newBedOf(t, strings.Replace(oneHost, "spec:\n", "spec:\n  "+c.spec+"\n", 1), c.ext, nil)
		require.NoError(t, b.run(t))
		var got []string
		for _, call := range launchCalls(b) {
			got = append(got, strings.TrimPrefix(strings.Join(call.Argv, " "), inRootfs))
		}
		require.Equal(t, c.want, got, c.spec)
	}
}

func TestRun_LaunchWithoutHelm(t *testing.T) {
	b := newBedOf(t, oneHost, applications(), nil)
	b.hosts["10.0.0.1"].On("command -v helm", hosttest.Answer{Err: &host.ExitError{Host: "10.0.0.1", Code: 1}})
	err := b.run(t)
	var missing *cluster.NoHelmError
	require.ErrorAs(t, err, &missing)
	require.ErrorContains(t, err, `10.0.0.1: LAUNCH web: helm upgrade --install web .: the application "web" is a chart, and neither the image nor the host has helm`)
	require.Contains(t, missing.Hint(), "COPY helm bin/")
}

// What cannot work is said before a host is touched.
func TestRun_ImageThatCannotRun(t *testing.T) {
	ext := applications()
	ext.Applications[2].Type = ""
	gone := applications()
	gone.Launch.AppNames = []string{"gone"}
	for _, c := range []struct {
		ext        clusterimage.Extension
		constraint string
		want       string
	}{
		{applications(), "<1.30", `checking the image "registry.example.com/app:v1": it is for Kubernetes <1.30, not for v1.36.3`},
		{applications(), "newest", `checking the image "registry.example.com/app:v1": reading the Kubernetes versions "newest" that the image is for: improper constraint: "newest"`},
		{ext, "", `the image "registry.example.com/app:v1" cannot launch "db": it has no type that says how it is launched, and no APPCMDS`},
		{gone, "", `the image "registry.example.com/app:v1" cannot launch "gone": the image has no application of this name; it has calico, unused, db, web, own`},
	} {
		labels := map[string]string{}
		if c.constraint != "" {
			labels[clusterimage.LabelKubeVersion] = c.constraint
		}
		b := newBedOf(t, oneHost, c.ext, labels)
		require.EqualError(t, b.run(t), c.want)
		for _, call := range b.hosts["10.0.0.1"].Calls() {
			require.False(t, call.Mutates, call.String())
		}
	}
}

// What the Clusterfile says of an application goes over the image's: variables, commands, files.
func TestRun_Application(t *testing.T) {
	b := newBedOf(t, oneHost+`---
apiVersion: sealer.io/v2
kind: Application
spec:
  launchApps: [calico, web]
  configs:
  - name: calico
    env: [MTU=9000, REPLICAS=7, HostIP=theirs]
    launch: {cmds: [sh calico.sh --now, echo done]}
    files: [{path: pool.yaml, data: "cidr: 10.1.0.0/16"}]
`, applications(), nil)
	require.NoError(t, b.run(t))
	calls := launchCalls(b)
	require.Len(t, calls, 5, "the image's commands stay around the applications, and helm is looked for")
	last := []hosttest.Call{calls[1], calls[3]}
	require.Equal(t, inRootfs+"sh calico.sh --now && echo done", strings.Join(last[0].Argv, " "))
	require.Subset(t, last[0].Env, []string{"MTU=9000", "REPLICAS=7", "HostIP=10.0.0.1"})
	require.Contains(t, last[1].Env, "REPLICAS=5", "another application's variables are not its own")
	require.Equal(t, "cidr: 10.1.0.0/16", string(b.hosts["10.0.0.1"].Files()[rootfs+"/application/apps/calico/pool.yaml"].Data))

	b = newBedOf(t, oneHost+"---\napiVersion: sealer.io/v2\nkind: Application\nspec: {configs: [{name: calicoo}]}\n", applications(), nil)
	require.ErrorContains(t, b.run(t), `cannot launch "calicoo": the image has no application of this name; it has calico`)
}
