// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/containerd/continuity/sysx"
	"github.com/moby/buildkit/cache/contenthash"
	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const mirrorBuffer = 256 << 10 // bytes that one file is copied through

// mirror makes the copy of a folder what the folder is, by the metadata of its files: one walk, in which the copy is
// touched only where it differs.
type mirror struct {
	from  fsutil.FS // filtered
	open  func(path string) (io.ReadCloser, error)
	known *listing // what the copy holds; nil: nothing
	to    *folderCopy

	now     listing
	cursor  cursor
	disk    *fsutil.DiskWriter // for everything but files with content
	files   errgroup.Group     // those are written side by side
	inside  []*fstypes.Stat    // the folders around the place where the walk is
	touched map[string]int64   // folders whose time is to be set: what is made in them changes it
	removed string             // the last folder that went, with all that was in it
	buffers chan []byte
}

// run does it, and returns what the copy holds now.
func (m *mirror) run(ctx context.Context) (_ *listing, err error) {
	m.now = listing{boot: bootID()}
	m.touched = map[string]int64{}
	jobs := max(2, runtime.GOMAXPROCS(0))
	m.files.SetLimit(jobs)
	m.buffers = make(chan []byte, jobs)
	if m.known != nil {
		m.cursor.rest = m.known.entries
		m.now.entries = make([]byte, 0, len(m.known.entries)+len(m.known.entries)/8)
	}
	defer func() { err = errors.Join(err, m.files.Wait()) }()
	if err := m.cursor.next(); err != nil {
		return nil, err
	}
	var failed error // a walk takes some errors for files that are gone by now
	err = m.from.Walk(ctx, "/", func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := statOf(entry)
		if err != nil {
			return err
		}
		if failed = m.visit(ctx, st); failed != nil {
			return fs.SkipAll
		}
		return nil
	})
	if err = errors.Join(failed, err); err != nil {
		return nil, err
	}
	for m.cursor.entry != nil {
		if err := m.remove(ctx); err != nil {
			return nil, err
		}
	}
	if err := m.files.Wait(); err != nil {
		return nil, err
	}
	for path, t := range m.touched {
		if err := m.to.open(); err != nil {
			return nil, err
		}
		if err := setTime(filepath.Join(m.to.dir, path), t); err != nil {
			return nil, err
		}
	}
	return &m.now, nil
}

// visit brings one file up to date, after it removed what the folder does not have before it.
func (m *mirror) visit(ctx context.Context, st *fstypes.Stat) error {
	for m.cursor.entry != nil && fsutil.ComparePath(m.cursor.entry.Path, st.Path) < 0 {
		if err := m.remove(ctx); err != nil {
			return err
		}
	}
	for len(m.inside) > 0 && m.inside[len(m.inside)-1].Path != filepath.Dir(st.Path) {
		m.inside = m.inside[:len(m.inside)-1]
	}
	raw, err := m.now.add(st)
	if err != nil {
		return err
	}
	kind := fsutil.ChangeKindAdd
	if m.cursor.entry != nil && m.cursor.entry.Path == st.Path {
		same, times := m.cursor.same(raw, st, m.known.loose)
		if m.removed = ""; m.cursor.entry.IsDir() && !st.IsDir() {
			m.removed = st.Path + "/"
		}
		if err := m.cursor.next(); err != nil {
			return err
		}
		if same {
			if st.IsDir() {
				m.inside = append(m.inside, st)
			}
			if !times {
				m.touched[st.Path] = st.ModTime
			}
			return nil
		}
		kind = fsutil.ChangeKindModify
	}
	m.touch(st.Path)
	if st.IsDir() {
		m.inside = append(m.inside, st)
		m.touched[st.Path] = st.ModTime
	}
	return m.write(ctx, kind, st)
}

// touch notes that something changes in the folder around path.
func (m *mirror) touch(path string) {
	dir := filepath.Dir(path)
	for _, d := range m.inside {
		if d.Path == dir {
			m.touched[dir] = d.ModTime
		}
	}
}

// remove takes the file at the cursor out of the copy.
func (m *mirror) remove(ctx context.Context) error {
	path, dir := m.cursor.entry.Path, m.cursor.entry.IsDir()
	if err := m.cursor.next(); err != nil {
		return err
	}
	if m.removed != "" && strings.HasPrefix(path, m.removed) {
		return nil
	}
	if m.removed = ""; dir {
		m.removed = path + "/"
	}
	m.touch(path)
	if err := m.begin(ctx); err != nil {
		return err
	}
	return m.disk.HandleChange(fsutil.ChangeKindDelete, path, nil, nil)
}

// begin makes the copy writable.
func (m *mirror) begin(ctx context.Context) (err error) {
	if m.disk != nil {
		return nil
	}
	if err := m.to.open(); err != nil {
		return err
	}
	m.disk, err = fsutil.NewDiskWriter(ctx, m.to.dir, fsutil.DiskWriterOpt{
		NotifyCb: m.to.hashes.HandleChange, ContentHasher: contenthash.NewFromStat,
		AsyncDataCb: func(_ context.Context, path string, _ io.WriteCloser) error {
			return fmt.Errorf("%q is not written here", path)
		},
	})
	return err
}

func (m *mirror) write(ctx context.Context, kind fsutil.ChangeKind, st *fstypes.Stat) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	if os.FileMode(st.Mode)&os.ModeType == 0 && st.Linkname == "" {
		m.files.Go(func() error {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			return m.file(kind, st)
		})
		return nil
	}
	if st.Linkname != "" && os.FileMode(st.Mode)&os.ModeSymlink == 0 {
		if err := m.files.Wait(); err != nil { // what it links to is one of them, maybe
			return err
		}
	}
	if err := m.disk.HandleChange(kind, st.Path, &fsutil.StatInfo{Stat: st}, nil); err != nil {
		return err
	}
	if kind == fsutil.ChangeKindModify && st.IsDir() {
		// The writer does not say that a folder's mode changed.
		return m.hashed(kind, st, nil)
	}
	return nil
}

// hashed tells the build cache what a file is; without content where copy is nil.
func (m *mirror) hashed(kind fsutil.ChangeKind, st *fstypes.Stat, copy func(io.Writer) error) error {
	hash, err := contenthash.NewFromStat(st.Clone())
	if err != nil {
		return err
	}
	if copy != nil {
		if err := copy(hash); err != nil {
			return err
		}
	}
	return m.to.hashes.HandleChange(kind, st.Path, &hashedFile{
		StatInfo: fsutil.StatInfo{Stat: st}, digest: digest.NewDigest(digest.SHA256, hash),
	}, nil)
}

// hashedFile is what the build cache wants to know of a file.
type hashedFile struct {
	fsutil.StatInfo
	digest digest.Digest
}

// Digest implements contenthash.Hashed.
func (h *hashedFile) Digest() digest.Digest { return h.digest }

// file copies a file with its content, and puts it in place of what is there.
func (m *mirror) file(kind fsutil.ChangeKind, st *fstypes.Stat) error {
	target := filepath.Join(m.to.dir, st.Path)
	path := target
	if kind == fsutil.ChangeKindModify {
		path = filepath.Join(filepath.Dir(target), ".sealer-new."+filepath.Base(target))
		if len(filepath.Base(path)) > unix.NAME_MAX {
			path = filepath.Join(filepath.Dir(target), ".sealer-new."+digest.FromString(target).Encoded())
		}
	}
	out, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	err = m.hashed(fsutil.ChangeKindAdd, st, func(hash io.Writer) error { return m.content(st.Path, out, hash) })
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	if err := setMetadata(path, st); err != nil {
		return err
	}
	if path == target {
		return nil
	}
	if old, err := os.Lstat(target); err == nil && old.IsDir() {
		if err := os.RemoveAll(target); err != nil {
			return err
		}
	}
	return os.Rename(path, target)
}

func (m *mirror) content(path string, to ...io.Writer) error {
	in, err := m.open(path)
	if errors.Is(err, unix.ENXIO) {
		return nil // a socket: it becomes an empty file
	}
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	var buf []byte
	select {
	case buf = <-m.buffers:
	default:
		buf = make([]byte, mirrorBuffer)
	}
	defer func() { m.buffers <- buf }()
	n, err := io.CopyBuffer(io.MultiWriter(to...), struct{ io.Reader }{in}, buf)
	m.to.report(n, false)
	return err
}

// setMetadata does what fsutil does, in the same order. File systems may refuse some attributes.
func setMetadata(path string, st *fstypes.Stat) error {
	for key, value := range st.Xattrs {
		_ = sysx.Setxattr(path, key, value, 0)
	}
	if err := os.Lchown(path, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := os.Chmod(path, os.FileMode(st.Mode)); err != nil {
		return err
	}
	return setTime(path, st.ModTime)
}

// setTime sets both times of a file to that of its content, in nanoseconds since 1970.
func setTime(path string, t int64) error {
	times := []unix.Timespec{unix.NsecToTimespec(t), unix.NsecToTimespec(t)}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "setting the time of", Path: path, Err: err}
	}
	return nil
}
