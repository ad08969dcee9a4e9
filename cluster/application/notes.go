// SPDX-License-Identifier: Apache-2.0

package application

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"slices"
	"strings"
)

// noteScript stands before kubectl and helm while an application is launched. What a script calls by its full path, or
// with programs of its own, is not noted.
//
//go:embed scripts/note.sh
var noteScript []byte

// NoteScript is a program to be found as kubectl and helm before those, while an application is launched.
func NoteScript() []byte { return noteScript }

// Object names an object of the Kubernetes API.
type Object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name"`
	// Of is the digest of the image that made it last.
	Of string `json:"of,omitempty"`
	// By are the parts of that image that made it; none where an older sealer has noted it.
	By []string `json:"by,omitempty"`
}

// group is the API group; empty for the core's.
func (o Object) group() string {
	group, _, ok := strings.Cut(o.APIVersion, "/")
	if !ok {
		return ""
	}
	return group
}

// id tells objects apart, whatever version of their group they are asked for in.
func (o Object) id() string {
	return strings.Join([]string{o.group(), o.Kind, o.Namespace, o.Name}, "\x00")
}

func (o Object) String() string {
	name := strings.ToLower(o.Kind) + " " + o.Name
	if o.Namespace != "" {
		name = strings.ToLower(o.Kind) + " " + o.Namespace + "/" + o.Name
	}
	return name
}

// Release names a release of helm.
type Release struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Of and By are as Object's.
	Of string   `json:"of,omitempty"`
	By []string `json:"by,omitempty"`
}

func (r Release) is(o Release) bool { return r.Name == o.Name && r.Namespace == o.Namespace }

// Maker is what an application's objects are told apart by: an application of its image or, where that is empty, a command.
func Maker(app, command string) string {
	if app != "" {
		return "app " + app
	}
	sum := sha256.Sum256([]byte(command)) // it may hold secrets
	return "cmd " + hex.EncodeToString(sum[:8])
}

// Notes are what launched commands have made.
type Notes struct {
	Objects  []Object
	Releases []Release
}

// Words name all of them.
func (n Notes) Words() []string {
	var words []string
	for _, o := range n.Objects {
		words = append(words, o.String())
	}
	for _, r := range n.Releases {
		words = append(words, "helm release "+r.Namespace+"/"+r.Name)
	}
	return words
}

// ParseNotes reads what the script wrote. A last line that was cut is left out.
func ParseNotes(text string) Notes {
	var n Notes
	for line := range strings.Lines(text) {
		line, whole := strings.CutSuffix(line, "\n")
		fields := strings.Split(line, "\t")
		switch {
		case !whole:
		case len(fields) == 5 && fields[0] == "O" && fields[2] != "" && fields[4] != "":
			n.Objects = append(n.Objects, Object{APIVersion: fields[1], Kind: fields[2], Namespace: fields[3], Name: fields[4]})
		case len(fields) == 3 && fields[0] == "R" && fields[2] != "":
			n.Releases = append(n.Releases, Release{Namespace: fields[1], Name: fields[2]})
		}
	}
	return n
}

// Add puts what a part of the image with the digest of has made into the record, each once and in the order of its first appearance.
func (a *Record) Add(n Notes, of, by string) {
	// What an older sealer has noted may be of other parts as well.
	makers := func(wasOf string, was []string) []string {
		switch {
		case wasOf != of:
			return []string{by}
		case len(was) == 0 || slices.Contains(was, by):
			return was
		}
		return append(slices.Clone(was), by)
	}
	for _, o := range n.Objects {
		o.Of, o.By = of, []string{by}
		if i := slices.IndexFunc(a.Objects, func(have Object) bool { return have.id() == o.id() }); i >= 0 {
			o.By = makers(a.Objects[i].Of, a.Objects[i].By)
			a.Objects[i] = o
			continue
		}
		a.Objects = append(a.Objects, o)
	}
	for _, r := range n.Releases {
		r.Of, r.By = of, []string{by}
		if i := slices.IndexFunc(a.Releases, r.is); i >= 0 {
			r.By = makers(a.Releases[i].Of, a.Releases[i].By)
			a.Releases[i] = r
			continue
		}
		a.Releases = append(a.Releases, r)
	}
}
