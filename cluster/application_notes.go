// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	_ "embed"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// noteScript stands before kubectl and helm while an application is launched. What a script calls by its full path, or
// with programs of its own, is not noted.
//
//go:embed scripts/note.sh
var noteScript []byte

// objectRef names an object of the Kubernetes API.
type objectRef struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name"`
	// Of is the digest of the image that made it last.
	Of string `json:"of,omitempty"`
}

// group is the API group; empty for the core's.
func (o objectRef) group() string {
	group, _, ok := strings.Cut(o.APIVersion, "/")
	if !ok {
		return ""
	}
	return group
}

// id tells objects apart, whatever version of their group they are asked for in.
func (o objectRef) id() string {
	return strings.Join([]string{o.group(), o.Kind, o.Namespace, o.Name}, "\x00")
}

func (o objectRef) String() string {
	name := strings.ToLower(o.Kind) + " " + o.Name
	if o.Namespace != "" {
		name = strings.ToLower(o.Kind) + " " + o.Namespace + "/" + o.Name
	}
	return name
}

// releaseRef names a release of helm.
type releaseRef struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Of        string `json:"of,omitempty"` // as objectRef's
}

// notes are what launched commands have made.
type notes struct {
	objects  []objectRef
	releases []releaseRef
}

// parseNotes reads what the script wrote. A last line that was cut is left out.
func parseNotes(text string) notes {
	var n notes
	for line := range strings.Lines(text) {
		line, whole := strings.CutSuffix(line, "\n")
		fields := strings.Split(line, "\t")
		switch {
		case !whole:
		case len(fields) == 5 && fields[0] == "O" && fields[2] != "" && fields[4] != "":
			n.objects = append(n.objects, objectRef{APIVersion: fields[1], Kind: fields[2], Namespace: fields[3], Name: fields[4]})
		case len(fields) == 3 && fields[0] == "R" && fields[2] != "":
			n.releases = append(n.releases, releaseRef{Namespace: fields[1], Name: fields[2]})
		}
	}
	return n
}

// noteDir is where the script is, below the mounted rootfs, with which it goes.
const noteDir = ".sealer-launch"

// startNoted starts something and tells what it has made, also where it failed, or was cut the time before.
func (r *run) startNoted(ctx context.Context, h *runtime.Host, l launched, log io.Writer) (notes, error) {
	dir := path.Join(h.Rootfs, noteDir)
	for _, name := range []string{"kubectl", "helm"} {
		if err := host.WriteFile(ctx, h.Runner, path.Join(dir, name), noteScript, 0o700); err != nil {
			return notes{}, err
		}
	}
	file := path.Join(dir, "notes")
	err := r.start(ctx, h, l, log, "SEALER_NOTING="+dir, "SEALER_NOTES="+file)
	if ctx.Err() != nil {
		return notes{}, err
	}
	text, readErr := host.ReadFile(ctx, h.Runner, file)
	if errors.Is(readErr, fs.ErrNotExist) {
		readErr = nil
	}
	return parseNotes(string(text)), errors.Join(err, readErr)
}

// forgetNotes is called when what was noted is kept elsewhere.
func forgetNotes(ctx context.Context, h *runtime.Host) error {
	return h.Runner.Run(ctx, host.Command{Argv: []string{"rm", "-f", "--", path.Join(h.Rootfs, noteDir, "notes")}, Mutates: true})
}

// add puts what was noted into the record, each once and in the order of its first appearance.
func (a *applicationRecord) add(n notes, of string) {
	for _, o := range n.objects {
		o.Of = of
		if i := slices.IndexFunc(a.Objects, func(have objectRef) bool { return have.id() == o.id() }); i >= 0 {
			a.Objects[i] = o
			continue
		}
		a.Objects = append(a.Objects, o)
	}
	for _, r := range n.releases {
		r.Of = of
		if i := slices.IndexFunc(a.Releases, func(have releaseRef) bool { return have.Name == r.Name && have.Namespace == r.Namespace }); i >= 0 {
			a.Releases[i] = r
			continue
		}
		a.Releases = append(a.Releases, r)
	}
}
