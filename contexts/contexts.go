// SPDX-License-Identifier: Apache-2.0

// Package contexts writes build contexts that are ready to be built: for base
// ClusterImages of a distribution, out of rootfs-templates, and for applications.
package contexts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"

	"github.com/containerd/platforms"

	templates "github.com/sealerio/sealer/rootfs-templates"
)

// Options say what to write.
type Options struct {
	// Dir is made where it is missing. No file in it is ever replaced.
	Dir string
	// Runtime is a name of templates.Distributions; "" with App.
	Runtime string
	// Version is that of the distribution, such as v1.36.1+k3s1. With From it may be "": the programs are asked.
	Version string
	// Supported is asked whether the version can be installed, once it is known; nil: any can.
	Supported func(distribution, version string) error
	// Platforms to build for; the default is linux on this machine's architecture.
	Platforms []string
	// From is a folder with programs; "": the Kubefile downloads them.
	From string
	// Checksums are files as sha256sum writes them, for what is downloaded; none: the release is asked for its own.
	Checksums []string
	// Components are versions of what is beside Kubernetes: containerd, runc, crictl, cni.
	Components map[string]string
	// Mirror goes before host and path of every URL: https://mirror/github.com/…; "": the origins.
	Mirror string
	// ImageList is a list of the images, in place of the distribution's own.
	ImageList string
	// HTTP asks for checksums; the default has a time limit of 30 seconds for each request.
	HTTP *http.Client

	// App writes the context of an application, with one image, on the image Base; "" is scratch.
	App         bool
	Base, Image string
}

// Result says what was written.
type Result struct {
	Dir       string     `json:"dir"`
	Runtime   string     `json:"runtime,omitempty"`
	Version   string     `json:"version,omitempty"`
	Platforms []string   `json:"platforms,omitempty"`
	Files     []string   `json:"files"`
	Downloads []Download `json:"downloads,omitempty"`
	// Images says where the list of images comes from.
	Images string   `json:"images,omitempty"`
	Notes  []string `json:"notes,omitempty"`
	// Build is the command that builds it.
	Build string `json:"build"`
}

// Download is what the build will fetch.
type Download struct {
	URL      string `json:"url"`
	Platform string `json:"platform"`
	// Checksum is sha256:…; "": the build compares with what ChecksumURL says then.
	Checksum    string `json:"checksum,omitempty"`
	ChecksumURL string `json:"checksumURL,omitempty"`
}

// Write writes a context, or nothing.
func Write(ctx context.Context, o Options) (Result, error) {
	p := &plan{o: o, result: Result{Dir: o.Dir}}
	if o.Dir == "" {
		return p.result, errors.New("a folder to write to is needed")
	}
	build := p.distribution
	if o.App {
		build = p.application
	}
	if err := build(ctx); err != nil {
		return p.result, err
	}
	return p.result, p.write()
}

// plan is what is going to be written.
type plan struct {
	o      Options
	arches []string
	files  []templates.File
	// links are files of the context that are those of another folder: by their name in the context.
	links  map[string]program
	result Result
}

func (p *plan) note(format string, args ...any) {
	p.result.Notes = append(p.result.Notes, fmt.Sprintf(format, args...))
}

func (p *plan) add(name, text string) {
	p.files = append(p.files, templates.File{Name: name, Data: []byte(text), Mode: 0o644})
}

// distribution plans the context of a base image.
func (p *plan) distribution(ctx context.Context) error {
	files, err := templates.Files(p.o.Runtime)
	if err != nil {
		return err
	}
	if err := p.platforms(); err != nil {
		return err
	}
	k := kubefileData{Runtime: p.o.Runtime, Arches: p.arches}
	if p.o.From != "" {
		err = p.supplied(ctx, &k)
	} else {
		err = p.downloaded(ctx, &k)
	}
	if err != nil {
		return err
	}
	k.Version, p.result.Runtime, p.result.Version = p.o.Version, p.o.Runtime, p.o.Version
	for _, file := range files {
		if file.Name != "Kubefile" { // it is written for what is here
			p.files = append(p.files, file)
		}
	}
	text, err := k.render()
	if err != nil {
		return err
	}
	p.add("Kubefile", text)
	tag, _, _ := strings.Cut(strings.ReplaceAll(p.o.Version, "+", "-"), "@")
	p.result.Build = fmt.Sprintf("sealer build -t %s:%s --platform %s %s", p.o.Runtime, tag, strings.Join(p.result.Platforms, ","), p.o.Dir)
	return nil
}

func (p *plan) platforms() error {
	wanted := p.o.Platforms
	if len(wanted) == 0 {
		wanted = []string{"linux/" + goruntime.GOARCH}
	}
	var errs []error
	for _, text := range wanted {
		platform, err := platforms.Parse(text)
		platform = platforms.Normalize(platform)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("platform %q: %w", text, err))
		case platform.OS != "linux" || machines()[platform.Architecture] == 0:
			errs = append(errs, fmt.Errorf("platform %q: a cluster's hosts are linux on %s", text, strings.Join(architectures(), ", ")))
		case !slices.Contains(p.arches, platform.Architecture):
			p.arches = append(p.arches, platform.Architecture)
			p.result.Platforms = append(p.result.Platforms, "linux/"+platform.Architecture)
		}
	}
	return errors.Join(errs...)
}

// ExistsError lists files that are there already.
type ExistsError struct{ Files []string }

func (e *ExistsError) Error() string {
	return "there already: " + strings.Join(e.Files, ", ")
}

// Hint says what can be done.
func (*ExistsError) Hint() string {
	return "nothing was written, for nothing is ever replaced: name a new folder, or remove these files"
}

// write puts everything into the folder; where that fails, what was written goes away again.
func (p *plan) write() error {
	slices.SortFunc(p.files, func(a, b templates.File) int { return cmp.Compare(a.Name, b.Name) })
	var names []string
	for _, file := range p.files {
		names = append(names, file.Name)
	}
	for name := range p.links {
		names = append(names, name)
	}
	slices.Sort(names)
	var there []string
	for _, name := range names {
		if _, err := os.Lstat(filepath.Join(p.o.Dir, name)); err == nil {
			there = append(there, filepath.Join(p.o.Dir, name))
		}
	}
	if len(there) > 0 {
		return &ExistsError{Files: there}
	}
	var made []string // folders, in the order in which they were made
	mkdir := func(dir string) error {
		var missing []string
		for ; ; dir = filepath.Dir(dir) {
			if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
				break
			}
			missing = append(missing, dir)
		}
		for _, dir := range slices.Backward(missing) {
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("making a folder of the context: %w", err)
			}
			made = append(made, dir)
		}
		return nil
	}
	err := mkdir(p.o.Dir)
	for _, name := range names {
		if err == nil {
			err = mkdir(filepath.Dir(filepath.Join(p.o.Dir, name)))
		}
	}
	if err == nil {
		err = templates.Write(p.files, p.o.Dir)
	}
	for _, name := range names {
		if from, ok := p.links[name]; ok && err == nil {
			err = from.place(filepath.Join(p.o.Dir, name))
		}
	}
	if err != nil {
		for _, name := range names { // none was there before
			_ = os.Remove(filepath.Join(p.o.Dir, name))
		}
		for _, dir := range slices.Backward(made) {
			_ = os.Remove(dir)
		}
		return err
	}
	p.result.Files = names
	return nil
}
