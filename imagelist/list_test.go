// SPDX-License-Identifier: Apache-2.0

package imagelist_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/imagelist"
)

const (
	sum  = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	file = "imageList"
)

func TestNormalize(t *testing.T) {
	for ref, want := range map[string]string{
		"nginx":                          "docker.io/library/nginx:latest",
		"nginx:1.27":                     "docker.io/library/nginx:1.27",
		"docker.io/nginx":                "docker.io/library/nginx:latest",
		"index.docker.io/a/b":            "docker.io/a/b:latest",
		"localhost:5000/x":               "localhost:5000/x:latest",
		"registry.k8s.io/pause:3.10":     "registry.k8s.io/pause:3.10",
		"quay.io/a/b@" + sum:             "quay.io/a/b@" + sum,
		"r.example.com:5/x:t@" + sum:     "r.example.com:5/x:t@" + sum,
		"nginx@" + sum:                   "docker.io/library/nginx@" + sum,
		"[::1]:5000/a/b":                 "[::1]:5000/a/b:latest",
		"r.example.com/UPPER-tag:V1.0-A": "",
	} {
		got, err := imagelist.Normalize(ref)
		if want == "" {
			var wrong *imagelist.ReferenceError
			require.ErrorAs(t, err, &wrong, ref)
			continue
		}
		require.NoError(t, err, ref)
		require.Equal(t, want, got)
		again, err := imagelist.Normalize(got)
		require.NoError(t, err)
		require.Equal(t, got, again, "a normal reference stays as it is")
	}
}

func TestNormalize_Hints(t *testing.T) {
	for ref, hint := range map[string]string{
		"docker://nginx":        "write nginx",
		"https://quay.io/a/b":   "write quay.io/a/b",
		"Nginx:V1":              "did you mean nginx:V1?",
		"quay.io/A/b:T@" + sum:  "did you mean quay.io/a/b:T@" + sum + "?",
		"":                      "",
		strings.Repeat("a", 64): "",
	} {
		_, err := imagelist.Normalize(ref)
		var wrong *imagelist.ReferenceError
		require.ErrorAs(t, err, &wrong, ref)
		require.Equal(t, hint, wrong.Hint(), ref)
	}
}

func TestParseList(t *testing.T) {
	src := strings.Join([]string{
		"\ufeff# images of the cluster",
		"",
		"nginx",
		"  quay.io/a/b:1   # the proxy",
		"'registry.k8s.io/pause:3.10'",
		`"docker.io/library/nginx:latest"`,
		"quay.io/a/b@" + sum,
		"r.example.com/x:t@" + sum + " platform=linux/arm64,linux/amd64 # both",
		"\tbusybox:1\t#tab",
		"r.example.com/v platform=linux/arm64/v8",
		"r.example.com/v platform=linux/arm/v7",
	}, "\r\n")
	images, err := imagelist.ParseList(file, []byte(src))
	require.NoError(t, err)
	at := func(lines ...int) []imagelist.Origin {
		var origins []imagelist.Origin
		for _, line := range lines {
			origins = append(origins, imagelist.Origin{File: file, Line: line})
		}
		return origins
	}
	require.Equal(t, []imagelist.Image{
		{Name: "docker.io/library/busybox:1", Origins: at(9)},
		{Name: "docker.io/library/nginx:latest", Origins: at(3, 6)},
		{Name: "quay.io/a/b:1", Origins: at(4)},
		{Name: "quay.io/a/b@" + sum, Origins: at(7)},
		{Name: "r.example.com/v:latest", Platform: "linux/arm/v7", Origins: at(11)},
		{Name: "r.example.com/v:latest", Platform: "linux/arm64", Origins: at(10)},
		{Name: "r.example.com/x:t@" + sum, Platform: "linux/amd64", Origins: at(8)},
		{Name: "r.example.com/x:t@" + sum, Platform: "linux/arm64", Origins: at(8)},
		{Name: "registry.k8s.io/pause:3.10", Origins: at(5)},
	}, images)
}

func TestParseList_Mistakes(t *testing.T) {
	for line, want := range map[string]string{
		"- nginx":                         `imageList:2: the line begins with a dash`,
		"image: nginx":                    `imageList:2: the line begins with "image:"`,
		"nginx redis":                     `imageList:2: "redis" stands behind the reference`,
		"Nginx":                           `imageList:2: "Nginx" is not the name of an image: invalid reference format: repository name (library/Nginx) must be lowercase`,
		"nginx@sha256:abc":                `imageList:2: "nginx@sha256:abc" is not the name of an image: invalid reference format`,
		"nginx platfrom=linux/arm64":      `imageList:2: unknown option "platfrom" (did you mean platform?)`,
		"nginx arch=arm64":                `imageList:2: unknown option "arch"`,
		"nginx platform=arm64":            `imageList:2: platform "arm64" has not the form os/arch[/variant]`,
		"nginx platform=":                 `imageList:2: platform "" has not the form os/arch[/variant]`,
		"nginx platform=linux/amd46":      `imageList:2: platform "linux/amd46": unknown architecture "amd46" (did you mean amd64?)`,
		"nginx platform=linus/amd64":      `imageList:2: platform "linus/amd64": unknown operating system "linus" (did you mean linux?)`,
		"nginx platform=a/b platform=a/b": `imageList:2: platform "a/b": unknown operating system "a"`,
		"nginx platform=linux/amd64 platform=linux/arm64": `imageList:2: platform= stands twice; write platform=linux/amd64,linux/arm64`,
		"ngi\x00nx": `imageList:2: "ngi\x00nx" is not the name of an image: invalid reference format`,
		`""`:        `imageList:2: "" is not the name of an image: invalid reference format`,
	} {
		_, err := imagelist.ParseList(file, []byte("redis\n"+line+"\n"))
		var errs imagelist.Errors
		require.ErrorAs(t, err, &errs, line)
		require.Len(t, errs, 1)
		require.Equal(t, want, errs[0].Error())
		require.Equal(t, line, errs[0].Text)
	}
}

// All mistakes of a file come at once, each with its line.
func TestParseList_EveryMistake(t *testing.T) {
	_, err := imagelist.ParseList(file, []byte("A\nnginx\nB x\nredis y\n"))
	var errs imagelist.Errors
	require.ErrorAs(t, err, &errs)
	require.Len(t, errs, 3)
	require.Equal(t, `imageList:1: "A" is not the name of an image: invalid reference format: repository name (library/A) must be lowercase
   1 | A
imageList:3: "B" is not the name of an image: invalid reference format: repository name (library/B) must be lowercase
   3 | B x
imageList:4: "y" stands behind the reference
   4 | redis y`, errs.Show())
	require.Equal(t, "did you mean a?", errs[0].Hint())
	var position *imagelist.PositionError
	require.ErrorAs(t, err, &position)
	var wrong *imagelist.ReferenceError
	require.ErrorAs(t, err, &wrong)
}

func TestParseList_Large(t *testing.T) {
	images, err := imagelist.ParseList(file, []byte("# "+strings.Repeat("x", 200<<10)+"\nnginx\n"))
	require.NoError(t, err)
	require.Len(t, images, 1)

	_, err = imagelist.ParseList(file, []byte(strings.Repeat("a", 200<<10)))
	require.ErrorContains(t, err, "imageList:1:")
	require.Less(t, len(err.Error()), 1000, "a message stays readable")

	_, err = imagelist.ParseList(file, make([]byte, imagelist.MaxFile+1))
	require.EqualError(t, err, `reading "imageList": it has 33554433 bytes, more than the 33554432 that are read`)
}

func TestMerge(t *testing.T) {
	a := imagelist.Image{Name: "a", Origins: []imagelist.Origin{{File: "y", Line: 2}, {File: "x", Line: 9}}}
	b := imagelist.Image{Name: "a", App: "zeta", Origins: []imagelist.Origin{{File: "x", Line: 9}, {File: "x", Line: 1}}}
	c := imagelist.Image{Name: "a", App: "alpha", Origins: []imagelist.Origin{{File: "y", Line: 2}}}
	other := imagelist.Image{Name: "a", Platform: "linux/arm64", Origins: []imagelist.Origin{{File: "x", Line: 1}}}
	merged := imagelist.Merge([]imagelist.Image{other, a}, []imagelist.Image{b, c})
	require.Equal(t, []imagelist.Image{
		{Name: "a", App: "alpha", Origins: []imagelist.Origin{{File: "x", Line: 1}, {File: "x", Line: 9}, {File: "y", Line: 2}}},
		other,
	}, merged)
	require.Equal(t, []imagelist.Origin{{File: "y", Line: 2}, {File: "x", Line: 9}}, a.Origins, "what was given is left alone")
	require.Empty(t, imagelist.Merge())
}
