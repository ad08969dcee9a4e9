// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/patternmatcher/ignorefile"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/build/convert"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/imagelist"
)

const (
	ignoreName    = ".sealerignore" // goes before .dockerignore
	maxIgnoreFile = 1 << 20
)

// image resolves FROM and COPY --from: what the caller offers under that name (its store), else a registry.
func (b *builder) image(ctx context.Context, name string, p ocispec.Platform) (convert.Base, error) {
	var dgst digest.Digest
	named, err := b.ui.NamedContext(name, dockerui.ContextOpt{Platform: &p, ResolveMode: b.ui.ImageResolveMode.String(), CaptureDigest: &dgst})
	if err != nil {
		return convert.Base{}, err
	}
	out := convert.Base{Name: name}
	if named != nil {
		st, img, err := named.Load(ctx)
		if err != nil {
			return out, fmt.Errorf("loading %q: %w", name, err)
		}
		out.State = *st
		if img != nil {
			out.Config = img.Image
			out.Config.Config = img.Config.ImageConfig
		}
	} else {
		st, config, d, err := b.pull(ctx, name, p)
		if err != nil {
			return out, fmt.Errorf("resolving %q: %w", name, err)
		}
		out.State, out.Config, dgst = st, config, d
	}
	out.Digest = dgst.String()
	if b.o.BaseDigest != nil {
		if d := b.o.BaseDigest(name); d != "" {
			out.Digest = d
		}
	}
	return out, nil
}

func (b *builder) pull(ctx context.Context, name string, p ocispec.Platform) (llb.State, ocispec.Image, digest.Digest, error) {
	var config ocispec.Image
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return llb.State{}, config, "", err
	}
	ref := reference.TagNameOnly(named).String()
	ref, d, data, err := b.gateway.ResolveImageConfig(ctx, ref, sourceresolver.Opt{
		LogName:  "[internal] load metadata for " + ref,
		ImageOpt: &sourceresolver.ResolveImageOpt{Platform: &p, ResolveMode: b.ui.ImageResolveMode.String()},
	})
	if err != nil {
		return llb.State{}, config, "", err
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return llb.State{}, config, "", fmt.Errorf("reading its config: %w", err)
	}
	st, err := llb.Image(ref, llb.Platform(p), b.ui.ImageResolveMode, llb.WithCustomName("FROM "+ref)).WithImageConfig(data)
	return st, config, d, err
}

// toolbox resolves the image that RUN runs in, always for the platform that builds.
func (b *builder) toolbox(ctx context.Context, p ocispec.Platform) (convert.Toolbox, error) {
	name := b.ui.BuildOpts().Opts[KeyToolbox]
	if name == "" {
		name = b.file.Directives.Toolbox
	}
	if name == "" {
		name = ToolboxName
		named, err := b.ui.NamedContext(name, dockerui.ContextOpt{Platform: &p})
		if err != nil {
			return convert.Toolbox{}, err
		}
		if named == nil {
			return b.ownToolbox(ctx, p)
		}
	}
	base, err := b.image(ctx, name, p)
	if err != nil {
		return convert.Toolbox{}, fmt.Errorf("toolbox: %w", err)
	}
	return convert.Toolbox{State: base.State, Env: base.Config.Config.Env}, nil
}

// NoToolboxError is returned for a RUN line where there is nothing to run it in.
type NoToolboxError struct{}

func (*NoToolboxError) Error() string { return "there is no toolbox to run this in" }

// Hint says how to name one.
func (*NoToolboxError) Hint() string {
	return "name an image with `# toolbox=IMAGE` at the top of the Kubefile or with --toolbox IMAGE"
}

// context is the build context, or the named paths of it.
func (b *builder) context(ctx context.Context, paths []string) (llb.State, error) {
	var opts []llb.LocalOption
	if len(paths) > 0 {
		opts = append(opts, llb.FollowPaths(paths))
	}
	if b.o.File != nil {
		opts = append(opts, llb.SessionID(b.ui.BuildOpts().SessionID), llb.SharedKeyHint(dockerui.DefaultLocalNameContext),
			llb.ExcludePatterns(b.ignore), dockerui.WithInternalName("load build context"))
		return llb.Local(dockerui.DefaultLocalNameContext, opts...), nil
	}
	if b.ignore != nil {
		opts = append(opts, llb.ExcludePatterns(b.ignore))
	}
	st, err := b.ui.MainContext(ctx, opts...)
	if err != nil {
		return llb.Scratch(), fmt.Errorf("reading the build context: %w", err)
	}
	return *st, nil
}

// readIgnore looks for our own ignore file in the builder's context; nil: there is none.
func (b *builder) readIgnore(ctx context.Context) ([]string, error) {
	st := llb.Local(dockerui.DefaultLocalNameContext, llb.SessionID(b.ui.BuildOpts().SessionID), llb.FollowPaths([]string{ignoreName}),
		llb.SharedKeyHint(dockerui.DefaultLocalNameContext+"-"+ignoreName), dockerui.WithInternalName("load "+ignoreName), llb.Differ(llb.DiffNone, false))
	ref, err := b.solve(ctx, st, false)
	if err != nil {
		return nil, nil // the context is not a folder of the client: a repository or an archive has no such file
	}
	data, err := fs.ReadFile(newRefFS(ctx, ref), ignoreName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", ignoreName, err)
	}
	return ParseIgnore(ignoreName, data)
}

// ParseIgnore reads the patterns of an ignore file, of at most 1 MiB. The result is never nil.
func ParseIgnore(name string, data []byte) ([]string, error) {
	if len(data) > maxIgnoreFile {
		return nil, fmt.Errorf("reading %s: it has %d bytes, more than %d", name, len(data), maxIgnoreFile)
	}
	patterns, err := ignorefile.ReadAll(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if patterns == nil {
		patterns = []string{}
	}
	return patterns, nil
}

// discovery is how images are looked for: as the caller says; charts are rendered for the base's Kubernetes, where the
// caller names none.
func (b *builder) discovery(made *convert.Result) []imagelist.Option {
	attrs := b.ui.BuildOpts().Opts
	options := []imagelist.Option{imagelist.WithCharts(b.o.Charts)}
	version := attrs[KeyKubeVersion]
	if version == "" && made.Base != nil {
		if version = made.Base.Config.Config.Labels[clusterimage.LabelClusterRuntimeVersion]; imagelist.CheckKubeVersion(version) != nil {
			version = ""
		}
	}
	if version != "" {
		options = append(options, imagelist.WithKubeVersion(version))
	}
	if list := attrs[KeyAPIVersions]; list != "" {
		options = append(options, imagelist.WithAPIVersions(strings.Split(list, ",")...))
	}
	if attrs[KeyConfigMaps] == "true" {
		options = append(options, imagelist.WithConfigMaps())
	}
	return options
}

// epoch reads SOURCE_DATE_EPOCH, https://reproducible-builds.org/specs/source-date-epoch/; empty is 1970.
func epoch(value string) (time.Time, error) {
	if value == "" {
		return time.Unix(0, 0).UTC(), nil
	}
	seconds, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("reading %s: %w", keyEpoch, err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}
