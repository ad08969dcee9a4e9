// SPDX-License-Identifier: Apache-2.0

//go:build linux

package build_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build"
	"github.com/sealerio/sealer/build/policy"
	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/signature"
)

func TestPolicy(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	for _, name := range []string{"ok/os:1", "ok/a:1", "ok/unsigned:1", "bad/b:1", "ok/c:latest"} {
		u.push(name)
	}
	pair, err := signature.GenerateKey([]byte("x"))
	require.NoError(t, err)
	b := newBench(t, map[string]string{
		"Kubefile":    "FROM " + u.host + "/ok/os:1\nCOPY imageList imageList\n",
		"imageList":   u.host + "/ok/a:1\n" + u.host + "/ok/unsigned:1\n" + u.host + "/bad/b:1\n" + u.host + "/ok/c:latest\n",
		"policy":      "registries: {allow: ['" + u.host + "/ok']}\nlatest: deny\nsignatures: [{images: ['" + u.host + "/ok/[ua]*'], keys: [release.pub]}]\n",
		"release.pub": string(pair.Public),
	})
	key, err := signature.ReadPrivateKey("key", pair.Private, []byte("x"))
	require.NoError(t, err)
	signed := u.host + "/ok/a:1"
	desc, err := b.client.Pull(t.Context(), b.store, signed, registry.PullOptions{})
	require.NoError(t, err)
	_, err = signature.Sign(t.Context(), b.store, signed, desc, key, nil)
	require.NoError(t, err)
	_, err = signature.Push(t.Context(), b.client, b.store, desc, signed)
	require.NoError(t, err)

	clean := newBench(t, nil)
	clean.context = b.context
	p, err := build.ReadPolicy(filepath.Join(b.context, "policy"))
	require.NoError(t, err)
	with := func(o *build.Options) { o.Policy = p }
	u.requests()
	_, err = clean.build(with)
	var violations *policy.ViolationsError
	require.ErrorAs(t, err, &violations)
	var got []string
	for _, v := range violations.Violations {
		got = append(got, strings.ReplaceAll(v.String(), u.host, "reg"))
	}
	require.Len(t, got, 3, got)
	require.Equal(t, "reg/bad/b:1 (imageList:3): its registry or repository is not among those that are allowed", got[0])
	require.Equal(t, "reg/ok/c:latest (imageList:4): the tag latest is denied: it stands for something else tomorrow", got[1])
	require.Regexp(t, `^reg/ok/unsigned:1 \(imageList:2\): sha256:[0-9a-f]{64} has no signature$`, got[2])
	for _, r := range u.requests() {
		require.NotContains(t, r, "/bad/", "what is denied is not asked for")
	}
	tags, err := clean.store.List(t.Context())
	require.NoError(t, err)
	for _, tag := range tags {
		require.NotContains(t, tag.Name, "test/cluster", "nothing is tagged")
	}

	b.write(map[string]string{"imageList": signed + "\n"})
	img := clean.mustBuild(with)
	found := clean.predicates(img, img.Rootfs[0].Descriptor, policy.PredicateType)
	require.Len(t, found, 1)
	var decision policy.Decision
	require.NoError(t, json.Unmarshal(found[0], &decision))
	require.Equal(t, "passed", decision.Result)
	require.Equal(t, []string{"release.pub"}, decision.Images[0].SignedBy)
	require.Equal(t, p.Digest.Encoded(), decision.Policy.Digest["sha256"])
	require.Equal(t, map[string]string{"release.pub": digest.FromBytes(pair.Public).String()}, decision.Keys)

	// A base that is denied is not asked for at all, and what is known of the rest is said too.
	b.write(map[string]string{"Kubefile": "\nFROM " + u.host + "/bad/b:1\nCOPY imageList imageList\n", "imageList": u.host + "/ok/c:latest\n"})
	u.requests()
	_, err = clean.build(with)
	require.ErrorContains(t, err, "2 violations")
	require.ErrorContains(t, err, u.host+"/bad/b:1 (Kubefile:2): ")
	require.Empty(t, u.requests())

	require.NoError(t, os.WriteFile(filepath.Join(b.context, "policy"), []byte("latst: deny\n"), 0o600))
	_, err = build.ReadPolicy(filepath.Join(b.context, "policy"))
	require.ErrorContains(t, err, `policy:1: unknown key "latst"`)
}
