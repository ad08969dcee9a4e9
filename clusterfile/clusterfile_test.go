// SPDX-License-Identifier: Apache-2.0

package clusterfile_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterfile"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

func TestParse(t *testing.T) {
	src, err := os.ReadFile("testdata/good/full.yaml")
	require.NoError(t, err)
	f, err := clusterfile.Parse("full.yaml", src)
	require.NoError(t, err)

	got, err := json.MarshalIndent(f, "", "  ")
	require.NoError(t, err)
	golden(t, "testdata/good/full.json", string(got)+"\n")

	require.Equal(t, "other", f.ControlPlanes()[0].SSH.Password.Reveal())
	workers := f.Workers()
	require.Len(t, workers, 2)
	require.Equal(t, "hunter2", workers[0].SSH.Password.Reveal())
	require.Equal(t, "10.0.0.2", f.Machines()[0].Address, "control planes come first")
	require.Equal(t, map[string]string{"PodCIDR": "10.244.0.0/16", "GREETING": "hi"}, f.HostEnv(workers[0]))
	require.Equal(t, "hello = world", f.Env["GREETING"], "a host's environment is its own")

	for _, verb := range []string{"%v", "%+v", "%#v", "%q"} {
		require.NotContains(t, fmt.Sprintf(verb, *f), "hunter2")
	}
}

func TestParse_K0s(t *testing.T) {
	f, err := clusterfile.Parse("f", []byte(`apiVersion: sealer.io/v2
kind: Cluster
spec: {hosts: [{ips: [10.0.0.1], roles: [master]}]}
---
apiVersion: k0s.k0sproject.io/v1beta1
kind: ClusterConfig
metadata: {annotations: {a/b: "true"}}
spec:
  workerProfiles: [{name: default, values: {failCgroupV1: false, maxPods: 200}}]
  network: {kubeProxy: {mode: nftables}}
`))
	require.NoError(t, err)
	require.Equal(t, map[string]any{
		"apiVersion": "k0s.k0sproject.io/v1beta1", "kind": "ClusterConfig",
		"metadata": map[string]any{"annotations": map[string]any{"a/b": "true"}},
		"spec": map[string]any{
			"workerProfiles": []any{map[string]any{"name": "default", "values": map[string]any{"failCgroupV1": false, "maxPods": int64(200)}}},
			"network":        map[string]any{"kubeProxy": map[string]any{"mode": "nftables"}},
		},
	}, f.K0s)
}

// Every mistake of a file is reported at once, with its place and line.
func TestParse_Mistakes(t *testing.T) {
	files, err := filepath.Glob("testdata/wrong/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			src, err := os.ReadFile(file)
			require.NoError(t, err)
			_, err = clusterfile.Parse(filepath.Base(file), src)
			var all clusterfile.Errors
			require.ErrorAs(t, err, &all)
			var b strings.Builder
			for _, e := range all {
				b.WriteString(e.Show() + "\n")
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".txt", b.String())
		})
	}
}

// A line with a password is shown without it.
func TestParse_MistakeHidesPassword(t *testing.T) {
	_, err := clusterfile.Parse("f", []byte("kind: Cluster\napiVersion: sealer.io/v2\nspec:\n  ssh:\n    passwd: 12345\n"))
	var all clusterfile.Errors
	require.ErrorAs(t, err, &all)
	require.NotContains(t, all[0].Show(), "12345")
}

func TestInventory(t *testing.T) {
	src, err := os.ReadFile("testdata/good/full.yaml")
	require.NoError(t, err)
	f, err := clusterfile.Parse("full.yaml", src)
	require.NoError(t, err)
	out, err := f.Inventory()
	require.NoError(t, err)
	golden(t, "testdata/good/inventory.yaml", string(out))

	again, err := clusterfile.Parse("Clusterfile", out)
	require.NoError(t, err, "what is kept can be read back")
	require.Equal(t, f.Machines()[0].Address, again.Machines()[0].Address)
	require.Equal(t, f.Registry, again.Registry)
	for _, secret := range []string{"hunter2", "other", "hello", "version = 3"} {
		require.NotContains(t, string(out), secret)
	}
}

func TestFromFlags(t *testing.T) {
	f, err := clusterfile.FromFlags("10.0.0.2, 10.0.0.4-10.0.0.5", "10.0.0.9", clusterfile.SSH{User: "u"})
	require.NoError(t, err)
	var got []string
	for _, h := range f.Machines() {
		got = append(got, h.Address+" "+string(h.Role)+" "+h.SSH.User)
	}
	require.Equal(t, []string{"10.0.0.2 control-plane u", "10.0.0.4 control-plane u", "10.0.0.5 control-plane u", "10.0.0.9 worker u"}, got)

	f, err = clusterfile.FromFlags("", "", clusterfile.SSH{})
	require.NoError(t, err)
	require.True(t, f.Machines()[0].Local(), "without hosts the cluster is this machine")
	require.Equal(t, "localhost", f.Machines()[0].String())

	for _, c := range []struct{ controlPlanes, workers, want string }{
		{"", "10.0.0.1", "none has the role control-plane"},
		{"10.0.0.1", "10.0.0.1", "is there twice"},
		{"10.0.0.1-10.0.0.0", "", "ends before it begins"},
		{"10.0.0.1-fe80::1", "", "mixes IPv4 and IPv6"},
		{"::-ffff::", "", "more than 5000"},
		{"a", "", "is not an IP address"},
	} {
		_, err := clusterfile.FromFlags(c.controlPlanes, c.workers, clusterfile.SSH{})
		require.ErrorContains(t, err, c.want)
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/wrong/*.yaml"} {
		files, err := filepath.Glob(pattern)
		require.NoError(f, err)
		for _, file := range files {
			src, err := os.ReadFile(file)
			require.NoError(f, err)
			f.Add(src)
		}
	}
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("? [x]\n: y\n<<: {a: b}\n!!str k: !x v\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		file, err := clusterfile.Parse("Clusterfile", src)
		if err != nil {
			var all clusterfile.Errors
			require.ErrorAs(t, err, &all, "an error without a position")
			for _, e := range all {
				require.NotEmpty(t, e.Show())
			}
			return
		}
		require.NoError(t, file.Validate(), "what Parse takes must hold together")
		out, err := file.Inventory()
		require.NoError(t, err)
		_, err = clusterfile.Parse("inventory", out)
		require.NoError(t, err, "%s", out)
	})
}
