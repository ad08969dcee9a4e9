// SPDX-License-Identifier: Apache-2.0

package clusterfile_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/clusterfile"
)

const pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"

func registryOf(t *testing.T, text string) *clusterfile.File {
	t.Helper()
	f, err := clusterfile.Parse("f", []byte("apiVersion: sealer.io/v2\nkind: Cluster\nspec:\n  registry: "+text+"\n"))
	require.NoError(t, err)
	return f
}

func resolve(t *testing.T, f *clusterfile.File) {
	t.Helper()
	require.NoError(t, f.ResolveSecrets(func(r clusterfile.Reference) (clusterfile.Secret, error) {
		if r.Whole {
			return pem, nil
		}
		return "secret of " + clusterfile.Secret(r.String()), nil
	}))
	require.NoError(t, f.Validate())
}

func TestParse_ExternalRegistry(t *testing.T) {
	f := registryOf(t, `{externalRegistry: {domain: hub.corp.example, path: /mirror/, username: robot, password: "env:P", ca: "file:/ca"}}`)
	require.Equal(t, "hub.corp.example", f.Registry.External.Host())
	require.Equal(t, "hub.corp.example:443", f.Registry.External.Endpoint())
	whole, err := f.Marshal()
	require.NoError(t, err)
	require.Contains(t, string(whole), "env:P")
	again, err := clusterfile.Parse("again", whole)
	require.NoError(t, err)
	require.Equal(t, f.Registry, again.Registry)

	unresolved := *f.Registry.External
	resolve(t, f)
	require.Equal(t, clusterfile.ExternalRegistry{
		Domain: "hub.corp.example", Port: 443, Path: "mirror", Username: "robot", Password: "secret of env:P", CA: pem,
	}, *f.Registry.External)
	require.Equal(t, "env:P", unresolved.Password.Reveal())
	inventory, err := f.Inventory()
	require.NoError(t, err)
	require.Contains(t, string(inventory), "hub.corp.example")
	require.NotContains(t, string(inventory), "secret")
	for _, verb := range []string{"%v", "%+v", "%#v"} {
		require.NotContains(t, fmt.Sprintf(verb, *f.Registry.External), "secret of")
	}

	v6 := registryOf(t, `{externalRegistry: {domain: "[fd00::9]", port: 5000}}`).Registry.External
	require.Equal(t, "[fd00::9]:5000", v6.Host())
}

func TestParse_LocalRegistry(t *testing.T) {
	f := registryOf(t, `{localRegistry: {domain: hub.corp.example, port: 5443, ha: true, username: u, password: "file:/p", cert: {ca: "file:/ca", caKey: "file:/key", subjectAltName: {dnsNames: [a.example], ips: [192.0.2.1]}}}}`)
	whole, err := f.Marshal()
	require.NoError(t, err)
	again, err := clusterfile.Parse("again", whole)
	require.NoError(t, err, "%s", whole)
	require.Equal(t, f.Registry, again.Registry)
	resolve(t, f)
	require.Equal(t, clusterfile.Registry{
		Domain: "hub.corp.example", Port: 5443, Username: "u", Password: "secret of file:/p", CA: pem, CAKey: pem, Names: []string{"a.example", "192.0.2.1"},
	}, f.Registry)
	require.Empty(t, f.ClearText)

	base := registryOf(t, `{localRegistry: {port: 5001}}`)
	require.Equal(t, 5001, registryOf(t, `{}`).Over(base).Registry.Port)
	require.Equal(t, f.Registry, f.Over(base).Registry)
}
