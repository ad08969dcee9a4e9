// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/build/policy"
	"github.com/sealerio/sealer/signature"
)

func parse(t *testing.T, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse("dir/policy.yaml", []byte(text), func(string) ([]byte, error) { return nil, errors.New("no such file") })
	require.NoError(t, err)
	return p
}

func TestParse_Mistakes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, want string }{
		{"several", "latest: never\nregistry:\n  allow: [x]\ndigest: required\nlicenses:\n  allowed: [MIT]\n",
			"p.yaml:2: unknown key \"registry\": registries, latest, digest, licenses, signatures, exceptions are known\n" +
				"p.yaml:6: unknown key \"allowed\": allow, unknown are known"},
		{"values", "latest: never\ndigest: maybe\nregistries:\n  deny: ['!quay.io', '[']\nlicenses: {unknown: ask}\n",
			"p.yaml:1: \"never\" is unknown: allow and deny are known\np.yaml:2: \"maybe\" is unknown: optional and required are known\n" +
				"p.yaml:4: pattern \"!quay.io\": it is empty, or begins with an exclamation mark\np.yaml:4: pattern \"[\": syntax error in pattern\n" +
				"p.yaml:5: \"ask\" is unknown: allow and deny are known"},
		{"rules", "signatures:\n- images: [quay.io]\n  keys: [none.pub]\n- images: [quay.io]\nexceptions:\n- images: [a]\n",
			"p.yaml:3: no such file\np.yaml:4: a signature rule needs images and keys\np.yaml:6: an exception needs images and a reason"},
		{"syntax", "latest: deny\n\t- x\n", "p.yaml:2: "},
		{"type", "latest: deny\nregistries: [a]\n", "p.yaml:2: "},
		{"documents", "latest: deny\n---\nlatest: allow\n", "p.yaml:3: a policy is one document"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := policy.Parse("p.yaml", []byte(c.text), func(string) ([]byte, error) { return nil, errors.New("no such file") })
			var all policy.Errors
			require.ErrorAs(t, err, &all)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	const digest = "@sha256:0000000000000000000000000000000000000000000000000000000000000000"
	for _, c := range []struct {
		policy string
		image  string
		want   []string
	}{
		{"", "nginx", nil},
		{"registries: {allow: [quay.io, 'registry.example.com/team/*', '**/library/busybox']}", "quay.io/a/b:1", nil},
		{"registries: {allow: [quay.io, 'registry.example.com/team/*', '**/library/busybox']}", "busybox:1", nil},
		{"registries: {allow: [quay.io, 'registry.example.com/team/*']}", "registry.example.com/team/shop/web:1", nil},
		{"registries: {allow: [quay.io]}", "quay.io.evil.example/a:1", []string{"its registry or repository is not among those that are allowed"}},
		{"registries: {allow: ['127.0.0.1:5000']}", "127.0.0.1:5000/a:1", nil},
		{"registries: {allow: [quay.io], deny: [quay.io/old]}", "quay.io/old/a:1", []string{"its registry or repository is denied"}},
		{"latest: deny", "nginx:latest", []string{"the tag latest is denied: it stands for something else tomorrow"}},
		{"latest: deny", "nginx", []string{"the tag latest is denied: it stands for something else tomorrow"}},
		{"latest: deny", "nginx:1", nil},
		{"latest: deny", "nginx:latest" + digest, nil},
		{"digest: required", "nginx:1", []string{"its name has no digest (@sha256:…)"}},
		{"digest: required", "nginx" + digest, nil},
		{"latest: deny\ndigest: required\nexceptions: [{images: ['docker.io/library/nginx:latest'], reason: test}]", "nginx:latest", nil},
		{"digest: required\nexceptions: [{images: ['docker.io/library/nginx:latest'], reason: test}]", "nginx:1", []string{"its name has no digest (@sha256:…)"}},
	} {
		var got []string
		for _, v := range parse(t, c.policy).Names(policy.Image{Name: c.image}) {
			got = append(got, v.Reason)
		}
		require.Equal(t, c.want, got, "%s: %s", c.policy, c.image)
	}
}

func TestCheck_Licenses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		policy, license string
		base, refused   bool
	}{
		{"licenses: {allow: [MIT, Apache-2.0]}", "MIT", false, false},
		{"licenses: {allow: [MIT, Apache-2.0]}", "mit AND Apache-2.0", false, false},
		{"licenses: {allow: [MIT]}", "MIT AND GPL-3.0-only", false, true},
		{"licenses: {allow: [MIT]}", "GPL-3.0-only OR MIT", false, false},
		{"licenses: {allow: [MIT]}", "(GPL-3.0-only OR MIT) AND MIT", false, true},
		{"licenses: {allow: [GPL-2.0-only]}", "GPL-2.0-only WITH Classpath-exception-2.0", false, false},
		{"licenses: {allow: [MIT]}", "", false, false},
		{"licenses: {allow: [MIT], unknown: deny}", "", false, true},
		{"licenses: {allow: [MIT], unknown: deny}", "", true, false},
	} {
		p := parse(t, c.policy)
		d, violations, err := p.Check(t.Context(), []policy.Image{{Name: "quay.io/a:1", Origins: []string{"imageList:1"}, License: c.license, Base: c.base}}, nil)
		require.NoError(t, err)
		require.Equal(t, c.refused, len(violations) > 0, "%s: %s", c.policy, c.license)
		require.Equal(t, c.license, d.Images[0].License)
		if c.refused {
			require.ErrorContains(t, p.Error(violations), "the policy policy.yaml refuses the image, 1 violation:\n  quay.io/a:1 (imageList:1): it")
		}
	}
}

func TestCheck_SignaturesNeedSomewhereToLook(t *testing.T) {
	t.Parallel()
	pair, err := signature.GenerateKey([]byte("x"))
	require.NoError(t, err)
	p, err := policy.Parse("p", []byte("signatures: [{images: [quay.io], keys: [k.pub]}]"), func(string) ([]byte, error) { return pair.Public, nil })
	require.NoError(t, err)
	broken := errors.New("broken")
	_, _, err = p.Check(t.Context(), []policy.Image{{Name: "quay.io/a:1"}}, func(context.Context, string) ([]signature.Source, error) { return nil, broken })
	require.ErrorIs(t, err, broken)
	_, violations, err := p.Check(t.Context(), []policy.Image{{Name: "docker.io/a:1"}}, nil)
	require.NoError(t, err)
	require.Empty(t, violations, "no rule is about it")
}
