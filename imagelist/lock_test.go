// SPDX-License-Identifier: Apache-2.0

package imagelist_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/imagelist"
)

func someLock() imagelist.Lock {
	return imagelist.Lock{
		Bases: []imagelist.LockedBase{{Name: "r.example.com/base:v1", Platform: "linux/amd64", Digest: digest.FromString("base")}},
		Images: []imagelist.LockedImage{
			{Name: "quay.io/a/b:1", Platform: "linux/arm64", Digest: digest.FromString("b arm"), Index: digest.FromString("b"), Size: 12, Origins: []string{"imageList:3", "manifests/a.yaml:7"}},
			{Name: "quay.io/a/b:1", Platform: "linux/amd64", Digest: digest.FromString("b amd"), Index: digest.FromString("b"), Size: 13, Origins: []string{"imageList:3"}},
			{Name: "docker.io/library/x:1", Platform: "linux/amd64", Digest: digest.FromString("x"), Size: 1 << 40, Source: "docker-archive:images/x.tar"},
		},
	}
}

func TestLock(t *testing.T) {
	data, err := someLock().Marshal()
	require.NoError(t, err)
	require.Equal(t, `# What the images' names stood for. Written by sealer build --lock and sealer lock, obeyed by sealer build --locked.
version: 1
bases:
  - name: r.example.com/base:v1
    platform: linux/amd64
    digest: {base}
images:
  - name: docker.io/library/x:1
    platform: linux/amd64
    digest: {x}
    size: 1099511627776
    source: docker-archive:images/x.tar
  - name: quay.io/a/b:1
    platform: linux/amd64
    digest: {b amd}
    index: {b}
    size: 13
    origins: ['imageList:3']
  - name: quay.io/a/b:1
    platform: linux/arm64
    digest: {b arm}
    index: {b}
    size: 12
    origins: ['imageList:3', 'manifests/a.yaml:7']
`, undigested(string(data), "base", "x", "b amd", "b", "b arm"))

	read, err := imagelist.ParseLock("l", data)
	require.NoError(t, err)
	again, err := read.Marshal()
	require.NoError(t, err)
	require.Equal(t, string(data), string(again))
	mixed := someLock()
	slices.Reverse(mixed.Images)
	again, err = mixed.Marshal()
	require.NoError(t, err)
	require.Equal(t, string(data), string(again), "in whatever order")
	require.Empty(t, read.Diff(someLock()))

	empty, err := imagelist.Lock{}.Marshal()
	require.NoError(t, err)
	read, err = imagelist.ParseLock("l", empty)
	require.NoError(t, err)
	require.Empty(t, read.Images)
}

// undigested writes {x} for the digest of x.
func undigested(text string, words ...string) string {
	for _, w := range words {
		text = strings.ReplaceAll(text, digest.FromString(w).String(), "{"+w+"}")
	}
	return text
}

func TestParseLock_Refused(t *testing.T) {
	good := digest.FromString("x").String()
	for src, want := range map[string]string{
		"":                                `reading "l": it has no version: it is no lock`,
		"images: []":                      `reading "l": it has no version: it is no lock`,
		"version: 2\nimages: []":          `reading "l": it is a lock of version 2, this sealer reads version 1`,
		"version: 1\nimage: []":           "line 2: unknown field image",
		"version: 1\nimages: [{name: a}]": `image a for  stands there twice, or is not whole`,
		"version: 1\nimages: [{name: a, platform: p, digest: sha256:x}]":                                `digest "sha256:x"`,
		"version: 1\nimages: [{name: a, platform: p, digest: '" + good + "', index: 'x'}]":              `digest "x"`,
		"version: 1\nbases: [{name: a, platform: p}]":                                                   `base a for p: digest ""`,
		fmt.Sprintf("version: 1\nimages: [%[1]s, %[1]s]", "{name: a, platform: p, digest: '"+good+"'}"): "image a for p stands there twice",
		"version: 1\nimages: {": "did not find expected",
	} {
		_, err := imagelist.ParseLock("l", []byte(src))
		require.ErrorContains(t, err, want, src)
	}
	_, err := imagelist.ParseLock("l", []byte("version: 9"))
	var version *imagelist.LockVersionError
	require.ErrorAs(t, err, &version)
	require.NotEmpty(t, version.Hint())
}

func TestLock_Diff(t *testing.T) {
	now := someLock()
	now.Bases[0].Digest = digest.FromString("base 2")
	now.Images[0].Index = digest.FromString("b 2")
	now.Images[1].Origins = []string{"imageList:99"} // no change
	now.Images[2].Name = "docker.io/library/y:1"
	var lines []string
	for _, c := range someLock().Diff(now) {
		lines = append(lines, undigested(fmt.Sprint(c.Kind, " ", c.Name, " ", c.Platform, " ", c.Base, " ", c.Locked, ">", c.Now), "base", "base 2", "b", "b 2", "x"))
	}
	require.Equal(t, []string{
		"moved r.example.com/base:v1 linux/amd64 true {base}>{base 2}",
		"removed docker.io/library/x:1 linux/amd64 false {x}>",
		"added docker.io/library/y:1 linux/amd64 false >{x}",
		"moved quay.io/a/b:1 linux/arm64 false {b}>{b 2}",
	}, lines)
}

func TestParseListWithAuth(t *testing.T) {
	images, logins, err := imagelist.ParseListWithAuth("auth.yaml", []byte(`
- registry: r.example.com:5000
  username: me
  password: hunter2
  images:
    - team/app:v1
    - r.example.com:5000/team/app:v2
    - top@`+sum+`
- registry: docker.io
  username: you
  password: "12345"
  images: [mine/x, docker.io/library/y:1]
`))
	require.NoError(t, err)
	require.Equal(t, "docker.io/library/y:1 12\ndocker.io/mine/x:latest 12\nr.example.com:5000/team/app:v1 6\nr.example.com:5000/team/app:v2 7\nr.example.com:5000/top@"+sum+" 8\n", found(images, nil))
	require.Len(t, logins, 2)
	require.Equal(t, []string{"team/app", "top"}, logins[0].Repositories)
	require.Equal(t, "hunter2", logins[0].Password.Reveal())
	require.NotContains(t, fmt.Sprintf("%+v %#v", logins, logins), "hunter2")
	require.Equal(t, "12345", logins[1].Password.Reveal())
}

func TestParseListWithAuth_Mistakes(t *testing.T) {
	for src, want := range map[string]string{
		"- {registry: r, username: u, password: hunter2, images: [A]}":         `auth.yaml:1: "r/A" is not the name of an image`,
		"- {registry: r.io, username: u, password: hunter2, images: [q.io/a]}": "auth.yaml:1: the image is of q.io, the section's registry is r.io",
		"- {registry: r.io, username: u, passwd: hunter2}":                     "line 1 is not as expected",
		"- registry: r.io\n  password: [hunter2]":                              "line 2 is not as expected",
		"registry: hunter2": "line 1 is not as expected",
		"- {registry: r.io, username: u, images: [hunter2]}": "section 1 needs a registry, a username and a password",
		"- registry: r.io\n  password: \"hunter2":            "is not as expected",
	} {
		_, _, err := imagelist.ParseListWithAuth("auth.yaml", []byte(src))
		require.ErrorContains(t, err, want, src)
		require.NotContains(t, err.Error(), "hunter2")
		if shower, ok := errors.AsType[interface {
			error
			Show() string
		}](err); ok {
			require.NotContains(t, shower.Show(), "hunter2")
		}
	}
}

func TestIgnored(t *testing.T) {
	ignored, err := imagelist.ParseIgnored("ignored.txt", []byte(`# not these
nginx
busybox:1.3?
quay.io/*/debug*   # tools
**/test-*
docker.io/library/redis:7
never/**
`))
	require.NoError(t, err)
	for name, want := range map[string]string{
		"docker.io/library/nginx:1.27":   "nginx",
		"docker.io/library/nginx@" + sum: "nginx",
		"docker.io/library/nginxx:1":     "",
		"quay.io/library/nginx:1":        "",
		"docker.io/library/busybox:1.36": "busybox:1.3?",
		"docker.io/library/busybox:1.4":  "",
		"quay.io/a/debug-tools:1":        "quay.io/*/debug*",
		"quay.io/a/b/debug:1":            "",
		"r.example.com/a/b/test-x:1":     "**/test-*",
		"docker.io/library/redis:7":      "docker.io/library/redis:7",
		"docker.io/library/redis:7.1":    "",
		"":                               "",
	} {
		got, _ := ignored.Match(name)
		require.Equal(t, want, got, name)
	}
	unused := ignored.Unused()
	require.Len(t, unused, 1)
	require.Equal(t, "ignored.txt:7: no image fits the pattern never/**", unused[0].String())

	_, err = imagelist.ParseIgnored("i", []byte("a b\n[x]\n"))
	require.EqualError(t, err, "i:1: \"b\" stands behind the pattern\ni:2: pattern \"[x]\": only *, ** and ? are special")
	var none *imagelist.Ignored
	require.Empty(t, none.Unused())
	require.Equal(t, ignored, none.Join(ignored))
}

func TestSources(t *testing.T) {
	images, err := imagelist.ParseList(file, []byte(`docker-archive:images/a.tar
oci-archive:./images//b.tar:quay.io/x/y:1 platform=linux/arm64
"oci:layouts/c@r.example.com/c:v1"
docker-daemon:shop:v1
docker-archive:d.tar:@`+sum+`
archive:/abs/e.tar.zst
oci.example.com/x
`))
	require.NoError(t, err)
	var lines []string
	for _, i := range images {
		lines = append(lines, strings.TrimSpace(fmt.Sprint(i.Name, " <", i.Source, "> ", i.Platform)))
	}
	require.Equal(t, []string{
		"<archive:/abs/e.tar.zst>", "<docker-archive:d.tar:@" + sum + ">", "<docker-archive:images/a.tar>",
		"<docker-daemon:docker.io/library/shop:v1>", "<oci-archive:images/b.tar:quay.io/x/y:1> linux/arm64",
		"oci.example.com/x:latest <>", "r.example.com/c:v1 <oci:layouts/c>",
	}, lines)
	_, err = imagelist.ParseList(file, []byte("docker-archive:\noci::x\ndocker-archive:x@UPPER\ndocker-daemon:UPPER\n"))
	var wrong imagelist.Errors
	require.ErrorAs(t, err, &wrong)
	require.Len(t, wrong, 4)
}
