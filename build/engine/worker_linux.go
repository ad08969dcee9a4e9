// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/diff/apply"
	ctdmetadata "github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/diff/walking"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/cache/contenthash"
	"github.com/moby/buildkit/cache/metadata"
	"github.com/moby/buildkit/executor/resources"
	containerdsnapshot "github.com/moby/buildkit/snapshot/containerd"
	"github.com/moby/buildkit/solver/pb"
	srchttp "github.com/moby/buildkit/source/http"
	"github.com/moby/buildkit/util/leaseutil"
	"github.com/moby/buildkit/util/network"
	"github.com/moby/buildkit/util/tracing"
	"github.com/moby/buildkit/worker/base"
	wlabel "github.com/moby/buildkit/worker/label"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.etcd.io/bbolt"
)

const namespace = "buildkit" // of blobs and snapshots in containerd's metadata

// buildWorker is BuildKit's worker and the parts of it that we need ourselves.
type buildWorker struct {
	*base.Worker
	dir   string
	sn    snapshots.Snapshotter
	db    *bbolt.DB
	steps *steps
	local *folderSource
}

// openWorker puts the worker together by hand: BuildKit's own constructor wants a runtime to be installed and
// brings network plugins along.
func openWorker(ctx context.Context, o Options, hosts docker.RegistryHosts, unsynced bool) (_ *buildWorker, err error) {
	name, err := chooseSnapshotter(o)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(o.Root, "worker-"+name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	sn, err := newSnapshotter(name, filepath.Join(dir, "snapshots"), unsynced)
	if err != nil {
		return nil, err
	}
	blobs, err := local.NewStore(filepath.Join(dir, "content"))
	if err != nil {
		return nil, errors.Join(err, sn.Close())
	}
	db, err := bbolt.Open(filepath.Join(dir, "containerdmeta.db"), 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType, NoSync: unsynced})
	if err != nil {
		return nil, errors.Join(err, sn.Close())
	}
	w := &buildWorker{dir: dir, sn: sn, db: db}
	defer func() {
		if err != nil {
			err = errors.Join(err, sn.Close(), db.Close())
		}
	}()
	mdb := ctdmetadata.NewDB(db, blobs, map[string]snapshots.Snapshotter{name: &clampSnapshotter{Snapshotter: sn, epoch: o.Epoch}})
	if err := mdb.Init(ctx); err != nil {
		return nil, err
	}
	md, err := metadata.NewStore(filepath.Join(dir, "metadata_v2.db"))
	if err != nil {
		return nil, err
	}
	if unsynced {
		dontWait(md)
	}
	id, err := base.ID(dir)
	if err != nil {
		return nil, errors.Join(err, md.Close())
	}
	monitor, err := resources.NewMonitor()
	if err != nil {
		return nil, errors.Join(err, md.Close())
	}
	networks := map[pb.NetMode]network.Provider{
		pb.NetMode_UNSET: network.NewHostProvider(),
		pb.NetMode_HOST:  network.NewHostProvider(),
		pb.NetMode_NONE:  network.NewNoneProvider(),
	}
	w.steps = newSteps(o, filepath.Join(dir, "executor"), networks, monitor)
	cs := containerdsnapshot.NewContentStore(mdb.ContentStore(), namespace)
	w.Worker, err = base.NewWorker(ctx, base.WorkerOpt{
		ID:               id,
		Root:             dir,
		Labels:           map[string]string{wlabel.Executor: "sealer", wlabel.Snapshotter: name},
		Platforms:        []ocispec.Platform{platforms.Normalize(platforms.DefaultSpec())},
		NetworkProviders: networks,
		Executor:         w.steps,
		Snapshotter:      containerdsnapshot.NewSnapshotter(name, mdb.Snapshotter(name), namespace, nil),
		ContentStore:     cs,
		Applier:          apply.NewFileSystemApplier(cs),
		Differ:           walking.NewWalkingDiff(cs),
		RegistryHosts:    hosts,
		LeaseManager:     leaseutil.WithNamespace(ctdmetadata.NewLeaseManager(mdb), namespace),
		GarbageCollect:   mdb.GarbageCollect,
		MetadataStore:    md,
		MountPoolRoot:    filepath.Join(dir, "cachemounts"),
		ResourceMonitor:  monitor,
	})
	if err != nil {
		return nil, errors.Join(err, md.Close())
	}
	quiet := o.FetchTimeout
	if quiet == 0 {
		quiet = fetchTimeout
	}
	// In place of BuildKit's own, which waits for a silent server for ever.
	files, err := srchttp.NewSource(srchttp.Opt{
		CacheAccessor: w.CacheMgr, Transport: tracing.NewTransport(&patientTransport{inner: http.DefaultTransport, quiet: quiet}),
	})
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	w.SourceManager.Register(files)
	if w.local, err = newFolderSource(w.CacheMgr, o.Folders); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	w.SourceManager.Register(w.local)
	return w, nil
}

// Platforms are those that files are made for. BuildKit's own answer starts a small program of every architecture, each
// time, to see which of them this machine can run.
func (w *buildWorker) Platforms(bool) []ocispec.Platform { return w.WorkerOpt.Platforms }

// forget drops what BuildKit remembers of this worker's files for the whole process: it would look into the closed
// database when the process opens the same folder again.
func (w *buildWorker) forget() {
	items, err := w.MetadataStore.All()
	if err != nil {
		return // closed, or broken: nothing that closing could mend
	}
	for _, i := range items {
		contenthash.ClearCacheContext(refID{id: i.ID()})
	}
}

// refID is all of a cache reference that contenthash asks for here.
type refID struct {
	cache.RefMetadata
	id string
}

func (r refID) ID() string { return r.id }

// close ends what BuildKit's controller does not; alone says that there is no controller that closed the worker.
func (w *buildWorker) close(alone bool) error {
	var errs []error
	if alone {
		errs = append(errs, w.Close())
	}
	return errors.Join(append(errs, w.sn.Close(), w.db.Close())...)
}
