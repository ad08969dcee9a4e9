// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
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
	b := c.files(i)
	for _, p := range i.Sources {
		from, info := contents(p, i.Parents)
		used(from)
		b.copy(src, from, info)
	}
	b.heredocs(i.Heredocs)
	c.layer(s, i, name, b)
	return nil
}

// layer puts the files on top of the stage's.
func (c *converter) layer(s *stage, i *kubefile.Copy, name string, b *fileBuilder) {
	if b.action == nil {
		return
	}
	s.history = append(s.history, i.Text())
	opts := c.constraints(i.Lines(), name, s.platform)
	if !c.o.Exact && (i.Link || s.base == nil || s.linked) && independent(i) {
		s.place(b.dest)
		s.layers = append(s.layers, llb.Scratch().File(b.action, opts...))
		return
	}
	s.replace(s.state().File(b.action, opts...))
}

// independent says whether a COPY does the same wherever it is done: its destination is a folder, or cannot be one, and
// its owner is a number.
func independent(i *kubefile.Copy) bool {
	if !numeric(i.Chown) {
		return false
	}
	if i.Link || strings.HasSuffix(destination(i.Dest), "/") {
		return true
	}
	// COPY f d/f: where d/f is a folder below, f is one as well.
	return len(i.Sources) == 1 && len(i.Heredocs) == 0 && path.Base(i.Sources[0]) == path.Base(i.Dest) && !strings.ContainsAny(i.Sources[0], "*?[")
}

func numeric(chown string) bool {
	for part := range strings.SplitSeq(chown, ":") {
		if _, err := strconv.ParseUint(part, 10, 32); err != nil && part != "" {
			return false
		}
	}
	return true
}

// destination is the absolute path; a / at its end says that it is a folder.
func destination(dest string) string {
	p := path.Join("/", dest)
	if strings.HasSuffix(dest, "/") || path.Base(dest) == "." || path.Base(dest) == ".." {
		p = strings.TrimSuffix(p, "/") + "/"
	}
	return p
}

// contents is where to copy from, an absolute path, and how, for files of a context, a stage or an image.
func contents(p string, parents bool) (string, *llb.CopyInfo) {
	info := &llb.CopyInfo{FollowSymlinks: true, CopyDirContentsOnly: true, CreateDestPath: true, AllowWildcard: true}
	if !parents {
		return path.Join("/", p), info
	}
	// What stands before /./ is not kept; the pattern is relative to it.
	before, pattern, ok := strings.Cut(p, "/./")
	if !ok {
		before, pattern = "", p
	}
	info.IncludePatterns = []string{strings.TrimPrefix(path.Join("/", pattern), "/")}
	if !strings.ContainsAny(p, "*?[") {
		info.RequiredPaths = []string{path.Join("/", p)}
	}
	return path.Join("/", before), info
}

func (c *converter) files(i *kubefile.Copy) *fileBuilder {
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
	return &fileBuilder{dest: destination(i.Dest), opts: opts}
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
	b := c.files(&i.Copy)
	for _, p := range i.Sources {
		repository, isGit, err := dfgitutil.ParseGitRef(p)
		switch {
		case isGit && err != nil:
			return err
		case isGit && !repository.IndistinguishableFromLocal:
			st, err := gitSource(repository, i, name)
			if err != nil {
				return err
			}
			b.copy(st, "/", &llb.CopyInfo{CreateDestPath: true, CopyDirContentsOnly: true})
		case strings.HasPrefix(p, "http://"), strings.HasPrefix(p, "https://"):
			st, file := c.httpSource(s, p, i, name)
			b.copy(st, file, &llb.CopyInfo{CreateDestPath: true, AttemptUnpack: i.Unpack != nil && *i.Unpack})
		default:
			from, info := contents(p, false)
			info.AttemptUnpack = i.Unpack == nil || *i.Unpack
			c.fromContext(from)
			b.copy(c.context, from, info)
		}
	}
	b.heredocs(i.Heredocs)
	c.layer(s, &i.Copy, name, b)
	return nil
}

func (c *converter) httpSource(s *stage, address string, i *kubefile.Add, name string) (llb.State, string) {
	file := "download"
	if u, err := url.Parse(address); err == nil {
		if base := path.Base(u.Path); base != "." && base != "/" {
			file = base
		}
	}
	opts := []llb.HTTPOption{llb.Filename(file), llb.WithCustomName(name)}
	if i.Checksum != "" {
		opts = append(opts, llb.Checksum(digest.Digest(i.Checksum)))
	}
	for _, o := range c.constraints(i.Lines(), name, s.platform) {
		opts = append(opts, o)
	}
	return llb.HTTP(address, opts...), file
}

func gitSource(r *dfgitutil.GitRef, i *kubefile.Add, name string) (llb.State, error) {
	opts := []llb.GitOption{llb.WithCustomName(name), llb.GitRef(r.Ref)}
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
