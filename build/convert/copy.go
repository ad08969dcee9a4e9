// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"github.com/sealerio/sealer/kubefile"
)

// copy converts COPY. Where nothing depends on what lies below, the files become a layer of their own that is merged on
// top: a base is then never unpacked, and a change in one COPY leaves the others in the cache. Where something may
// depend on it (is the destination a folder? whose number is "nginx"?), they are copied onto what is there.
func (c *converter) copy(s *stage, i *kubefile.Copy, name string) error {
	if i.From == "" {
		return c.place(s, i, name, c.context, c.fromContext)
	}
	src, err := c.source(s, i.From)
	if err != nil {
		return err
	}
	return c.place(s, i, name, src, func(string) {})
}

// source is the files of another stage or an image.
func (c *converter) source(s *stage, from string) (llb.State, error) {
	if st, ok := c.file.LookupStage(from, s.in.Index); ok {
		other, err := c.stage(st.Index)
		if err != nil {
			return llb.State{}, err
		}
		return other.state(), nil
	}
	if from == "scratch" {
		return llb.Scratch(), nil
	}
	b, err := c.image(from, c.o.Target)
	return b.State, err
}

// fromContext notes a path of the context that the build needs.
func (c *converter) fromContext(p string) {
	if c.paths == nil {
		c.paths = map[string]bool{}
	}
	p = strings.TrimPrefix(path.Join("/", p), "/")
	if p == "" {
		p = "."
	}
	c.paths[p] = true
}

func (c *converter) place(s *stage, i *kubefile.Copy, name string, src llb.State, used func(string)) error {
	b := c.files(s, i)
	for _, p := range i.Sources {
		from, info := contents(p, i.Parents)
		if i.From == "" && from == madeByPeer {
			from, info.AllowEmptyWildcard = madeByPeerPattern, true
		}
		used(from)
		b.copy(src, from, info)
	}
	b.heredocs(i.Heredocs)
	c.layer(s, i, name, b, i.Link || independent(i, b.dest))
	return nil
}

// madeByPeer is the folder of packed images that sealos makes in the context before it runs `COPY registry registry`. Here
// images are packed otherwise: where it is not there, nothing is copied.
const (
	madeByPeer        = "/registry"
	madeByPeerPattern = "/registr[y]"
)

// layer puts the files on top of the stage's; beside what is there, where they are independent of it.
func (c *converter) layer(s *stage, i kubefile.Instruction, name string, b *fileBuilder, independent bool) {
	if b.action == nil {
		return
	}
	s.history = append(s.history, i.Text())
	opts := c.constraints(i.Lines(), name, s.platform)
	link := false
	if c, ok := i.(*kubefile.Copy); ok {
		link = c.Link
	}
	if !c.o.Exact && independent && (link || s.base == nil || s.linked) {
		s.place(b.dest)
		s.layers = append(s.layers, llb.Scratch().File(b.action, opts...))
		return
	}
	s.replace(s.state().File(b.action, opts...))
}

// independent says whether a COPY does the same wherever it is done: its destination is a folder, or cannot be one, and
// its owner is a number.
func independent(i *kubefile.Copy, dest string) bool {
	if !numeric(i.Chown) {
		return false
	}
	if strings.HasSuffix(dest, "/") {
		return true
	}
	// COPY f d/f: where d/f is a folder below, f is one as well.
	return len(i.Sources) == 1 && len(i.Heredocs) == 0 && path.Base(i.Sources[0]) == path.Base(i.Dest) && !isPattern(i.Sources[0])
}

func numeric(chown string) bool {
	for part := range strings.SplitSeq(chown, ":") {
		if _, err := strconv.ParseUint(part, 10, 32); err != nil && part != "" {
			return false
		}
	}
	return true
}

// contents is where to copy from, an absolute path, and how, for files of a context, a stage or an image.
//
// Folders that a pattern finds keep their names, as with cp: `COPY rootfs/* .` is `COPY rootfs .`, not all their files in one
// heap as in a Dockerfile.
func contents(p string, parents bool) (string, *llb.CopyInfo) {
	info := &llb.CopyInfo{FollowSymlinks: true, CopyDirContentsOnly: true, CreateDestPath: true, AllowWildcard: true}
	if !parents {
		info.CopyDirContentsOnly = !isPattern(path.Base(p))
		return path.Join("/", p), info
	}
	// What stands before /./ is not kept; the pattern is relative to it.
	before, pattern, ok := strings.Cut(p, "/./")
	if !ok {
		before, pattern = "", p
	}
	info.IncludePatterns = []string{strings.TrimPrefix(path.Join("/", pattern), "/")}
	if !isPattern(p) {
		info.RequiredPaths = []string{path.Join("/", p)}
	}
	return path.Join("/", before), info
}

func isPattern(p string) bool { return strings.ContainsAny(p, "*?[") }

func (c *converter) files(s *stage, i *kubefile.Copy) *fileBuilder {
	opts := []llb.CopyOption{withTime{c.o.Epoch}}
	if i.Chmod != "" {
		mode := &llb.ChmodOpt{ModeStr: i.Chmod}
		if bits, err := strconv.ParseUint(i.Chmod, 8, 32); err == nil {
			mode = &llb.ChmodOpt{Mode: fs.FileMode(bits)}
		}
		opts = append(opts, withMode{mode})
	}
	if i.Chown != "" {
		opts = append(opts, llb.WithUser(i.Chown))
	}
	if len(i.Exclude) > 0 {
		opts = append(opts, llb.WithExcludePatterns(i.Exclude))
	}
	return &fileBuilder{dest: kubefile.Destination(s.dir, i.Dest), opts: opts}
}

type withTime struct{ time time.Time }

func (t withTime) SetCopyOption(info *llb.CopyInfo) { info.CreatedTime = &t.time }

type withMode struct{ mode *llb.ChmodOpt }

func (m withMode) SetCopyOption(info *llb.CopyInfo) { info.Mode = m.mode }

// fileBuilder collects the copies of one instruction into one operation.
type fileBuilder struct {
	dest   string
	opts   []llb.CopyOption
	action *llb.FileAction
}

func (b *fileBuilder) copy(src llb.State, p string, info *llb.CopyInfo) {
	opts := append([]llb.CopyOption{info}, b.opts...)
	if b.action == nil {
		b.action = llb.Copy(src, p, b.dest, opts...)
	} else {
		b.action = b.action.Copy(src, p, b.dest, opts...)
	}
}

func (b *fileBuilder) heredocs(docs []kubefile.Heredoc) {
	for _, d := range docs {
		st := llb.Scratch().File(llb.Mkfile("/"+d.Name, 0o644, []byte(d.Content)), llb.WithCustomName("[internal] inline document "+d.Name))
		b.copy(st, "/"+d.Name, &llb.CopyInfo{CreateDestPath: true})
	}
}

// add converts ADD: URLs and Git repositories are fetched, local archives unpacked.
func (c *converter) add(s *stage, i *kubefile.Add, name string) error {
	b := c.files(s, &i.Copy)
	for _, p := range i.Sources {
		repository, isGit, err := dfgitutil.ParseGitRef(p)
		switch {
		case isGit && err != nil:
			return err
		case isGit && !repository.IndistinguishableFromLocal:
			st, err := c.gitSource(s, repository, i, name)
			if err != nil {
				return err
			}
			b.copy(st, "/", &llb.CopyInfo{CreateDestPath: true, CopyDirContentsOnly: true})
		case strings.HasPrefix(p, "http://"), strings.HasPrefix(p, "https://"):
			st, file, err := c.httpSource(s, p, i.Checksum, i, name)
			if err != nil {
				return err
			}
			b.copy(st, file, &llb.CopyInfo{CreateDestPath: true, AttemptUnpack: i.Unpack != nil && *i.Unpack})
		default:
			from, info := contents(p, false)
			info.AttemptUnpack = i.Unpack == nil || *i.Unpack
			c.fromContext(from)
			b.copy(c.context, from, info)
		}
	}
	b.heredocs(i.Heredocs)
	c.layer(s, &i.Copy, name, b, i.Link || independent(&i.Copy, b.dest))
	return nil
}

// httpSource is one file of a server, which the engine fetches, verifies and keeps.
func (c *converter) httpSource(s *stage, address, checksum string, i kubefile.Instruction, name string) (llb.State, string, error) {
	file, err := kubefile.RemoteName(address)
	if err != nil {
		return llb.State{}, "", err
	}
	opts := []llb.HTTPOption{llb.Filename(file), llb.WithCustomName(name)}
	if checksum != "" {
		opts = append(opts, llb.Checksum(digest.Digest(checksum)))
	}
	for _, o := range c.constraints(i.Lines(), name, s.platform) {
		opts = append(opts, o)
	}
	return llb.HTTP(address, opts...), file, nil
}

func (c *converter) gitSource(s *stage, r *dfgitutil.GitRef, i *kubefile.Add, name string) (llb.State, error) {
	opts := []llb.GitOption{llb.GitRef(r.Ref)}
	for _, o := range c.constraints(i.Lines(), name, s.platform) {
		opts = append(opts, o)
	}
	if i.KeepGitDir || r.KeepGitDir != nil && *r.KeepGitDir {
		opts = append(opts, llb.KeepGitDir())
	}
	sum := i.Checksum
	if sum == "" {
		sum = r.Checksum
	} else if r.Checksum != "" && sum != r.Checksum {
		return llb.State{}, fmt.Errorf("--checksum=%s, but the address says %s", sum, r.Checksum)
	}
	if sum != "" {
		opts = append(opts, llb.GitChecksum(sum))
	}
	if r.SubDir != "" {
		opts = append(opts, llb.GitSubDir(r.SubDir))
	}
	if r.Submodules != nil && !*r.Submodules {
		opts = append(opts, llb.GitSkipSubmodules())
	}
	return llb.Git(r.Remote, "", opts...), nil
}

// contextOutput is the build context, made when the graph is marshalled: by then it is known which of its files are needed.
type contextOutput struct {
	converter *converter
	once      sync.Once
	inner     llb.Output
}

func (o *contextOutput) output() llb.Output {
	o.once.Do(func() {
		paths := slices.Sorted(maps.Keys(o.converter.paths))
		if slices.Contains(paths, ".") {
			paths = nil
		}
		o.inner = o.converter.o.Context(paths).Output()
	})
	return o.inner
}

func (o *contextOutput) ToInput(ctx context.Context, c *llb.Constraints) (*pb.Input, error) {
	if out := o.output(); out != nil {
		return out.ToInput(ctx, c)
	}
	return nil, errors.New("there is no build context")
}

func (o *contextOutput) Vertex(ctx context.Context, c *llb.Constraints) llb.Vertex {
	if out := o.output(); out != nil {
		return out.Vertex(ctx, c)
	}
	return nil
}
