// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"

	"github.com/sealerio/sealer/clusterimage"
	"github.com/sealerio/sealer/imagelist"
	"github.com/sealerio/sealer/internal/atomicfile"
)

const (
	memoriesName = "rootfs"  // the folder of memories, in the state folder
	maxMemories  = 64        // how many are kept: those that were written last
	maxMemory    = 16 << 20  // bytes of one of them
	maxContext   = 200_000   // files of a context that are compared; one that has more is BuildKit's alone
	memoryFormat = "rootfs1" // other versions of sealer may write others
)

// memory is the rootfs of an earlier build, and what it was made of: while that is the same, BuildKit would make the same
// once more, out of its cache, and need not be started to say so. What a build asks of others — what ADD and APP download,
// caches of elsewhere, another BuildKit — is never remembered. Files of the context are compared as BuildKit compares
// them: by name, mode, size, time and attributes.
type memory struct {
	Made    string                       `json:"made"` // digest of all that it was made of
	Rootfs  []ocispec.Descriptor         `json:"rootfs"`
	Toolbox digest.Digest                `json:"toolbox,omitempty"` // that RUN ran in
	Found   map[string][]imagelist.Image `json:"found,omitempty"`   // by platform: what the rootfs asks registries for
}

// recollection is where the memory of one build lies, and what that build is made of, but for its context and its bases.
type recollection struct {
	path string
	own  []byte
}

// recollect returns nil for a build that is not remembered.
func recollect(o Options, in *inputs) *recollection {
	switch {
	case o.Builder != "", len(o.CacheFrom) > 0, len(o.CacheTo) > 0, len(o.Secrets) > 0, len(o.SSH) > 0:
		return nil
	case in.downloads, toolboxName(o, in) != "":
		return nil
	}
	program, err := programID()
	if err != nil {
		return nil
	}
	options, err := json.Marshal(struct {
		Context, Kubefile, Target, Mode, Type, Platforms, KubeVersion, Compression string
		BuildArgs, Labels                                                          map[string]string
		Annotations                                                                []Annotation
		APIVersions                                                                []string
		ConfigMaps, Charts                                                         bool
		Epoch                                                                      int64
	}{
		o.ContextDir, o.Kubefile, o.Target, string(o.Mode), o.Type, formatPlatforms(o.Platforms), o.KubeVersion, string(o.Compression),
		o.BuildArgs, o.Labels, o.Annotations, o.APIVersions, o.ConfigMaps, o.Charts != nil, o.Epoch.Unix(),
	})
	if err != nil {
		return nil
	}
	own, err := json.Marshal([]any{memoryFormat, program, o.Version, options, in.file.Name, in.file.Source, in.ignore})
	if err != nil {
		return nil
	}
	name := digest.FromBytes(options).Encoded()
	return &recollection{path: filepath.Join(o.Compression.stateDir(o.StateDir), memoriesName, name+".json"), own: own}
}

// programID tells this program from other builds of it.
func programID() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %d %d", path, info.Size(), info.ModTime().UnixNano()), nil
}

// read returns nil where there is no memory, or none that can be read.
func (r *recollection) read() *memory {
	info, err := os.Stat(r.path)
	if err != nil || info.Size() > maxMemory {
		return nil
	}
	data, err := os.ReadFile(r.path)
	if err != nil {
		return nil
	}
	m := &memory{}
	if err := json.Unmarshal(data, m); err != nil {
		return nil
	}
	return m
}

// made is the digest of all that a rootfs is made of.
func (r *recollection) made(from bases, context string) string {
	h := sha256.New()
	write := func(part []byte) {
		_ = binary.Write(h, binary.BigEndian, uint64(len(part))) // a hash takes all
		_, _ = h.Write(part)
	}
	write(r.own)
	write([]byte(context))
	for _, id := range slices.Sorted(maps.Keys(from)) {
		for _, name := range slices.Sorted(maps.Keys(from[id])) {
			b := from[id][name]
			write([]byte(id + " " + name + " " + b.top.Digest.String() + " " + b.manifest.Digest.String()))
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// write remembers; what cannot be written is not remembered.
func (r *recollection) write(m memory) error {
	data, err := json.Marshal(m)
	if err != nil || len(data) > maxMemory {
		return err
	}
	dir := filepath.Dir(r.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := atomicfile.Write(r.path, data, 0o600); err != nil {
		return err
	}
	return forgetOldest(dir)
}

func forgetOldest(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) <= maxMemories {
		return err
	}
	times := make(map[string]time.Time, len(entries))
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			times[e.Name()] = info.ModTime()
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, func(a, b string) int { return times[b].Compare(times[a]) })
	for _, name := range names[min(maxMemories, len(names)):] {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Forget makes the next build with BuildKit's state in dir (see StateDirs) ask BuildKit, even if nothing has changed.
func Forget(dir string) error {
	if err := os.RemoveAll(filepath.Join(dir, memoriesName)); err != nil {
		return fmt.Errorf("forgetting what was built: %w", err)
	}
	return nil
}

// contextDigest is that of the metadata of all files of the context. It changes when anything does that BuildKit sees.
func contextDigest(ctx context.Context, o Options, in *inputs) (string, error) {
	files, err := fsutil.NewFS(o.ContextDir)
	if err != nil {
		return "", fmt.Errorf("reading the build context: %w", err)
	}
	if files, err = fsutil.NewFilterFS(files, &fsutil.FilterOpt{ExcludePatterns: in.ignore}); err != nil {
		return "", fmt.Errorf("reading the build context: %w", err)
	}
	h := sha256.New()
	var buf []byte
	count := 0
	err = files.Walk(ctx, "/", func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if count++; count > maxContext {
			return errLargeContext
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*fstypes.Stat)
		if !ok {
			return fmt.Errorf("%q has no metadata", entry.Name())
		}
		st.Uid, st.Gid = 0, 0 // of a context, BuildKit takes none
		attributes := st.Xattrs
		st.Xattrs = nil // in no order
		size := st.SizeVT()
		buf = binary.AppendUvarint(buf[:0], uint64(size))
		at := len(buf)
		buf = append(buf, make([]byte, size)...)
		if _, err := st.MarshalToSizedBufferVT(buf[at:]); err != nil {
			return err
		}
		buf = binary.AppendUvarint(buf, uint64(len(attributes)))
		for _, key := range slices.Sorted(maps.Keys(attributes)) {
			buf = binary.AppendUvarint(buf, uint64(len(key)))
			buf = append(buf, key...)
			buf = binary.AppendUvarint(buf, uint64(len(attributes[key])))
			buf = append(buf, attributes[key]...)
		}
		_, _ = h.Write(buf) // a hash takes all
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("reading the build context: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

var errLargeContext = errors.New("it has too many files")

// recall gives the rootfs that an earlier build made of the same; nil: there is none, or the store lacks something of it.
func (r *recollection) recall(ctx context.Context, o Options, in *inputs, pack *packer) (*solved, bases) {
	known := r.read()
	if known == nil {
		return nil, nil
	}
	o.Pull = Never // what is to be fetched has changed
	from, err := resolveBases(ctx, o, in)
	if err != nil {
		return nil, nil
	}
	context, err := contextDigest(ctx, o, in)
	if err != nil || r.made(from, context) != known.Made || len(known.Rootfs) != len(o.Platforms) {
		return nil, nil
	}
	for _, d := range known.Rootfs {
		if d.Platform == nil || !wholeRootfs(ctx, o, d) {
			return nil, nil
		}
	}
	for _, p := range o.Platforms {
		id := platforms.FormatAll(p)
		pack.found[id] = known.Found[id]
	}
	return &solved{rootfs: known.Rootfs, toolbox: toolboxImage{digest: known.Toolbox}}, from
}

// wholeRootfs tells whether the store has a manifest and all that it names.
func wholeRootfs(ctx context.Context, o Options, d ocispec.Descriptor) bool {
	var m ocispec.Manifest
	if !complete(o.Store, []ocispec.Descriptor{d}) || clusterimage.ReadJSON(ctx, o.Store.Content(), d, &m) != nil {
		return false
	}
	return complete(o.Store, append([]ocispec.Descriptor{m.Config}, m.Layers...))
}
