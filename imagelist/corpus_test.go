// SPDX-License-Identifier: Apache-2.0

package imagelist_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/imagelist"
	"github.com/sealerio/sealer/imagelist/chart/helm"
)

// answer is what a reader of a corpus folder would pack.
type answer struct {
	kinds    map[string]string // by image: list, plain, custom, text, chart, kustomize
	problems []string          // places that a reader could not decide
}

func readAnswer(t *testing.T, file string) answer {
	t.Helper()
	src, err := os.ReadFile(file)
	require.NoError(t, err)
	a := answer{kinds: map[string]string{}}
	for line := range strings.Lines(string(src)) {
		kind, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		require.True(t, ok, "%s: %q", file, line)
		if kind == "problem" {
			a.problems = append(a.problems, value)
			continue
		}
		require.Empty(t, a.kinds[value], "%s: %s stands twice", file, value)
		a.kinds[value] = kind
	}
	return a
}

// score counts one kind of places.
type score struct{ wanted, found int }

// Everything that a reader of the corpus would pack is found, and nothing else is packed for sure; what cannot be known
// is reported at its place. Texts, which may or may not be images, are candidates.
func TestCorpus(t *testing.T) {
	folders, err := filepath.Glob("testdata/corpus/*")
	require.NoError(t, err)
	require.NotEmpty(t, folders)
	scores := map[string]*score{}
	packed, extra, candidates, extraCandidates := 0, 0, 0, 0
	for _, folder := range folders {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			want := readAnswer(t, filepath.Join(folder, "answer"))
			result, err := imagelist.Discover(t.Context(), os.DirFS(folder), imagelist.WithCharts(helm.Renderer{}))
			require.NoError(t, err)
			found := map[string]bool{}
			for _, image := range result.Images {
				found[image.Name] = true
				kind, known := want.kinds[image.Name]
				switch {
				case image.Candidate:
					candidates++
					if !known {
						extraCandidates++
						t.Logf("candidate that is none: %s (%v)", image.Name, image.Origins)
					}
				default:
					packed++
					if !known {
						extra++
					}
					if !known || kind == "text" {
						t.Errorf("packed for sure: %s (%v)", image.Name, image.Origins)
					}
				}
			}
			for image, kind := range want.kinds {
				if scores[kind] == nil {
					scores[kind] = &score{}
				}
				scores[kind].wanted++
				if found[image] {
					scores[kind].found++
				} else {
					t.Errorf("missed: %s (%s)", image, kind)
				}
			}
			var places []string
			for _, p := range result.Problems {
				places = append(places, fmt.Sprintf("%s:%d", p.File, p.Line))
			}
			slices.Sort(want.problems)
			require.Equal(t, want.problems, slices.Compact(places), "%v", result.Problems)
		})
	}
	t.Log("kind        wanted  found  recall")
	for _, kind := range slices.Sorted(maps.Keys(scores)) {
		s := scores[kind]
		t.Logf("%-10s  %6d  %5d  %5.1f %%", kind, s.wanted, s.found, 100*float64(s.found)/float64(s.wanted))
	}
	t.Logf("precision: %d of %d packed for sure, %d of %d candidates", packed-extra, packed, candidates-extraCandidates, candidates)
	require.Equal(t, scores["plain"].wanted, scores["plain"].found)
	require.Zero(t, extra)
}

// With ConfigMaps, what their files name is packed, too.
func TestCorpus_ConfigMaps(t *testing.T) {
	result, err := imagelist.Discover(t.Context(), os.DirFS("testdata/corpus/files"), imagelist.WithConfigMaps())
	require.NoError(t, err)
	i := slices.IndexFunc(result.Images, func(image imagelist.Image) bool { return image.Name == "docker.io/library/busybox:latest" })
	require.GreaterOrEqual(t, i, 0)
	require.False(t, result.Images[i].Candidate)
	require.Equal(t, "manifests/local-path.yaml:14", result.Images[i].Origins[0].String())
}
