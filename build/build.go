// SPDX-License-Identifier: Apache-2.0

// Package build makes a ClusterImage of a Kubefile: BuildKit makes the rootfs, while the container images that it asks
// for are fetched beside it; the index is composed and the tag set last.
package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sealerio/sealer/build/engine"
	"github.com/sealerio/sealer/build/frontend"
	"github.com/sealerio/sealer/build/policy"
	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/imagelist"
	"github.com/sealerio/sealer/imagelist/chart"
	"github.com/sealerio/sealer/internal/progress"
	"github.com/sealerio/sealer/registry"
	"github.com/sealerio/sealer/store"
)

// Options are one build.
type Options struct {
	ContextDir string             // of COPY; "" is the current folder
	Kubefile   string             // "" is Kubefile in the context
	Tag        string             // the name of the result
	Tags       []string           // further names of it
	Platforms  []ocispec.Platform // none: Linux on this machine's architecture
	BuildArgs  map[string]string
	ImageLists []string // further files like imageList
	// Images are further images to pack.
	Images []imagelist.Image
	// IgnoredLists are files with patterns of images that are not packed.
	IgnoredLists []string
	Lock         bool // write what the names stand for beside the Kubefile
	Locked       bool // take from that file what names stand for
	resolveOnly  bool // no layers of images
	// gone is told of images that cannot be had, and tells whether the lock's check goes on; nil: they are errors.
	gone func(registry.ImageRequest, error) bool

	KubeVersion string   // that charts are rendered for; "": the base's, or that of the packed kube-apiserver
	APIVersions []string // that charts see in the cluster, beyond those of Kubernetes
	ConfigMaps  bool     // the files in ConfigMaps ask for images, too
	// Charts renders charts; nil: they are reported, and what they ask for is not packed.
	Charts chart.Renderer

	Target string // the stage to build; "" is the last
	Mode   Mode   // "" is All
	Type   string // clusterimage.KubeInstaller or AppInstaller; "": what the rootfs is
	Labels map[string]string
	// Annotations of the index and of the rootfs' manifests.
	Annotations []Annotation

	Builder      string      // address of a BuildKit daemon; "": BuildKit in this process
	BuilderCerts string      // folder with ca.pem, cert.pem, key.pem for a tcp:// builder
	CacheFrom    []Cache     // to read layers from
	CacheTo      []Cache     // to write layers to
	StateDir     string      // of the BuildKit in this process
	Isolation    string      // auto, runc, chroot; "" is auto
	Compression  Compression // of the layers that are made; "" is Zstd

	Store    *store.Store
	Registry *registry.Client
	// RegistryOptions is what Registry was made of; the builder's own downloads (ADD of an image's cache) follow it.
	RegistryOptions registry.Options
	Display         *progress.Display // nil: silent
	// Warn is told of what is probably not meant, a line at a time. nil: silent.
	Warn func(line string)

	Toolbox string     // image that RUN runs in; "": the Kubefile's, else the one in this binary
	Epoch   *time.Time // of all files and configs; nil: $SOURCE_DATE_EPOCH, else 1970
	NoCache bool
	Pull    Pull     // when images of FROM are asked for; "" is Missing
	Secrets []Secret // for RUN --mount=type=secret
	SSH     []string // for RUN --mount=type=ssh: ID[=SOCKET|KEY], as docker build --ssh takes them
	Version string   // of sealer, for the image's label

	Policy     *policy.Policy // which images may go in; nil: all
	Provenance Provenance
	SBOM       bool // list what is in the rootfs, and the packed images
}

// Result is what a build made.
type Result struct {
	Name       string   // normalised
	Names      []string // all of them, Name first
	Descriptor ocispec.Descriptor
}

// OptionsError joins every mistake in Options.
type OptionsError struct{ Err error }

func (e *OptionsError) Error() string { return e.Err.Error() }
func (e *OptionsError) Unwrap() error { return e.Err }

// complete fills in defaults and reports every mistake.
func (o *Options) complete() error {
	var errs []error
	if o.ContextDir == "" {
		o.ContextDir = "."
	}
	dir, err := filepath.Abs(o.ContextDir)
	if err == nil {
		var info os.FileInfo
		if info, err = os.Stat(dir); err == nil && !info.IsDir() {
			err = fmt.Errorf("%q is no folder", o.ContextDir)
		}
	}
	if err != nil {
		errs = append(errs, fmt.Errorf("build context: %w", err))
	}
	o.ContextDir = dir
	if o.Kubefile == "" {
		o.Kubefile = filepath.Join(dir, frontend.DefaultName)
	}
	errs = append(errs, o.completeNames()...)
	errs = append(errs, o.completeKinds()...)
	if _, err := engine.ParseIsolation(o.Isolation); err != nil {
		errs = append(errs, err)
	}
	if o.Compression, err = ParseCompression(string(o.Compression)); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, o.completePlatforms()...)
	if o.Lock && o.Locked {
		errs = append(errs, errLockOptions)
	}
	if o.Epoch == nil {
		t, err := environmentEpoch()
		if err != nil {
			errs = append(errs, err)
		}
		o.Epoch = &t
	}
	o.Warn = once(o.Warn)
	if err := errors.Join(errs...); err != nil {
		return &OptionsError{Err: err}
	}
	o.warnOfOtherPlatforms()
	return nil
}

// completePlatforms takes this machine's where none is named.
func (o *Options) completePlatforms() []error {
	if len(o.Platforms) == 0 {
		o.Platforms = []ocispec.Platform{{OS: "linux", Architecture: runtime.GOARCH}}
	}
	var errs []error
	seen := map[string]bool{}
	o.Platforms = slices.Clone(o.Platforms)
	for i, p := range o.Platforms {
		p = platforms.Normalize(p)
		o.Platforms[i] = p
		id := platforms.FormatAll(p)
		if seen[id] {
			errs = append(errs, fmt.Errorf("platform %s is named twice", id))
		}
		seen[id] = true
		if p.OS != "linux" {
			errs = append(errs, fmt.Errorf("platform %s: clusters run on linux", id))
		} else if err := imagelist.CheckArchitecture(p.Architecture); err != nil {
			errs = append(errs, fmt.Errorf("platform %s: %w", id, err))
		}
	}
	return errs
}

// warnOfOtherPlatforms tells of annotations that nothing gets: the same command may build other platforms elsewhere.
func (o *Options) warnOfOtherPlatforms() {
	for _, a := range o.Annotations {
		if a.Platform != nil && !slices.ContainsFunc(o.Platforms, platforms.OnlyStrict(*a.Platform).Match) {
			o.Warn(fmt.Sprintf("the annotation manifest[%s]:%s is of no effect: only %s is built", platforms.FormatAll(*a.Platform), a.Key, formatPlatforms(o.Platforms)))
		}
	}
}

// once passes on a warning that was not there yet: most of what is said of one platform is true of all.
func once(warn func(string)) func(string) {
	if warn == nil {
		return func(string) {}
	}
	var said sync.Map
	return func(line string) {
		if _, again := said.LoadOrStore(line, true); !again {
			warn(line)
		}
	}
}

// environmentEpoch reads SOURCE_DATE_EPOCH, https://reproducible-builds.org/specs/source-date-epoch/.
func environmentEpoch() (time.Time, error) {
	v := os.Getenv("SOURCE_DATE_EPOCH")
	if v == "" {
		return time.Unix(0, 0).UTC(), nil
	}
	s, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH=%q is no number of seconds", v)
	}
	return time.Unix(s, 0).UTC(), nil
}

// Run builds and tags a ClusterImage. A mistake in the Kubefile, or a line of it that fails, is a
// *kubefile.PositionError (kubefile.Errors where there are several). Cancelling ctx leaves no tag, no mount, no process
// and no lock; what was fetched whole is there for the next build.
func Run(ctx context.Context, o Options) (Result, error) {
	result, _, err := run(ctx, o, false)
	return result, err
}

// RunUnchanged is Run where an earlier build made a rootfs of the same, and the store still has it: BuildKit is not
// started, and nothing is mounted. Images are asked for as always. done is false where only Run can say what the rootfs
// is; nothing has happened then.
func RunUnchanged(ctx context.Context, o Options) (_ Result, done bool, err error) {
	return run(ctx, o, true)
}

func run(ctx context.Context, o Options, unchanged bool) (_ Result, done bool, err error) {
	if err := o.complete(); err != nil {
		return Result{}, false, err
	}
	in, err := readInputs(o)
	if err != nil {
		return Result{}, false, err
	}
	known := recollect(o, in)
	if unchanged && (known == nil || o.NoCache || o.Pull == Always || known.read() == nil) {
		return Result{}, false, nil
	}
	release, err := o.Store.Hold(ctx)
	if err != nil {
		return Result{}, false, err
	}
	defer func() { err = errors.Join(err, release()) }()

	pack, err := newPacker(o, in)
	if err != nil {
		return Result{}, false, err
	}
	defer func() { err = errors.Join(err, pack.close()) }()
	// Whatever fails first ends the rest; nothing is left running.
	ctx, cancel := context.WithCancelCause(ctx)
	defer pack.wait()
	defer cancel(nil)
	if err := checkBases(ctx, o, in, pack); err != nil {
		return Result{}, false, err
	}
	var made *solved
	var bases bases
	if unchanged {
		if made, bases = known.recall(ctx, o, in, pack); made == nil {
			return Result{}, false, context.Cause(ctx)
		}
	} else if made, bases, err = makeRootfs(ctx, o, in, pack, known); err != nil {
		return Result{}, false, err
	}
	result, err := finish(ctx, o, in, pack, made, bases)
	return result, true, err
}

// makeRootfs has BuildKit make the rootfs, while images are fetched that it will probably ask for.
func makeRootfs(ctx context.Context, o Options, in *inputs, pack *packer, known *recollection) (*solved, bases, error) {
	if o.Mode != Lite {
		pack.guess(ctx)
	}
	from, err := resolveBases(ctx, o, in)
	if err != nil {
		return nil, nil, err
	}
	context := ""
	if known != nil { // before BuildKit reads the files: what changes while it does is another context the next time
		if context, err = contextDigest(ctx, o, in); err != nil {
			known = nil // BuildKit says what is wrong
		}
	}
	made, err := solve(ctx, o, in, from, pack)
	if err != nil || known == nil || made.warned || pack.archives {
		return made, from, err
	}
	err = known.write(memory{Made: known.made(from, context), Rootfs: made.rootfs, Toolbox: made.toolbox.digest, Found: pack.found})
	if err != nil {
		o.Warn(fmt.Sprintf("the next build will ask BuildKit whether anything has changed: %v", err))
	}
	return made, from, nil
}

// finish packs the images that the rootfs asks for, and composes and tags the image.
func finish(ctx context.Context, o Options, in *inputs, pack *packer, made *solved, bases bases) (Result, error) {
	var err error
	var images []clusterimage.PackedImage
	var lock imagelist.Lock
	if o.Mode != Lite {
		var from map[string]string
		if images, from, err = pack.images(ctx); err != nil {
			return Result{}, err
		}
		lock = in.locks.lock(images, from)
		images = inherit(images, bases.images(in))
	}
	decision, err := decide(ctx, o, in, bases, images, pack.denied)
	if err != nil {
		return Result{}, err
	}
	keep, err := attestations(ctx, o, in, bases, made, images, decision)
	if err != nil {
		return Result{}, err
	}
	task := o.Display.Task("composing " + o.Tag)
	desc, err := compose(ctx, o, clusterimage.Composition{
		Rootfs: made.rootfs, Images: images, Annotations: indexAnnotations(o.Annotations), Keep: keep,
	})
	task.Done(err)
	if err == nil && o.Lock {
		err = writeLock(o, lock)
	}
	return Result{Name: o.Tag, Names: o.names(), Descriptor: desc}, err
}

func compose(ctx context.Context, o Options, in clusterimage.Composition) (ocispec.Descriptor, error) {
	desc, err := clusterimage.Compose(ctx, o.Store.Content(), in)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := ctx.Err(); err != nil {
		return ocispec.Descriptor{}, context.Cause(ctx)
	}
	for _, name := range o.names() {
		if err := o.Store.Tag(ctx, name, desc); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	return desc, nil
}
