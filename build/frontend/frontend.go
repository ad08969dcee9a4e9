// SPDX-License-Identifier: Apache-2.0

// Package frontend is the build of a Kubefile as BuildKit calls it: read, convert, solve, look what was made, stamp it.
// The same function serves the BuildKit in this process, one behind --builder, and a gateway image.
package frontend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"sync"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/build/convert"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/clusterimage/layout"
	"github.com/sealerio/sealer/imagelist"
	"github.com/sealerio/sealer/imagelist/chart"
	"github.com/sealerio/sealer/kubefile"
)

const (
	// DefaultName is the file that is read where the caller names none.
	DefaultName = "Kubefile"
	// ToolboxName is the named context (attribute "context:sealer/toolbox") that holds the default toolbox.
	ToolboxName = "sealer/toolbox"
	// KeyToolbox is the attribute that names another toolbox image.
	KeyToolbox = "toolbox"
	// KeyType is the attribute that says kube-installer or app-installer, where the rootfs shall not decide.
	KeyType = "type"

	// KeyKubeVersion is the attribute with the version of Kubernetes that charts are rendered for.
	KeyKubeVersion = "kube-version"
	// KeyAPIVersions is the attribute with further API versions that charts see, separated by commas.
	KeyAPIVersions = "api-versions"
	// KeyConfigMaps is the attribute that says "true" where files in ConfigMaps ask for images, too.
	KeyConfigMaps = "config-maps"

	keyFilename = "filename"
	keyEpoch    = "SOURCE_DATE_EPOCH"
)

// Options are what a caller in the same process has at hand. The zero value is that of a gateway image: it reads
// everything through BuildKit.
type Options struct {
	File    *kubefile.File // nil: read from the builder
	Ignore  []string       // patterns of the ignore file, with File
	Version string         // of sealer, for the label
	// BaseDigest is the digest of the ClusterImage that FROM names, where the caller knows better than the builder: that
	// knows the manifest of one platform. nil or "": the builder's.
	BaseDigest func(name string) string
	// Found is told what a platform's rootfs asks for, before it is exported, and may read the rootfs until it returns.
	// Platforms come in any order, at once. nil: the images become layers of the result, as package layout has it.
	Found func(ctx context.Context, p ocispec.Platform, images []imagelist.Image, rootfs fs.FS) error
	// Charts renders charts; nil: they are reported, and what they ask for is not found.
	Charts chart.Renderer
	// Warn is told what is probably not meant. nil: to the builder's progress.
	Warn func(line string)
}

// New returns a build. An error in a line of the Kubefile is a *kubefile.PositionError; one of the solver carries the
// line as errdefs.Source.
func New(o Options) client.BuildFunc {
	return func(ctx context.Context, c client.Client) (*client.Result, error) {
		if attrs := c.BuildOpts().Opts; attrs[keyFilename] == "" {
			attrs[keyFilename] = DefaultName // dockerui reads the same map
		}
		ui, err := dockerui.NewClient(c)
		if err != nil {
			return nil, err
		}
		b := &builder{o: o, ui: ui, gateway: c}
		if err := b.read(ctx); err != nil {
			return nil, b.locate(err)
		}
		if len(ui.TargetPlatforms) == 0 {
			ui.TargetPlatforms = []ocispec.Platform{ui.BuildPlatforms[0]}
		}
		result, err := ui.Build(ctx, b.platform)
		if err != nil {
			return nil, b.locate(b.nameDownload(err))
		}
		return result.Finalize()
	}
}

// builder is one build.
type builder struct {
	o       Options
	ui      *dockerui.Client
	gateway client.Client
	file    *kubefile.File
	source  *llb.SourceMap
	ignore  []string // nil: dockerui's own
	warn    func(context.Context, string, client.WarnOpts)
	byURL   sync.Map // hosts of which documents can be had by URL only
	// downloads are what was asked for by URL, by the solver's digest of it.
	downloads sync.Map
	said      sync.Map // warnings
}

// read gets the Kubefile and the ignore patterns.
func (b *builder) read(ctx context.Context) error {
	if b.o.File != nil {
		b.file, b.ignore = b.o.File, b.o.Ignore
		if b.ignore == nil {
			b.ignore = []string{}
		}
		b.source = llb.NewSourceMap(nil, b.file.Name, "Dockerfile", b.file.Source)
		return nil
	}
	src, err := b.ui.ReadEntrypoint(ctx, "Dockerfile")
	if err != nil {
		return fmt.Errorf("reading the Kubefile: %w", err)
	}
	b.source, b.warn = src.SourceMap, src.Warn
	if b.file, err = kubefile.Parse(src.Filename, src.Data); err != nil {
		return err
	}
	b.ignore, err = b.readIgnore(ctx)
	return err
}

// locate adds the lines of our own errors in the form that every BuildKit client shows.
func (b *builder) locate(err error) error {
	var positioned *kubefile.PositionError
	if b.source == nil || !errors.As(err, &positioned) {
		return err
	}
	line := int32(positioned.Line)
	return errdefs.WithSource(err, &errdefs.Source{
		Info:   &pb.SourceInfo{Filename: b.source.Filename, Data: b.source.Data, Language: b.source.Language},
		Ranges: []*pb.Range{{Start: &pb.Position{Line: line}, End: &pb.Position{Line: line}}},
	})
}

// say warns once: most of what is said of one platform is true of all.
func (b *builder) say(ctx context.Context, warning string) {
	if _, again := b.said.LoadOrStore(warning, true); again {
		return
	}
	switch {
	case b.o.Warn != nil:
		b.o.Warn(warning)
	case b.warn != nil:
		b.warn(ctx, warning, client.WarnOpts{})
	}
}

// platform builds one platform.
func (b *builder) platform(ctx context.Context, p *ocispec.Platform, index int) (*dockerui.BuildResult, error) {
	target := platforms.Normalize(*p)
	build := platforms.Normalize(b.ui.BuildPlatforms[0])
	scope, err := kubefile.NewScope(b.file, kubefile.ScopeOptions{BuildArgs: b.ui.BuildArgs, Target: target, Build: build})
	if err != nil {
		return nil, err
	}
	at, err := epoch(b.ui.BuildArgs[keyEpoch])
	if err != nil {
		return nil, err
	}
	made, contextErr, err := b.convert(ctx, scope, target, build, at)
	if err != nil {
		return nil, err
	}
	// What the command line says wins over LABEL lines.
	maps.Copy(made.Labels, b.ui.Labels)
	maps.Copy(made.Config.Config.Labels, b.ui.Labels)
	if index == 0 {
		b.warnings(ctx, scope, made)
	}
	found, err := b.look(ctx, made)
	if err = errors.Join(err, *contextErr); err != nil {
		return nil, err
	}
	var images []llb.State
	if b.o.Found != nil {
		if err := b.o.Found(ctx, target, found.images, found.files); err != nil {
			return nil, err
		}
	} else {
		var label string
		if images, label, err = b.pack(ctx, made.Base, found.images, target, at); err != nil {
			return nil, err
		}
		made.Config.Config.Labels[layout.Label] = label
	}
	return b.finish(ctx, made, found, images, target, at)
}

// convert makes the graph; exactly as a Dockerfile's where the quicker way would give other files. The context is opened
// when the graph is marshalled, and contextErr is set then.
func (b *builder) convert(ctx context.Context, scope *kubefile.Scope, target, build ocispec.Platform, at time.Time) (_ *convert.Result, contextErr *error, err error) {
	contextErr = new(error)
	o := convert.Options{
		Scope: scope, Target: target, Build: build, Source: b.source,
		Image: b.image,
		Context: func(paths []string) llb.State {
			var st llb.State
			st, *contextErr = b.context(ctx, paths)
			return st
		},
		Toolbox:        func(ctx context.Context) (convert.Toolbox, error) { return b.toolbox(ctx, build) },
		Epoch:          at,
		NoCache:        b.ui.IsNoCache(""),
		Stage:          b.ui.Target,
		CacheNamespace: b.ui.CacheIDNamespace,
	}
	made, err := convert.ToLLB(ctx, b.file, o)
	if err != nil {
		return nil, contextErr, err
	}
	if o.Exact, err = b.throughLinks(ctx, made.Beside); err != nil || !o.Exact {
		return made, contextErr, err
	}
	made, err = convert.ToLLB(ctx, b.file, o)
	return made, contextErr, err
}

// throughLinks says whether a COPY goes through a symbolic link that lies below it.
func (b *builder) throughLinks(ctx context.Context, places []convert.Placement) (bool, error) {
	known := map[llb.Output]*refFS{}
	for _, p := range places {
		for _, st := range p.Below {
			files, ok := known[st.Output()]
			if !ok {
				ref, err := b.solve(ctx, st, true)
				if err != nil {
					return false, err
				}
				files = newRefFS(ctx, ref)
				known[st.Output()] = files
			}
			if linked, err := files.throughLink(p.Dir); err != nil || linked {
				return linked, err
			}
		}
	}
	return false, nil
}

func (b *builder) warnings(ctx context.Context, scope *kubefile.Scope, made *convert.Result) {
	for _, w := range append(b.file.Warnings, made.Warnings...) {
		b.say(ctx, w.String())
	}
	for _, name := range scope.UnusedBuildArgs() {
		b.say(ctx, fmt.Sprintf("build argument %s is not used: no ARG line of %s asks for it", name, b.file.Name))
	}
}

// finish stamps the rootfs, adds the layers with images and gives the result that is exported.
func (b *builder) finish(ctx context.Context, made *convert.Result, found *findings, images []llb.State, target ocispec.Platform, at time.Time) (*dockerui.BuildResult, error) {
	meta, err := found.metadata(made, target)
	if err != nil {
		return nil, err
	}
	if made.KubeVersion > 0 && meta.KubeVersion != "" {
		err := clusterimage.CheckKubeVersion(made.Labels[clusterimage.LabelKubeVersion], meta.KubeVersion)
		if err != nil {
			return nil, convert.At(b.file, made.KubeVersion, fmt.Errorf("KUBEVERSION: %w", err))
		}
	}
	describe(made, meta, b.o.Version, b.ui.BuildOpts().Opts[KeyType])
	delete(made.Config.Config.Labels, layout.LabelSource) // of the base
	stamp := llb.Scratch().File(llb.Mkfile("/Metadata", 0o644, meta.Marshal(), llb.WithCreatedTime(at)), llb.WithCustomName("[internal] writing Metadata"), llb.Platform(target))
	st := stamp
	parts := append([]llb.State{stamp}, images...)
	if made.State.Output() != nil {
		parts = append([]llb.State{made.State}, parts...)
	}
	if len(parts) > 1 {
		st = llb.Merge(parts, llb.WithCustomName("[internal] putting the rootfs together"))
	}
	ref, err := b.solve(ctx, st, true)
	if err != nil {
		return nil, err
	}
	out := &dockerui.BuildResult{Reference: ref, Image: &dockerspec.DockerOCIImage{Image: made.Config}}
	out.Image.Config.ImageConfig = made.Config.Config
	out.Image.History = append(out.Image.History, convert.History(at, "Metadata"))
	out.Epoch = &at
	if made.Base != nil { // the exporter leaves a base's layers as they are
		out.BaseImage = &dockerspec.DockerOCIImage{Image: made.Base.Config}
	}
	return out, nil
}

func (b *builder) solve(ctx context.Context, st llb.State, evaluate bool) (client.Reference, error) {
	caps := b.ui.BuildOpts().Caps
	def, err := st.Marshal(ctx, llb.WithCaps(caps))
	if err != nil {
		return nil, err
	}
	b.noteDownloads(def)
	res, err := b.gateway.Solve(ctx, client.SolveRequest{Definition: def.ToPB(), Evaluate: evaluate, CacheImports: b.ui.CacheImports})
	if err != nil {
		return nil, err
	}
	return res.SingleRef()
}
