// SPDX-License-Identifier: Apache-2.0

package build

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/build/convert"
	"github.com/sealerio/sealer/build/frontend"
	"github.com/sealerio/sealer/imagelist"
	"github.com/sealerio/sealer/kubefile"
)

const maxTextFile = 16 << 20 // Kubefile, lists, ignore files

// inputs are what is known before anything is built.
type inputs struct {
	file    *kubefile.File
	ignore  []string
	listed  []imagelist.Image // of the command line
	ignored *imagelist.Ignored
	locks   *locking

	bases   map[string][]wanted // by platform: the images that the target stage needs, each once
	roots   map[string]string   // by platform: the image at the bottom of the target stage; "" for scratch
	runs    bool                // a RUN needs the toolbox
	hostNet bool                // a RUN asks for the machine's network by name
	// downloads: an ADD, or an APP with a URL, may stand for something else each time.
	downloads bool
	contexts  []*kubefile.Copy // COPY and ADD from the build context
	apps      []*kubefile.App
}

// wanted is an image that a line names.
type wanted struct {
	name     string
	platform ocispec.Platform
	line     int
	targets  []string // platforms that are built and need it
}

// readInputs reads the Kubefile and what stands beside it. Nothing is asked of a network.
func readInputs(o Options) (*inputs, error) {
	src, err := readText(o.Kubefile)
	if err != nil {
		return nil, fmt.Errorf("reading the Kubefile: %w", err)
	}
	in := &inputs{locks: &locking{}, bases: map[string][]wanted{}, roots: map[string]string{}}
	if in.file, err = kubefile.Parse(shownName(o), src); err != nil {
		return nil, err
	}
	if in.file, err = upTo(in.file, o.Target); err != nil {
		return nil, err
	}
	if in.ignore, err = readIgnore(o); err != nil {
		return nil, err
	}
	if err := in.readLists(o); err != nil {
		return nil, err
	}
	for i, p := range o.Platforms {
		scope, err := kubefile.NewScope(in.file, kubefile.ScopeOptions{BuildArgs: o.BuildArgs, Target: p, Build: buildPlatform()})
		if err != nil {
			return nil, err
		}
		w := &walker{in: in, scope: scope, target: p, first: i == 0, seen: map[int]bool{}}
		root, err := w.stage(len(in.file.Stages) - 1)
		if err != nil {
			return nil, err
		}
		in.roots[platforms.FormatAll(p)] = root
	}
	return in, nil
}

// upTo is the file without what stands behind the stage target: nothing before it can ask for that.
func upTo(f *kubefile.File, target string) (*kubefile.File, error) {
	if target == "" {
		return f, nil
	}
	stage, ok := f.LookupStage(target, len(f.Stages))
	if !ok {
		return nil, &OptionsError{convert.NewStageError(f, target)}
	}
	short := *f
	short.Stages = f.Stages[:stage.Index+1]
	return &short, nil
}

func buildPlatform() ocispec.Platform {
	return platforms.Normalize(ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH})
}

// shownName is the Kubefile's name in messages: relative to the context where it lies inside.
func shownName(o Options) string {
	abs, err := filepath.Abs(o.Kubefile)
	if err != nil {
		return o.Kubefile
	}
	if rel, err := filepath.Rel(o.ContextDir, abs); err == nil && filepath.IsLocal(rel) {
		return rel
	}
	return o.Kubefile
}

func readText(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxTextFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxTextFile {
		return nil, fmt.Errorf("%q has more than %d bytes", path, maxTextFile)
	}
	return data, nil
}

// readIgnore takes the first ignore file that there is: the Kubefile's own, ours, Docker's.
func readIgnore(o Options) ([]string, error) {
	for _, path := range []string{
		o.Kubefile + ".dockerignore", filepath.Join(o.ContextDir, ".sealerignore"), filepath.Join(o.ContextDir, ".dockerignore"),
	} {
		data, err := readText(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading the ignore file: %w", err)
		}
		return frontend.ParseIgnore(path, data)
	}
	return []string{}, nil
}

// walker goes through the stages that the last one needs, for one platform.
type walker struct {
	in     *inputs
	scope  *kubefile.Scope
	target ocispec.Platform
	first  bool // platforms differ in images only
	seen   map[int]bool
}

// stage returns the image at the bottom of a stage.
func (w *walker) stage(i int) (string, error) {
	st := w.in.file.Stages[i]
	name, platform, err := w.scope.From(st)
	if err != nil {
		return "", err
	}
	again := w.seen[i]
	w.seen[i] = true
	root := ""
	if parent, ok := w.in.file.LookupName(name, i); ok {
		if root, err = w.stage(parent.Index); err != nil {
			return "", err
		}
	} else if name != "scratch" {
		root = name
		p := w.target
		if platform != "" {
			if p, err = platforms.Parse(platform); err != nil {
				return "", convert.At(w.in.file, st.From.Lines().First, err)
			}
		}
		w.want(name, p, st.From.Lines().First)
	}
	if again {
		return root, nil
	}
	for _, one := range st.Instructions {
		if err := w.instruction(i, one); err != nil {
			return "", err
		}
	}
	return root, nil
}

func (w *walker) instruction(stage int, one kubefile.Instruction) error {
	line := one.Lines().First
	switch one := one.(type) {
	case *kubefile.Copy:
		if one.From != "" {
			return w.from(stage, one.From, line)
		}
		w.context(one)
	case *kubefile.Add:
		w.in.downloads = true
		w.context(&one.Copy)
	case *kubefile.App:
		for _, source := range one.Sources {
			_, local := kubefile.LocalSource(source)
			w.in.downloads = w.in.downloads || !local
		}
		if w.first {
			w.in.apps = append(w.in.apps, one)
		}
	case *kubefile.Run:
		w.in.runs = w.in.runs || !one.InRootfs
		w.in.hostNet = w.in.hostNet || one.Network == "host"
		for _, m := range one.Mounts {
			if m.From != "" {
				if err := w.from(stage, m.From, line); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (w *walker) context(c *kubefile.Copy) {
	if w.first {
		w.in.contexts = append(w.in.contexts, c)
	}
}

func (w *walker) from(stage int, name string, line int) error {
	if other, ok := w.in.file.LookupStage(name, stage); ok {
		_, err := w.stage(other.Index)
		return err
	}
	if n, err := strconv.Atoi(name); err == nil {
		return convert.At(w.in.file, line, fmt.Errorf("there is no stage %d before this line", n))
	}
	if name != "scratch" {
		w.want(name, w.target, line)
	}
	return nil
}

func (w *walker) want(name string, p ocispec.Platform, line int) {
	p = platforms.Normalize(p)
	id, target := platforms.FormatAll(p), platforms.FormatAll(w.target)
	at := slices.IndexFunc(w.in.bases[id], func(have wanted) bool { return have.name == name })
	if at < 0 {
		at = len(w.in.bases[id])
		w.in.bases[id] = append(w.in.bases[id], wanted{name: name, platform: p, line: line})
	}
	if have := &w.in.bases[id][at]; !slices.Contains(have.targets, target) {
		have.targets = append(have.targets, target)
	}
}

// linesOf says which line of the Kubefile names an image.
func (in *inputs) linesOf(name, platform string) []string {
	for _, w := range in.bases[platform] {
		if w.name == name {
			return []string{fmt.Sprintf("%s:%d", in.file.Name, w.line)}
		}
	}
	return nil
}
