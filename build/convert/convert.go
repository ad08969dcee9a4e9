// SPDX-License-Identifier: Apache-2.0

// Package convert turns the stages of a Kubefile into BuildKit's low-level build graph and an image config. It asks for
// nothing over a network: who calls it says what the images after FROM are.
package convert

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/kubefile"
)

// Base is an image that FROM or COPY --from names.
type Base struct {
	State  llb.State
	Config ocispec.Image
	Name   string // as written; "" for scratch
	Digest string // of the image; "" where the caller does not know
}

// Toolbox is the image that RUN lines run in.
type Toolbox struct {
	State llb.State
	Env   []string // of its config
}

// Options are what the Kubefile itself does not say.
type Options struct {
	Scope  *kubefile.Scope
	Target ocispec.Platform // of the rootfs
	Build  ocispec.Platform // of the machine that builds: the toolbox's
	Source *llb.SourceMap   // of the Kubefile; nil: errors of the solver carry no lines

	// Image resolves an image. It is asked once for each that the target stage needs.
	Image func(ctx context.Context, name string, p ocispec.Platform) (Base, error)
	// Context is the build context, narrowed to paths; none: all of it. It is asked once, when the graph is marshalled.
	Context func(paths []string) llb.State
	// Toolbox is asked when the first RUN needs it.
	Toolbox func(ctx context.Context) (Toolbox, error)

	// Epoch is the time of every file that COPY and ADD write, and SOURCE_DATE_EPOCH of RUN.
	Epoch time.Time

	NoCache bool
	// CacheNamespace separates cache mounts of different users of one builder.
	CacheNamespace string
	// Stage is the stage to build, by name or number; empty: the last.
	Stage string
	// Exact copies every file onto the files below it, as Dockerfile does, never beside them. See Copy in copy.go.
	Exact bool
}

// Result is one platform of a build.
type Result struct {
	State llb.State // the whole rootfs
	// Added is what the Kubefile adds to or changes in Base: reading it unpacks nothing of a base that is only added to.
	Added llb.State
	Base  *Base // nil: scratch
	// Config has everything but what the exporter knows (layers, history) and what is found by reading the rootfs.
	Config    ocispec.Image
	Extension clusterimage.Extension // without Type; those of Apps without their types
	// Apps are the applications of the Kubefile whose types are to be found: by reading Added, which has all their files.
	Apps []App
	// KubeVersion is the line of the KUBEVERSION that the stage has; 0: it has none.
	KubeVersion int
	Labels      map[string]string // of the Kubefile's own LABEL lines
	Warnings    []kubefile.Warning
	// Beside is where files were merged beside others on the assumption that the folder is no symbolic link there. Where
	// it is one, the result is another than Dockerfile's: convert again with Options.Exact.
	Beside []Placement
}

// Placement is a folder that a COPY writes into, and what lies below it. A base that was only added to is not among it:
// looking into it would unpack it.
type Placement struct {
	Dir   string // absolute
	Below []llb.State
}

// ToLLB converts a stage of a Kubefile and those that it needs. An error in a line is a *kubefile.PositionError, a stage
// that is not there a *StageError.
func ToLLB(ctx context.Context, f *kubefile.File, o Options) (*Result, error) {
	target := f.Stages[len(f.Stages)-1]
	if o.Stage != "" {
		var ok bool
		if target, ok = f.LookupStage(o.Stage, len(f.Stages)); !ok {
			return nil, NewStageError(f, o.Stage)
		}
	}
	c := &converter{ctx: ctx, file: f, o: o, stages: make([]*stage, len(f.Stages)), images: map[string]Base{}}
	c.context = llb.NewState(&contextOutput{converter: c})
	last, err := c.stage(target.Index)
	if err != nil {
		return nil, err
	}
	return last.result(c), nil
}

// StageError is a stage that the Kubefile does not have.
type StageError struct {
	File, Stage string
	Have        []string // each with its line
}

// NewStageError says which stages there are in place of one that is not.
func NewStageError(f *kubefile.File, stage string) *StageError {
	e := &StageError{File: f.Name, Stage: stage}
	for _, s := range f.Stages {
		unnamed := ""
		if s.Name == "" {
			unnamed = ", without a name"
		}
		e.Have = append(e.Have, fmt.Sprintf("%s (line %d%s)", s, s.From.Lines().First, unnamed))
	}
	return e
}

func (e *StageError) Error() string {
	return fmt.Sprintf("%s has no stage %q: it has %s", e.File, e.Stage, strings.Join(e.Have, ", "))
}

// Hint tells the user what to do.
func (e *StageError) Hint() string {
	return "a stage gets its name from its line, FROM … AS NAME; one without a name is called by its number, from 0"
}

type converter struct {
	ctx     context.Context
	file    *kubefile.File
	o       Options
	stages  []*stage // nil: not converted
	images  map[string]Base
	context llb.State
	paths   map[string]bool // of the context, relative; "." is all of it
	toolbox *Toolbox
}

func (c *converter) stage(i int) (*stage, error) {
	if s := c.stages[i]; s != nil {
		return s, nil
	}
	in := c.file.Stages[i]
	s, err := c.from(in)
	if err != nil {
		return nil, err
	}
	count := 0
	for _, one := range in.Instructions {
		if changesFiles(one) {
			count++
		}
	}
	step := 0
	for _, one := range in.Instructions {
		expanded, err := s.scope.Expand(one)
		if err != nil {
			return nil, err
		}
		name := one.Text()
		if changesFiles(one) {
			step++
			name = fmt.Sprintf("[%s%d/%d] %s", c.prefix(in), step, count, name)
		}
		if err := c.instruction(s, expanded, name); err != nil {
			return nil, c.at(one.Lines().First, err)
		}
	}
	for _, one := range s.later {
		if err := s.changeApp(one); err != nil {
			return nil, c.at(one.Lines().First, err)
		}
	}
	c.stages[i] = s
	return s, nil
}

// prefix tells stages and platforms apart on the screen.
func (c *converter) prefix(in *kubefile.Stage) string {
	var words []string
	if platforms.FormatAll(c.o.Target) != platforms.FormatAll(c.o.Build) {
		words = append(words, platforms.FormatAll(c.o.Target))
	}
	if len(c.file.Stages) > 1 {
		words = append(words, in.String())
	}
	if len(words) == 0 {
		return ""
	}
	return strings.Join(words, " ") + " "
}

func changesFiles(i kubefile.Instruction) bool {
	switch i.(type) {
	case *kubefile.Copy, *kubefile.Add, *kubefile.Run, *kubefile.App, *kubefile.Workdir:
		return true
	}
	return false
}

// from begins a stage.
func (c *converter) from(in *kubefile.Stage) (*stage, error) {
	line := in.From.Lines().First
	name, platform, err := c.o.Scope.From(in)
	if err != nil {
		return nil, err
	}
	if parent, ok := c.file.LookupName(name, in.Index); ok {
		p, err := c.stage(parent.Index)
		if err != nil {
			return nil, err
		}
		return p.child(in), nil
	}
	s := &stage{in: in, scope: c.o.Scope.Stage(nil), solid: llb.Scratch(), bottom: llb.Scratch(), labels: map[string]string{}, platform: c.o.Target}
	if name == "scratch" {
		return s, nil
	}
	if platform != "" {
		if s.platform, err = platforms.Parse(platform); err != nil {
			return nil, c.at(line, err)
		}
	}
	base, err := c.image(name, s.platform)
	if err != nil {
		return nil, c.at(line, err)
	}
	if err := s.startFrom(c, base); err != nil {
		return nil, c.at(line, err)
	}
	return s, nil
}

// image asks for each image once.
func (c *converter) image(name string, p ocispec.Platform) (Base, error) {
	key := name + " " + platforms.FormatAll(p)
	if b, ok := c.images[key]; ok {
		return b, nil
	}
	b, err := c.o.Image(c.ctx, name, p)
	if err != nil {
		return Base{}, err
	}
	b.Name = name
	c.images[key] = b
	return b, nil
}

func (c *converter) instruction(s *stage, i kubefile.Instruction, name string) error {
	switch i := i.(type) {
	case *kubefile.Copy:
		return c.copy(s, i, name)
	case *kubefile.Add:
		return c.add(s, i, name)
	case *kubefile.Run:
		return c.run(s, i, name)
	case *kubefile.Cmd:
		s.command(i)
	case *kubefile.Entrypoint:
		s.entrypoint(i)
	case *kubefile.Cmds:
		for _, line := range i.Cmds {
			s.launch.Cmds = append(s.launch.Cmds, s.inDir(line))
		}
	case *kubefile.Launch:
		return c.launch(s, i)
	case *kubefile.App:
		return c.app(s, i, name)
	case *kubefile.AppCmds, *kubefile.AppEnv:
		s.later = append(s.later, i)
	case *kubefile.KubeVersion:
		s.labels[clusterimage.LabelKubeVersion] = i.Constraint
		s.kubeVersion = i.Lines().First
	case *kubefile.Env:
		for _, v := range i.Vars {
			s.setEnv(v.Key, v.Value)
		}
	case *kubefile.Label:
		for _, l := range i.Labels {
			if l.Key == clusterimage.LabelExtension || l.Key == clusterimage.LabelVersion {
				return fmt.Errorf("the label %s is written by sealer itself", l.Key)
			}
			s.labels[l.Key] = l.Value
		}
	case *kubefile.Maintainer:
		s.author = i.Name
	case *kubefile.Workdir:
		c.workdir(s, i, name)
	case *kubefile.User:
		s.user = i.User
	case *kubefile.Shell:
		s.shell = i.Args
	case *kubefile.Arg: // the scope has it
	default:
		return fmt.Errorf("this build cannot do %s", i.Text())
	}
	return nil
}

// at gives err the line that it comes from, unless it has one.
func (c *converter) at(line int, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*kubefile.PositionError](err); ok {
		return err
	}
	return At(c.file, line, err)
}

// At is err as a mistake in a line of f, counted from 1.
func At(f *kubefile.File, line int, err error) error {
	return f.ErrorAt(line, "", err)
}

// constraints are what every operation of an instruction carries.
func (c *converter) constraints(lines kubefile.Range, name string, p ocispec.Platform) []llb.ConstraintsOpt {
	opts := []llb.ConstraintsOpt{
		llb.WithCustomName(name),
		llb.Platform(p),
		c.o.Source.Location([]*pb.Range{{Start: &pb.Position{Line: int32(lines.First)}, End: &pb.Position{Line: int32(lines.Last)}}}),
	}
	if c.o.NoCache {
		opts = append(opts, llb.IgnoreCache)
	}
	return opts
}
