// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"sync"
	"time"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/cache/contenthash"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/source"
	"github.com/moby/buildkit/source/local"
	"github.com/moby/buildkit/util/progress"
	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
)

const (
	// sessionHeader is where a session says its id when it dials.
	sessionHeader = "X-Docker-Expose-Session-Uuid"

	sessionWait = 5 * time.Second // as BuildKit does

	keyFolder   = "sealer.folder"    // of a reference: which folder it is a copy of
	keyListing  = "sealer.listing.1" // of a reference: see listing
	folderIndex = keyFolder + ":"
)

// folderSource is BuildKit's source of local files (local://), with a shorter way for the folders of this process' own
// builds: they are read in place, instead of being sent through the session. A folder that has not changed since is only
// walked: neither its copy nor anything in the databases is touched. Other sessions go BuildKit's way.
type folderSource struct {
	source.Source
	cm      cache.Accessor
	folders map[string]fsutil.FS

	mu       sync.Mutex
	sessions map[string]bool                // of this process
	locks    map[string]*semaphore.Weighted // by shared key
}

func newFolderSource(cm cache.Accessor, folders map[string]fsutil.FS) (*folderSource, error) {
	inner, err := local.NewSource(local.Opt{CacheAccessor: cm})
	if err != nil {
		return nil, err
	}
	return &folderSource{
		Source: inner, cm: cm, folders: folders,
		sessions: map[string]bool{}, locks: map[string]*semaphore.Weighted{},
	}, nil
}

// ours notes the session that dials with meta as one of this process.
func (s *folderSource) ours(meta map[string][]string) (ended func()) {
	id := http.Header(meta).Get(sessionHeader)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[id] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.sessions, id)
	}
}

func (s *folderSource) isOurs(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[id]
}

// lock keeps a folder's copies for one at a time.
func (s *folderSource) lock(ctx context.Context, key string) (unlock func(), err error) {
	s.mu.Lock()
	l, ok := s.locks[key]
	if !ok {
		l = semaphore.NewWeighted(1)
		s.locks[key] = l
	}
	s.mu.Unlock()
	if err := l.Acquire(ctx, 1); err != nil {
		return nil, context.Cause(ctx)
	}
	return func() { l.Release(1) }, nil
}

// Resolve implements source.Source.
func (s *folderSource) Resolve(ctx context.Context, id source.Identifier, sm *session.Manager, v solver.Vertex) (source.SourceInstance, error) {
	inner, err := s.Source.Resolve(ctx, id, sm, v)
	if err != nil {
		return nil, err
	}
	l, ok := id.(*local.LocalIdentifier)
	if !ok || l.MetadataOnly || l.Differ != fsutil.DiffMetadata {
		return inner, nil
	}
	files, ok := s.folders[l.Name]
	if !ok || s.cm.IdentityMapping() != nil {
		return inner, nil
	}
	return &folder{SourceInstance: inner, s: s, sm: sm, id: l, files: files}, nil
}

// folder is one folder in one build.
type folder struct {
	source.SourceInstance
	s     *folderSource
	sm    *session.Manager
	id    *local.LocalIdentifier
	files fsutil.FS
}

// Snapshot implements source.SourceInstance.
func (f *folder) Snapshot(ctx context.Context, job solver.JobContext) (cache.ImmutableRef, error) {
	id := f.id.SessionID
	if id == "" {
		id = job.Session().SessionIterator().NextSession()
	}
	caller, err := f.session(ctx, id)
	if err != nil || !f.s.isOurs(id) {
		return f.SourceInstance.Snapshot(ctx, job)
	}
	// As BuildKit's client and server do it, in two steps.
	filtered, err := fsutil.NewFilterFS(f.files, &fsutil.FilterOpt{
		IncludePatterns: f.id.IncludePatterns, ExcludePatterns: f.id.ExcludePatterns, FollowPaths: f.id.FollowPaths, Map: ownedByRoot,
	})
	if err != nil {
		return nil, err
	}
	key := f.id.Name + ":" + f.id.SharedKeyHint + ":" + caller.SharedKey()
	unlock, err := f.s.lock(ctx, key)
	if err != nil {
		return nil, err
	}
	defer unlock()
	found, err := f.s.cm.Search(ctx, folderIndex+key, false)
	if err != nil {
		return nil, err
	}
	for _, md := range found {
		ref, err := f.copyTo(ctx, key, fsutil.WithHardlinkReset(filtered), md)
		if _, taken := errors.AsType[*takenError](err); !taken {
			return ref, err
		}
	}
	return f.copyTo(ctx, key, fsutil.WithHardlinkReset(filtered), nil)
}

// session waits for a session: it dials while the build begins.
func (f *folder) session(ctx context.Context, id string) (session.Caller, error) {
	if id == "" {
		return nil, errors.New("the build has no session")
	}
	ctx, cancel := context.WithTimeout(ctx, sessionWait)
	defer cancel()
	return f.sm.Get(ctx, id, false)
}

func ownedByRoot(_ string, st *fstypes.Stat) fsutil.MapResult {
	st.Uid, st.Gid = 0, 0
	return fsutil.MapResultKeep
}

// takenError says that a copy cannot be had: something else uses it, or it is not in order.
type takenError struct{ err error }

func (e *takenError) Error() string { return fmt.Sprintf("the copy cannot be used: %v", e.err) }
func (e *takenError) Unwrap() error { return e.err }

// copyTo brings a copy of the folder up to date; nil: makes one. A copy that is not in order, as it is after a crash, is
// given up.
func (f *folder) copyTo(ctx context.Context, key string, files fsutil.FS, md cache.RefMetadata) (_ cache.ImmutableRef, err error) {
	var known *listing
	if md != nil {
		data, err := md.GetExternal(keyListing)
		if err == nil {
			known, err = parseListing(data)
		}
		if err != nil {
			return nil, &takenError{errors.Join(err, f.s.abandon(ctx, md))}
		}
	}
	c := &folderCopy{f: f, ctx: ctx, key: key, md: md, report: reportTransfer(ctx, f.id.Name)}
	defer func() { err = errors.Join(err, c.close(err)) }()
	if known != nil && known.boot != bootID() {
		// What was not on the disk when the machine stopped is not in the copy, whatever the listing says.
		if err := c.open(); err != nil {
			return nil, err
		}
		if known, err = listFolder(ctx, c.dir); err != nil {
			return nil, err
		}
	}
	m := mirror{from: files, open: f.files.Open, known: known, to: c}
	now, err := m.run(ctx)
	if errors.Is(err, errListing) && c.ref == nil {
		return nil, &takenError{errors.Join(err, f.s.abandon(ctx, md))}
	}
	if err != nil {
		return nil, fmt.Errorf("reading the build context: %w", err)
	}
	return c.commit(now)
}

// abandon removes a copy that is of no use.
func (s *folderSource) abandon(ctx context.Context, md cache.RefMetadata) error {
	ref, err := s.cm.GetMutable(ctx, md.ID())
	if err != nil {
		return err // it is in use
	}
	return errors.Join(ref.SetCachePolicyDefault(), ref.Release(context.WithoutCancel(ctx)))
}

// folderCopy is a reference that holds a copy of a folder. It is opened for writing at the first change.
type folderCopy struct {
	f      *folder
	ctx    context.Context //nolint:containedctx // of the one call that it lives in
	key    string
	md     cache.RefMetadata
	report func(bytes int64, last bool)

	ref    cache.MutableRef
	mounts snapshot.Mounter
	dir    string
	hashes contenthash.CacheContext
}

// open makes the copy writable; it may be called again.
func (c *folderCopy) open() (err error) {
	if c.hashes != nil {
		return nil
	}
	if c.md == nil {
		c.ref, err = c.f.s.cm.New(c.ctx, nil, nil, cache.CachePolicyRetain,
			cache.WithRecordType(client.UsageRecordTypeLocalSource), cache.WithDescription("local source for "+c.f.id.Name))
	} else if c.ref, err = c.f.s.cm.GetMutable(c.ctx, c.md.ID()); err != nil {
		return &takenError{err}
	}
	if err != nil {
		return err
	}
	if c.md != nil { // from here on the copy is in order only once commit says so
		if err := c.ref.SetExternal(keyListing, nil); err != nil {
			return err
		}
	}
	mountable, err := c.ref.Mount(c.ctx, false, nil)
	if err != nil {
		return err
	}
	mounts := snapshot.LocalMounter(mountable)
	if c.dir, err = mounts.Mount(); err != nil {
		return err
	}
	c.mounts = mounts
	c.hashes, err = contenthash.GetCacheContext(c.ctx, c.ref)
	return err
}

// commit is the end of a copy that is in order; now is what it holds.
func (c *folderCopy) commit(now *listing) (_ cache.ImmutableRef, err error) {
	if c.ref == nil && c.md != nil {
		ref, err := c.f.s.cm.Get(c.ctx, c.md.ID(), nil)
		if err != nil {
			return nil, &takenError{err}
		}
		return ref, nil
	}
	if err := c.open(); err != nil { // of an empty folder
		return nil, err
	}
	mounts := c.mounts
	c.mounts = nil
	if err := mounts.Unmount(); err != nil {
		return nil, err
	}
	if err := contenthash.SetCacheContext(c.ctx, c.ref, c.hashes); err != nil {
		return nil, err
	}
	if c.ref.GetString(keyFolder) != c.key {
		if err := c.ref.SetString(keyFolder, c.key, folderIndex+c.key); err != nil {
			return nil, err
		}
	}
	if err := c.ref.SetExternal(keyListing, now.bytes()); err != nil {
		return nil, err
	}
	snap, err := c.ref.Commit(c.ctx)
	if err != nil {
		return nil, err
	}
	c.ref = nil
	return snap, nil
}

// close ends a copy that was not committed.
func (c *folderCopy) close(failed error) error {
	c.report(0, true)
	var errs []error
	if c.mounts != nil {
		errs = append(errs, c.mounts.Unmount())
	}
	if c.ref != nil && failed != nil {
		contenthash.ClearCacheContext(c.ref) // it may say more than the files do
		errs = append(errs, c.ref.SetCachePolicyDefault(), c.ref.Release(context.WithoutCancel(c.ctx)))
	}
	err := errors.Join(errs...)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the reference is gone already
	}
	return err
}

// reportTransfer shows how many bytes were copied, as BuildKit does.
func reportTransfer(ctx context.Context, name string) func(bytes int64, last bool) {
	limit := rate.NewLimiter(rate.Every(100*time.Millisecond), 1)
	w, _, _ := progress.NewFromContext(ctx)
	began := time.Now()
	id, st := "transferring "+name+":", progress.Status{Started: &began, Action: "transferring"}
	_ = w.Write(id, st) // a display that fails is none
	var mu sync.Mutex
	return func(n int64, last bool) {
		mu.Lock()
		defer mu.Unlock()
		st.Current += int(n)
		if !last && !limit.Allow() {
			return
		}
		if last {
			now := time.Now()
			st.Completed = &now
		}
		_ = w.Write(id, st)
		if last {
			_ = w.Close()
		}
	}
}
