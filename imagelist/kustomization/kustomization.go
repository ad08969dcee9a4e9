// SPDX-License-Identifier: Apache-2.0

// Package kustomization builds kustomizations with kustomize's own library, from
// the files that are there: nothing is fetched, no program is started, and both
// are reported where a kustomization asks for them.
package kustomization

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
)

// Rendered is an object that a kustomization makes.
type Rendered struct {
	File string // that the object comes from, in fsys; the kustomization's own where kustomize does not know
	Text string
}

// Problem is something that keeps a kustomization, or a part of it, from being built.
type Problem struct {
	File    string // in fsys
	Line    int    // counted from 1; 0 where it is not known
	Message string
}

// Result is what became of a kustomization.
type Result struct {
	Rendered []Rendered
	Problems []Problem
	// Read holds the files that were read, in fsys: what they say counts as it was built, not as it stands there. It is
	// empty where the build failed.
	Read map[string]bool
}

// IsFile says whether a file of that name makes its folder a kustomization.
func IsFile(base string) bool {
	return base == "kustomization.yaml" || base == "kustomization.yml" || base == "Kustomization"
}

// Bases are the folders that a kustomization's file names, relative to fsys:
// they are built as parts of it, not for themselves.
func Bases(file string, data []byte) []string {
	var k struct {
		Resources, Bases, Components []string
	}
	if err := yaml.NewDecoder(bytes.NewReader(data)).Decode(&k); err != nil {
		return nil // Build says what is wrong
	}
	var out []string
	for _, list := range [][]string{k.Resources, k.Bases, k.Components} {
		for _, entry := range list {
			out = append(out, path.Join(path.Dir(file), entry))
		}
	}
	return out
}

// Build builds the kustomization of a folder of fsys. file is its kustomization's name.
func Build(fsys fs.FS, file string) (result Result) {
	f := &files{fsys: fsys, read: map[string]bool{}, left: maxRead}
	seen := map[Problem]bool{}
	f.problem = func(file string, line int, message string) {
		if p := (Problem{file, line, message}); !seen[p] {
			seen[p] = true
			result.Problems = append(result.Problems, p)
		}
	}
	fail := func(err error) {
		text := strings.ReplaceAll(strings.Join(strings.Fields(err.Error()), " "), "'/", "'")
		f.problem(file, 0, "the kustomization cannot be built: "+text)
	}
	defer func() {
		if r := recover(); r != nil { // the library panics on some mistakes
			fail(fmt.Errorf("%v", r))
			result.Rendered, result.Read = nil, nil
		}
	}()
	options := krusty.MakeDefaultOptions()
	options.LoadRestrictions = types.LoadRestrictionsNone // the file system ends where fsys ends
	made, err := krusty.MakeKustomizer(options).Run(f, path.Join("/", path.Dir(file)))
	if err != nil {
		fail(err)
		return result
	}
	for _, r := range made.Resources() {
		one := Rendered{File: file}
		if origin, err := r.GetOrigin(); err == nil && origin != nil && origin.Path != "" {
			one.File = path.Join(path.Dir(file), origin.Path)
		}
		text, err := r.AsYAML()
		if err != nil {
			fail(err)
			continue
		}
		one.Text = string(text)
		result.Rendered = append(result.Rendered, one)
	}
	result.Read = f.read
	return result
}
