// SPDX-License-Identifier: Apache-2.0

package attest_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build/attest"
)

func TestSoundsSecret(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"TOKEN": true, "GITHUB_TOKEN": true, "dbPassword": true, "MYSECRET": true, "X-Amz-Signature": true, "API_KEY": true, "AWS_ACCESS_KEY_ID": true,
		"SSH_PUBLIC_KEY": false, "VERSION": false, "MONKEY": false, "AUTHOR": false, "KEYBOARD": false, "": false,
	} {
		require.Equal(t, want, attest.SoundsSecret(name), name)
	}
}

func TestFetched(t *testing.T) {
	t.Parallel()
	got, err := attest.Fetched(json.RawMessage(`{"buildDefinition":{"resolvedDependencies":[
		{"uri":"pkg:oci/store?digest=sha256:1","digest":{"sha256":"1"}},
		{"uri":"https://me:pass@example.com/a?v=1&access_token=t","digest":{"sha256":"2"}},
		{"uri":"https://example.com/b.git","digest":{"sha1":"3"}},
		{"uri":"https://%zz"}]},"runDetails":{"metadata":{"startedOn":"2026-01-01T00:00:00Z"}}}`))
	require.NoError(t, err)
	require.Equal(t, []attest.Dependency{
		{Name: "file", URI: "https://redacted@example.com/a?access_token=%5Bredacted%5D&v=1", Digest: map[string]string{"sha256": "2"}},
		{Name: "file", URI: "https://example.com/b.git", Digest: map[string]string{"sha1": "3"}},
		{Name: "file", URI: "[redacted]"},
	}, got)
	_, err = attest.Fetched(json.RawMessage(`[]`))
	require.ErrorContains(t, err, "reading the builder's provenance: ")
}

// What is said is the same, whatever the order in which it was found, and holds no secret.
func TestProvenance(t *testing.T) {
	t.Parallel()
	p := attest.Provenance{
		Version: "v1", Kubefile: "Kubefile", Source: []byte("FROM scratch\n"), Target: "release",
		BuildArgs: map[string]string{"VERSION": "1", "TOKEN": "hunter2"}, Secrets: []string{"b", "a"}, SSH: []string{"default"},
		Dependencies: []attest.Dependency{{URI: "b"}, {URI: "a"}, {URI: "b"}},
	}
	for _, c := range []struct {
		max  bool
		want string
	}{
		{false, `{"buildDefinition":{"buildType":"` + attest.BuildType + `",` +
			`"externalParameters":{"configSource":{"path":"Kubefile","digest":{"sha256":"bb57c7da220a8753d7bdabac0d3afdb6efa742e4c736c5bc93ab40dfd5e23b9b"}},` +
			`"request":{"frontend":"kubefile","args":{"target":"release"},"locals":[{"name":"context"}]}},` +
			`"internalParameters":{},"resolvedDependencies":[{"uri":"a"},{"uri":"b"}]},` +
			`"runDetails":{"builder":{"id":"` + attest.DefaultBuilder + `","version":{"sealer":"v1"}},` +
			`"metadata":{"buildkit_completeness":{"request":false,"resolvedDependencies":false}}}}`},
		{true, `{"buildDefinition":{"buildType":"` + attest.BuildType + `",` +
			`"externalParameters":{"configSource":{"path":"Kubefile","digest":{"sha256":"bb57c7da220a8753d7bdabac0d3afdb6efa742e4c736c5bc93ab40dfd5e23b9b"}},` +
			`"request":{"frontend":"kubefile","args":{"build-arg:TOKEN":"[redacted]","build-arg:VERSION":"1","target":"release"},` +
			`"secrets":[{"id":"a"},{"id":"b"}],"ssh":[{"id":"default"}],"locals":[{"name":"context"}]}},` +
			`"internalParameters":{},"resolvedDependencies":[{"uri":"a"},{"uri":"b"}]},` +
			`"runDetails":{"builder":{"id":"` + attest.DefaultBuilder + `","version":{"sealer":"v1"}},` +
			`"metadata":{"buildkit_completeness":{"request":false,"resolvedDependencies":false},` +
			`"buildkit_metadata":{"source":{"infos":[{"filename":"Kubefile","language":"Dockerfile","data":"RlJPTSBzY3JhdGNoCg=="}]}}}}}`},
	} {
		p.Max = c.max
		s := p.Statement()
		require.Equal(t, attest.PredicateSLSA, s.PredicateType)
		got, err := json.Marshal(s.Predicate)
		require.NoError(t, err)
		require.Equal(t, c.want, string(got))
	}
}
