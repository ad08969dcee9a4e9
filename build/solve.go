// SPDX-License-Identifier: Apache-2.0

package build

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	dockerconfig "github.com/docker/cli/cli/config"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/fsutil"

	"github.com/sealerio/sealer/build/engine"
	"github.com/sealerio/sealer/build/frontend"
	"github.com/sealerio/sealer/build/toolbox"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/registry"
)

// Names of the content stores that the session offers.
const (
	storeName = "store"
	toolStore = "toolbox"
)

// solved is what BuildKit made.
type solved struct {
	rootfs   []ocispec.Descriptor // the manifest of every platform, in order
	exported []ocispec.Descriptor // BuildKit's attestations
	toolbox  toolboxImage
	warned   bool // something was said that the next build should say, too
}

// solve has BuildKit make the rootfs, and writes its blobs into the store.
func solve(ctx context.Context, o Options, in *inputs, from bases, pack *packer) (_ *solved, err error) {
	opt, tools, err := solveOptions(ctx, o, in, from)
	if err != nil {
		return nil, err
	}
	b, err := openBuilder(ctx, o, from, opt.LocalMounts)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close(ctx)) }()
	opt.Exports[0].OutputStore = b.output
	if b.remote {
		// The daemon's layers have the times at which they were made.
		opt.Exports[0].Attrs["rewrite-timestamp"] = "true"
	}
	var own error // an error that crosses the session loses its type
	var warned atomic.Bool
	build := frontend.New(frontend.Options{
		File: in.file, Ignore: in.ignore, Version: o.Version, Found: pack.add, Charts: o.Charts,
		Warn: func(line string) {
			warned.Store(true)
			o.Warn(line)
		},
		BaseDigest: func(name string) string {
			for _, byName := range from {
				if b, ok := byName[name]; ok {
					return b.top.Digest.String()
				}
			}
			return ""
		},
	})
	resp, err := b.client.Build(ctx, opt, "sealer", func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		r, err := build(ctx, c)
		own = err
		return r, err
	}, o.Display.Solve())
	if err != nil {
		return nil, explain(ctx, o, in, own, err)
	}
	desc, err := exported(resp)
	if err != nil {
		return nil, err
	}
	out, err := split(ctx, o, desc)
	if err != nil {
		return nil, err
	}
	out.toolbox, out.warned = tools, warned.Load()
	return out, nil
}

func solveOptions(ctx context.Context, o Options, in *inputs, from bases) (_ client.SolveOpt, tools toolboxImage, err error) {
	files, err := fsutil.NewFS(o.ContextDir)
	if err != nil {
		return client.SolveOpt{}, tools, fmt.Errorf("opening the build context: %w", err)
	}
	attrs := map[string]string{
		"platform":                          formatPlatforms(o.Platforms),
		"build-arg:SOURCE_DATE_EPOCH":       strconv.FormatInt(o.Epoch.Unix(), 10),
		"build-arg:BUILDKIT_CACHE_MOUNT_NS": digest.FromString(o.ContextDir).Encoded()[:16],
	}
	for k, v := range o.BuildArgs {
		attrs["build-arg:"+k] = v
	}
	for k, v := range o.Labels {
		attrs["label:"+k] = v
	}
	if o.Type != "" {
		attrs[frontend.KeyType] = o.Type
	}
	maps.Copy(attrs, o.discoveryAttributes())
	if o.Target != "" {
		attrs["target"] = o.Target
	}
	if o.NoCache {
		attrs["no-cache"] = ""
	}
	stores := map[string]content.Store{storeName: o.Store.Content()}
	for id, byName := range from {
		for name, b := range byName {
			key, err := contextKey(name)
			if err != nil {
				return client.SolveOpt{}, tools, err
			}
			attrs[key+"::"+id] = "oci-layout://" + storeName + "@" + b.manifest.Digest.String()
		}
	}
	if in.runs {
		if tools, err = offerToolbox(ctx, o, in, attrs, stores); err != nil {
			return client.SolveOpt{}, tools, err
		}
	}
	if o.Provenance.Mode != NoProvenance {
		// It is asked for what ADD downloaded; the rest is written here, without times and build numbers.
		attrs["attest:provenance"] = "mode=min,version=v1"
	}
	providers, err := sessionProviders(o)
	if err != nil {
		return client.SolveOpt{}, tools, err
	}
	opt := client.SolveOpt{
		LocalMounts:   map[string]fsutil.FS{"context": files},
		OCIStores:     stores,
		SharedKey:     digest.FromString(o.ContextDir).Encoded(),
		FrontendAttrs: attrs,
		Session:       providers,
		CacheImports:  cacheEntries(o.CacheFrom),
		CacheExports:  cacheEntries(o.CacheTo),
		Exports: []client.ExportEntry{{Type: client.ExporterOCI, Attrs: map[string]string{
			"tar":               "false",
			"compression":       string(o.Compression),
			"oci-mediatypes":    "true",
			"source-date-epoch": strconv.FormatInt(o.Epoch.Unix(), 10),
		}}},
	}
	maps.Copy(opt.Exports[0].Attrs, manifestAnnotations(o.Annotations))
	if in.hostNet {
		opt.AllowedEntitlements = []string{"network.host"}
	}
	return opt, tools, nil
}

// contextKey is the attribute under which dockerui looks for a name.
func contextKey(name string) (string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", fmt.Errorf("image %q: %w", name, err)
	}
	return "context:" + strings.TrimSuffix(reference.FamiliarString(named), ":latest"), nil
}

func formatPlatforms(list []ocispec.Platform) string {
	words := make([]string, len(list))
	for i, p := range list {
		words[i] = platforms.FormatAll(p)
	}
	return strings.Join(words, ",")
}

// toolboxName is the image that RUN runs in; "" is the one in this binary, or none.
func toolboxName(o Options, in *inputs) string {
	if !in.runs {
		return ""
	}
	return cmp.Or(o.Toolbox, in.file.Directives.Toolbox)
}

// offerToolbox gives the build the image that RUN runs in: the one that was asked for, from the store or a registry, or
// the one in this binary.
func offerToolbox(ctx context.Context, o Options, in *inputs, attrs map[string]string, stores map[string]content.Store) (toolboxImage, error) {
	if name := toolboxName(o, in); name != "" {
		b, err := resolveBase(ctx, o, in.locks, name, buildPlatform())
		if err != nil {
			return toolboxImage{}, fmt.Errorf("toolbox: %w", err)
		}
		key, err := contextKey(name)
		if err != nil {
			return toolboxImage{}, fmt.Errorf("toolbox: %w", err)
		}
		attrs[frontend.KeyToolbox] = name
		attrs[key+"::"+platforms.FormatAll(buildPlatform())] = "oci-layout://" + storeName + "@" + b.manifest.Digest.String()
		return toolboxImage{name, b.top.Digest}, nil
	}
	layout, image, err := toolbox.Unpack(filepath.Join(o.StateDir, "toolbox"), buildPlatform().Architecture)
	if err != nil {
		return toolboxImage{}, err
	}
	cs, err := local.NewStore(layout)
	if err != nil {
		return toolboxImage{}, fmt.Errorf("opening the toolbox: %w", err)
	}
	stores[toolStore] = cs
	attrs["context:"+frontend.ToolboxName+"::"+platforms.FormatAll(buildPlatform())] = "oci-layout://" + toolStore + "@" + image.Digest.String()
	return toolboxImage{digest: image.Digest}, nil
}

func sessionProviders(o Options) ([]session.Attachable, error) {
	dir := o.RegistryOptions.AuthDir
	if dir == "" {
		dir = dockerconfig.Dir()
	}
	cfg, err := dockerconfig.Load(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the logins in %q: %w", dir, err)
	}
	out := []session.Attachable{authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{AuthConfigProvider: authprovider.LoadAuthConfig(cfg)})}
	if len(o.Secrets) > 0 {
		secrets, err := secretProvider(o.Secrets)
		if err != nil {
			return nil, err
		}
		out = append(out, secrets)
	}
	if len(o.SSH) > 0 {
		ssh, err := sshProvider(o.SSH)
		if err != nil {
			return nil, err
		}
		out = append(out, ssh)
	}
	return out, nil
}

// builder is the BuildKit that solves.
type builder struct {
	client *client.Client
	output content.Store
	remote bool
	close  func(context.Context) error
}

func openBuilder(ctx context.Context, o Options, from bases, folders map[string]fsutil.FS) (*builder, error) {
	if o.Builder != "" {
		c, err := engine.Dial(ctx, o.Builder, o.BuilderCerts)
		if err != nil {
			return nil, err
		}
		return &builder{client: c, output: o.Store.Content(), remote: true, close: func(context.Context) error { return c.Close() }}, nil
	}
	isolation, err := engine.ParseIsolation(o.Isolation)
	if err != nil {
		return nil, err
	}
	root := o.Compression.stateDir(o.StateDir)
	if b, err := openShared(ctx, o, root, isolation); b != nil || err != nil {
		return b, err
	}
	e, err := engine.Open(ctx, engine.Options{
		Root: root, Command: "sealer build -t " + o.Tag, Isolation: isolation, Epoch: *o.Epoch,
		Registries: registryHosts(o.RegistryOptions), Notice: o.Warn, Folders: folders,
	})
	if err != nil {
		return nil, err
	}
	var blobs []ocispec.Descriptor
	for _, id := range slices.Sorted(maps.Keys(from)) {
		for _, name := range slices.Sorted(maps.Keys(from[id])) {
			blobs = append(blobs, from[id][name].blobs...)
		}
	}
	release, err := e.Import(ctx, blobs, o.Store.BlobPath)
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return &builder{
		client: e.Client(),
		output: e.Output(o.Store.Content(), o.link),
		close: func(ctx context.Context) error {
			// A cancelled build cleans up too; what it leaves in the cache is bounded by the next one.
			errs := []error{release(context.WithoutCancel(ctx))}
			if ctx.Err() == nil {
				_, err := e.Prune(ctx, engine.PruneOptions{})
				errs = append(errs, err)
			}
			return errors.Join(append(errs, e.Close())...)
		},
	}, nil
}

// link puts a blob of the engine into the store.
func (o Options) link(ctx context.Context, d ocispec.Descriptor, file string) (bool, error) {
	_, err := o.Store.Link(ctx, d, file)
	return err == nil, err
}

// registryHosts gives BuildKit the same mirrors that everything else uses.
func registryHosts(o registry.Options) map[string]engine.RegistryHost {
	out := map[string]engine.RegistryHost{}
	for _, host := range o.Insecure {
		out[host] = engine.RegistryHost{PlainHTTP: true}
	}
	for domain, address := range o.Mirrors {
		u, err := url.Parse(address)
		if err != nil {
			continue // NewClient has refused it
		}
		h := out[domain]
		h.Mirrors = append(h.Mirrors, strings.TrimSuffix(u.Host+u.Path, "/"))
		out[domain] = h
		if u.Scheme == "http" {
			m := out[u.Host]
			m.PlainHTTP = true
			out[u.Host] = m
		}
	}
	return out
}

func exported(resp *client.SolveResponse) (ocispec.Descriptor, error) {
	var desc ocispec.Descriptor
	data, err := base64.StdEncoding.DecodeString(resp.ExporterResponse[exptypes.ExporterImageDescriptorKey])
	if err == nil {
		err = json.Unmarshal(data, &desc)
	}
	if err != nil {
		return desc, fmt.Errorf("reading what the builder exported: %w", err)
	}
	return desc, nil
}

// split takes the exported image apart: the manifest of each platform, and attestations.
func split(ctx context.Context, o Options, desc ocispec.Descriptor) (*solved, error) {
	if !clusterimage.IsIndex(desc.MediaType) {
		return &solved{rootfs: []ocispec.Descriptor{{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size, Platform: &o.Platforms[0]}}}, nil
	}
	var index ocispec.Index
	if err := clusterimage.ReadJSON(ctx, o.Store.Content(), desc, &index); err != nil {
		return nil, fmt.Errorf("reading what the builder exported: %w", err)
	}
	out := &solved{}
	for _, d := range index.Manifests {
		if d.Platform == nil || d.Platform.OS == "unknown" {
			out.exported = append(out.exported, d)
			continue
		}
		out.rootfs = append(out.rootfs, ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: d.Platform})
	}
	slices.SortFunc(out.rootfs, func(a, b ocispec.Descriptor) int {
		return strings.Compare(platforms.FormatAll(*a.Platform), platforms.FormatAll(*b.Platform))
	})
	return out, nil
}
